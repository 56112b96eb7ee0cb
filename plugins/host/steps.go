package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/plain"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// What a plugin may say of a config.
const (
	maxProblems = 100
	maxText     = 4 << 10
	maxParts    = 64
	maxKey      = 64 << 10
)

// Steps returns the steps of a plugin. It starts the plugin only if it was never asked what
// it has. The steps work until Close.
func (h *Host) Steps(ctx context.Context, c store.Content) ([]step.Step, error) {
	d, err := h.Describe(ctx, c)
	if err != nil {
		return nil, err
	}
	var steps []step.Step
	for _, t := range d.GetSteps() {
		steps = append(steps, h.step(c, d.GetName(), t))
	}
	// A resource may be of any step of the plugin; without a Cleanup nothing can be claimed.
	if slices.ContainsFunc(d.GetSteps(), (*pluginv1.StepType).GetCleans) {
		for i := range steps {
			steps[i].Cleanup = func(ctx context.Context, r step.Resource) error { return h.Cleanup(ctx, c, r) }
		}
	}
	return steps, nil
}

func (h *Host) step(c store.Content, plugin string, t *pluginv1.StepType) step.Step {
	s := step.Step{
		Name:      t.GetName(),
		Version:   c.Digest,
		Plugin:    plugin + "@" + c.Digest,
		Summary:   t.GetSummary(),
		Doc:       t.GetDoc(),
		Schema:    t.GetSchema(),
		Outputs:   t.GetOutputs(),
		Effect:    step.Image,
		Cacheable: t.GetCacheable(),
		Run: func(ctx context.Context, target *step.Target, config json.RawMessage) (step.Outputs, error) {
			return h.run(ctx, c, t, target, config)
		},
	}
	for _, name := range t.GetSections() {
		s.Sections = append(s.Sections, step.Section(name))
		if name == string(step.Customize) {
			s.Effect = step.Machine
		}
	}
	if t.GetValidates() {
		s.Validate = func(ctx context.Context, config json.RawMessage) ([]step.Problem, error) {
			return h.validate(ctx, c, t.GetName(), config)
		}
	}
	if t.GetKeyed() {
		s.KeyParts = func(ctx context.Context, config json.RawMessage) (map[string]string, error) {
			return h.keyParts(ctx, c, t.GetName(), config)
		}
	}
	return s
}

// Cleanup asks a plugin to remove a resource that one of its steps claimed. It may take up
// to 10 minutes.
func (h *Host) Cleanup(ctx context.Context, c store.Content, r step.Resource) error {
	// Only for its name in errors: after a crash nothing else has asked for it.
	unread := h.recall(c)
	_, err := call(ctx, h, c, "cleanup", cleanupTime,
		func(p *process) asker[*pluginv1.CleanupRequest, *pluginv1.CleanupResponse] { return p.rpc.Cleanup },
		&pluginv1.CleanupRequest{Resource: &pluginv1.Resource{Kind: r.Kind, Id: r.ID, Note: r.Note}})
	if err != nil {
		return errors.Join(err, unread)
	}
	return nil
}

func (h *Host) validate(ctx context.Context, c store.Content, name string, config json.RawMessage) ([]step.Problem, error) {
	answer, err := call(ctx, h, c, "validate "+name, h.cfg.CallTimeout,
		func(p *process) asker[*pluginv1.ValidateRequest, *pluginv1.ValidateResponse] { return p.rpc.Validate },
		&pluginv1.ValidateRequest{Step: name, Config: config})
	if err != nil {
		return nil, err
	}
	said := answer.GetDiagnostics()
	if len(said) > maxProblems {
		return nil, h.named(c, "validate "+name, fmt.Errorf("it reports %d problems, of at most %d", len(said), maxProblems))
	}
	var problems []step.Problem
	for _, d := range said {
		p := step.Problem{
			Pointer: d.GetPointer(), Message: d.GetMessage(), Hint: d.GetHint(),
			Warning: d.GetSeverity() == pluginv1.Diagnostic_WARNING,
		}
		if err := checkProblem(p); err != nil {
			return nil, h.named(c, "validate "+name, err)
		}
		problems = append(problems, p)
	}
	return problems, nil
}

func checkProblem(p step.Problem) error {
	switch {
	case p.Message == "":
		return errors.New("it reports a problem without a message")
	case p.Pointer != "" && !strings.HasPrefix(p.Pointer, "/"):
		return fmt.Errorf("it reports a problem at %q, which is no JSON Pointer", clip(p.Pointer))
	}
	for _, text := range []string{p.Message, p.Hint, p.Pointer} {
		if len(text) > maxText || !plain.Is(text, "\n\t") {
			return fmt.Errorf("it reports a problem with %q, which is not text of at most %s", clip(text), size(maxText))
		}
	}
	return nil
}

func (h *Host) keyParts(ctx context.Context, c store.Content, name string, config json.RawMessage) (map[string]string, error) {
	answer, err := call(ctx, h, c, "key "+name, h.cfg.CallTimeout,
		func(p *process) asker[*pluginv1.KeyPartsRequest, *pluginv1.KeyPartsResponse] { return p.rpc.KeyParts },
		&pluginv1.KeyPartsRequest{Step: name, Config: config})
	if err != nil {
		return nil, err
	}
	parts := answer.GetParts()
	if err := checkParts(parts); err != nil {
		return nil, h.named(c, "key "+name, err)
	}
	return parts, nil
}

func checkParts(parts map[string]string) error {
	if len(parts) > maxParts {
		return fmt.Errorf("it names %d parts of the key, of at most %d", len(parts), maxParts)
	}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		total += len(name) + len(parts[name])
		if name == "" || len(name) > maxName || !plain.Is(name, "") || !utf8.ValidString(parts[name]) {
			return fmt.Errorf("%q is no part of a key: a name of 1 to %d bytes, and text", clip(name), maxName)
		}
	}
	if total > maxKey {
		return fmt.Errorf("the parts of the key have %s, of at most %s", size(int64(total)), size(maxKey))
	}
	return nil
}
