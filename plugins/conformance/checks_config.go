package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// checkConfigs holds the fixtures' configs, and those of the runs, against schema and Validate.
func checkConfigs(ctx context.Context, s *session) verdict {
	var wrong []string
	n := 0
	for name := range s.fixtures.Steps {
		if s.step(name) == nil {
			wrong = append(wrong, fmt.Sprintf("the fixtures have a step %q, and the plugin hasn't", name))
		}
	}
	for _, t := range s.described.GetSteps() {
		known := s.fixtures.Steps[t.GetName()]
		for _, with := range known.Good {
			n++
			if problem := s.refuses(ctx, t, with); problem != nil {
				wrong = append(wrong, fmt.Sprintf("step %q: the good config %s is refused: %s", t.GetName(), with, problem))
			}
		}
		for _, bad := range known.Bad {
			n++
			problem := s.refuses(ctx, t, bad.With)
			switch {
			case problem == nil:
				wrong = append(wrong, fmt.Sprintf("step %q: the bad config %s is accepted", t.GetName(), bad.With))
			case bad.Pointer != nil && !problem.names(*bad.Pointer):
				wrong = append(wrong, fmt.Sprintf("step %q: the bad config %s is refused elsewhere than at %s: %s", t.GetName(), bad.With, at(*bad.Pointer), problem))
			}
		}
	}
	switch {
	case len(wrong) > 0:
		return fails("%s", strings.Join(wrong, "\n"))
	case n == 0:
		return skips("there are no good or bad configs in %s", FixturesName)
	}
	return saw("%d %s", n, plural(n, "config"))
}

func (s *session) step(name string) *pluginv1.StepType {
	for _, t := range s.described.GetSteps() {
		if t.GetName() == name {
			return t
		}
	}
	return nil
}

// problems are why a config is refused: pointers and messages.
type problems [][2]string

func (p problems) names(pointer string) bool {
	for _, problem := range p {
		if problem[0] == pointer {
			return true
		}
	}
	return false
}

// String lists them.
func (p problems) String() string {
	var all []string
	for _, problem := range p {
		all = append(all, at(problem[0])+": "+problem[1])
	}
	return strings.Join(all, "; ")
}

// refuses asks schema and plugin about a config, as gild does; nil when both take it.
func (s *session) refuses(ctx context.Context, t *pluginv1.StepType, with document) problems {
	if len(with) == 0 {
		with = document("{}")
	}
	if schema := s.schemas[t.GetName()]; schema != nil {
		if all := violations(schema, json.RawMessage(with)); len(all) > 0 {
			return all
		}
	}
	if !t.GetValidates() {
		return nil
	}
	answer, err := s.validate(ctx, t, json.RawMessage(with))
	if err != nil {
		return problems{{"", err.Error()}}
	}
	var all problems
	for _, d := range answer.GetDiagnostics() {
		if d.GetSeverity() == pluginv1.Diagnostic_ERROR {
			all = append(all, [2]string{d.GetPointer(), d.GetMessage()})
		}
	}
	return all
}

func (s *session) validate(ctx context.Context, t *pluginv1.StepType, config json.RawMessage) (*pluginv1.ValidateResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	return s.p.client.Validate(ctx, &pluginv1.ValidateRequest{Step: t.GetName(), Config: config})
}

// configs are all configs of a step that the kit knows, good and bad, as JSON.
func (s *session) configs(t *pluginv1.StepType) []json.RawMessage {
	var all []json.RawMessage
	for _, f := range s.samples(t) {
		// A fixture that isn't an object was refused when it was read.
		if config, err := s.config(f.With); err == nil {
			all = append(all, config)
		}
	}
	for _, bad := range s.fixtures.Steps[t.GetName()].Bad {
		all = append(all, json.RawMessage(bad.With))
	}
	return all
}

func checkValidate(ctx context.Context, s *session) verdict {
	n := 0
	for _, t := range s.described.GetSteps() {
		if !t.GetValidates() {
			continue
		}
		for _, config := range s.configs(t) {
			if schema := s.schemas[t.GetName()]; schema != nil && len(violations(schema, config)) > 0 {
				continue // gild doesn't ask the plugin then
			}
			n++
			first, err := s.validate(ctx, t, config)
			if err != nil {
				return fails("step %q: validate %s: %v", t.GetName(), config, err)
			}
			second, err := s.validate(ctx, t, config)
			if err != nil {
				return fails("step %q: validate %s a second time: %v", t.GetName(), config, err)
			}
			if !proto.Equal(first, second) {
				return fails("step %q: asked twice about %s, it says\n%v\n%v", t.GetName(), config, first, second)
			}
			for _, d := range first.GetDiagnostics() {
				if d.GetMessage() == "" || d.GetPointer() != "" && d.GetPointer()[0] != '/' {
					return fails("step %q: about %s it says %q at %q: a message must not be empty, and a place is a JSON Pointer", t.GetName(), config, d.GetMessage(), d.GetPointer())
				}
			}
		}
	}
	if n == 0 {
		return skips("no step says that it validates, or no config of one is known")
	}
	return saw("%d %s", n, plural(n, "config"))
}

func checkKeyParts(ctx context.Context, s *session) verdict {
	if !s.anyStep((*pluginv1.StepType).GetKeyed) {
		return skips("no step adds to its key")
	}
	n := 0
	v := s.with(ctx, false, func(other *process) verdict {
		for _, t := range s.described.GetSteps() {
			if !t.GetKeyed() {
				continue
			}
			for _, f := range s.samples(t) {
				n++
				if v := s.sameParts(ctx, t, f, other); v.status == Failed {
					return v
				}
			}
		}
		return saw("%d %s", n, plural(n, "config"))
	})
	if v.status == OK && n == 0 {
		return skips("no config of a step that adds to its key is known")
	}
	return v
}

func (s *session) sameParts(ctx context.Context, t *pluginv1.StepType, f runFixture, other *process) verdict {
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	config, err := s.config(f.With)
	if err != nil {
		return fails("step %q: %v", t.GetName(), err)
	}
	var answers []map[string]string
	for _, p := range []*process{s.p, s.p, other} {
		answer, err := p.client.KeyParts(ctx, &pluginv1.KeyPartsRequest{Step: t.GetName(), Config: config})
		if err != nil {
			return fails("step %q: ask what %s adds to the key: %v", t.GetName(), config, err)
		}
		answers = append(answers, answer.GetParts())
	}
	for i, who := range []string{"asked twice", "asked in two processes"} {
		if !maps.Equal(answers[0], answers[i+1]) {
			return fails("step %q: %s, it adds for %s\n%q\n%q", t.GetName(), who, config, answers[0], answers[i+1])
		}
	}
	return holds()
}

func (s *session) anyStep(is func(*pluginv1.StepType) bool) bool {
	for _, t := range s.described.GetSteps() {
		if is(t) {
			return true
		}
	}
	return false
}

func checkUnknownStep(ctx context.Context, s *session) verdict {
	t := &pluginv1.StepType{Name: s.described.GetName() + "/no-such-step", Sections: []string{"customize"}}
	return s.mustRefuse(ctx, t, json.RawMessage("{}"))
}

func checkBrokenConfig(ctx context.Context, s *session) verdict {
	for _, t := range s.described.GetSteps() {
		for _, config := range []string{`{`, `[]`, ``} {
			if v := s.mustRefuse(ctx, t, json.RawMessage(config)); v.status != OK {
				return v
			}
		}
		// What a schema refuses never gets here but by a mistake of gild's.
		if v := s.survives(ctx, t, json.RawMessage(`{"no-such-field-of-any-step": [1, {"a": null}]}`)); v.status != OK {
			return v
		}
	}
	return holds()
}

// mustRefuse runs a step with what can't be right.
func (s *session) mustRefuse(ctx context.Context, t *pluginv1.StepType, config json.RawMessage) verdict {
	if v := s.survives(ctx, t, config); v.status != OK {
		return v
	}
	r, v := s.attempt(ctx, t, config)
	if v.status != OK {
		return v
	}
	switch how, message := r.outcome(); {
	case how == "":
		return holds() // no result at all: another check says so
	case how == succeeded:
		return fails("step %q with the config %q: the run ends without an error", t.GetName(), config)
	case strings.TrimSpace(message) == "":
		return fails("step %q with the config %q: the error has no message", t.GetName(), config)
	}
	return holds()
}

// survives asks about a config; any answer is good that isn't the end of the process.
func (s *session) survives(ctx context.Context, t *pluginv1.StepType, config json.RawMessage) verdict {
	if _, v := s.attempt(ctx, t, config); v.status != OK {
		return v
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	// Only whether it is still there afterwards counts.
	_, _ = s.p.client.Validate(ctx, &pluginv1.ValidateRequest{Step: t.GetName(), Config: config})
	_, _ = s.p.client.KeyParts(ctx, &pluginv1.KeyPartsRequest{Step: t.GetName(), Config: config})
	if _, err := s.describe(ctx, s.p); err != nil {
		return fails("%v", s.p.explain(fmt.Errorf("step %q with the config %q: it doesn't answer afterwards: %w", t.GetName(), config, err)))
	}
	return holds()
}

// attempt runs a step on a machine that takes everything.
func (s *session) attempt(ctx context.Context, t *pluginv1.StepType, config json.RawMessage) (*ran, verdict) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Within)
	defer cancel()
	j, _, err := s.job(t, runFixture{anything: true})
	if err != nil {
		return nil, fails("%v", err)
	}
	j.config = config
	r := s.do(ctx, s.p, j)
	if ctx.Err() != nil {
		return r, fails("step %q with the config %q: the run doesn't end within %v", t.GetName(), config, s.options.Within)
	}
	if _, err := s.describe(ctx, s.p); err != nil {
		return r, fails("%v", s.p.explain(fmt.Errorf("step %q with the config %q: the process is gone", t.GetName(), config)))
	}
	return r, holds()
}
