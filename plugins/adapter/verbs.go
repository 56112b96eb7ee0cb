package adapter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
)

// request is what a program reads on its standard input.
type request struct {
	Gild     int             `json:"gild"`
	Step     string          `json:"step,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
	Inputs   []string        `json:"inputs,omitempty"`
	Clock    *time.Time      `json:"clock,omitempty"`
	Pipeline *pipeline       `json:"pipeline,omitempty"`
	Image    *image          `json:"image,omitempty"`
	Machine  *machine        `json:"machine,omitempty"`
	Attempt  int             `json:"attempt,omitempty"`
	Token    string          `json:"token,omitempty"`
	Resource *resource       `json:"resource,omitempty"`
}

type pipeline struct {
	Name    string `json:"name"`
	Release string `json:"release"`
	Arch    string `json:"arch"`
}

type image struct {
	Key    string      `json:"key"`
	ID     string      `json:"id,omitempty"`
	Region string      `json:"region,omitempty"`
	Size   int64       `json:"size"`
	Files  []imageFile `json:"files"`
}

type imageFile struct {
	Format    string `json:"format"`
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	Allocated int64  `json:"allocated"`
	SHA256    string `json:"sha256"`
}

type machine struct {
	Guest     bool       `json:"guest"`
	PoweredOn *time.Time `json:"powered_on,omitempty"`
}

type resource struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Note string `json:"note"`
}

func newRequest(m manifest.Step, config json.RawMessage) request {
	return request{Gild: Version, Step: m.Name, Config: config}
}

func runRequest(m manifest.Step, t *step.Target, config json.RawMessage) request {
	clock := t.Clock.UTC()
	r := newRequest(m, config)
	r.Inputs = slices.Sorted(maps.Keys(t.Inputs))
	r.Clock = &clock
	r.Pipeline = &pipeline{t.Pipeline.Name, t.Pipeline.Release, t.Pipeline.Arch}
	r.Attempt, r.Token = t.Attempt, t.Token
	if t.Image != nil {
		r.Image = &image{Key: t.Image.Key, ID: t.Image.ID, Region: t.Image.Region, Size: t.Image.Size, Files: []imageFile{}}
		for _, f := range t.Image.Files {
			r.Image.Files = append(r.Image.Files, imageFile{f.Format, f.Path, f.Size, f.Allocated, f.SHA256})
		}
	}
	if t.Machine != nil {
		r.Machine = &machine{}
	}
	if guest, ok := t.Machine.(step.Guest); ok {
		on := guest.PoweredOn().UTC()
		r.Machine = &machine{Guest: true, PoweredOn: &on}
	}
	return r
}

func (a *Adapter) runStep(m manifest.Step) func(context.Context, *step.Target, json.RawMessage) (step.Outputs, error) {
	return func(ctx context.Context, t *step.Target, config json.RawMessage) (step.Outputs, error) {
		if err := a.checkConfig(m, config); err != nil {
			return nil, err
		}
		token, end := a.config.Targets.Open(t)
		defer end()
		log := &log{out: t.Log}
		log.secrets.Add(t.Secrets())
		e := &events{verb: "run", log: log, progress: t.Progress, declared: m.Outputs}
		err := a.call(ctx, &call{
			argv: m.Command, request: runRequest(m, t, config), events: e, log: log,
			env: slices.Concat(variables(t.Env), []string{"GILD_TARGET=" + a.config.Targets.Address(), "GILD_TARGET_TOKEN=" + token}),
		})
		if err != nil {
			return nil, err
		}
		return e.outputs, nil
	}
}

func variables(env map[string]string) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

func (a *Adapter) validateStep(m manifest.Step) func(context.Context, json.RawMessage) ([]step.Problem, error) {
	return func(ctx context.Context, config json.RawMessage) ([]step.Problem, error) {
		if err := a.checkConfig(m, config); err != nil {
			return nil, err
		}
		e, err := a.ask(ctx, "validate", m.Command, newRequest(m, config))
		return e.problems, err
	}
}

func (a *Adapter) keyStep(m manifest.Step) func(context.Context, json.RawMessage) (map[string]string, error) {
	return func(ctx context.Context, config json.RawMessage) (map[string]string, error) {
		if err := a.checkConfig(m, config); err != nil {
			return nil, err
		}
		e, err := a.ask(ctx, "key", m.Command, newRequest(m, config))
		return e.key, err
	}
}

// cleanup asks every program that may have made the resource.
func (a *Adapter) cleanup(ctx context.Context, r step.Resource) error {
	commands := [][]string{a.manifest.Command}
	if len(a.manifest.Command) == 0 {
		commands = nil
		for _, s := range a.manifest.Exec.Steps {
			if !slices.ContainsFunc(commands, func(argv []string) bool { return slices.Equal(argv, s.Command) }) {
				commands = append(commands, s.Command)
			}
		}
	}
	var errs []error
	for _, argv := range commands {
		_, err := a.ask(ctx, "cleanup", argv, request{Gild: Version, Resource: &resource{r.Kind, r.ID, r.Note}})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ask makes a call that has no target. What was said before an error is not returned.
func (a *Adapter) ask(ctx context.Context, verb string, argv []string, req request) (*events, error) {
	log := &log{out: a.config.Log}
	e := &events{verb: verb, log: log}
	if err := a.call(ctx, &call{argv: argv, request: req, events: e, log: log}); err != nil {
		return &events{}, fmt.Errorf("%s: %w", verb, err)
	}
	return e, nil
}
