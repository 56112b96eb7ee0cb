package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v5"
	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/steps/steptest"
)

// Clock is the build's clock unless a [Target] has another.
var Clock = steptest.Clock

// Target is what a step is run on. The zero value is a step of section publish without an image.
type Target struct {
	// Machine to change, or the guest of a test; nil for none.
	Machine sdk.MachineHandle
	// Image under work; nil for none.
	Image *sdk.ImageInfo
	// Inputs are files and folders of this host, by the text that names them in the config.
	Inputs map[string]string
	Env    map[string]string
	// Clock of the build; zero means [Clock].
	Clock time.Time
	// Pipeline; zero means web 1.4.0 for amd64.
	Pipeline sdk.PipelineInfo
	// Attempt counts from 1; 0 means 1.
	Attempt int
	// Log takes the step's log as it comes, besides [Result]; nil for nothing. A test that
	// cancels a step when it has come so far has it here.
	Log io.Writer
}

// Result is what became of a step.
type Result struct {
	Outputs sdk.Outputs
	Err     error
	// Log is all that the step logged.
	Log string
	// Progress is the last report, zero when there was none.
	Progress Progress
	// Claims are the resources that the step claimed, in order.
	Claims []Claim
}

// Progress is a report of a step.
type Progress struct {
	Done, Total int64
	Unit        string
}

// Claim is a resource that a step claimed.
type Claim struct {
	sdk.Resource
	// Settled says that the step has settled it; else gild would give it to Cleanup.
	Settled bool
}

// Run runs a step with a config, which is YAML as it stands under `with` in a pipeline, or
// JSON. It fails the test when the step's schema doesn't take the config, since gild
// wouldn't run the step at all; [Problems] tells more.
func (t Target) Run(tb testing.TB, s sdk.Step, config string) Result {
	tb.Helper()
	return t.RunContext(tb.Context(), tb, s, config)
}

// RunContext is Run with a context, to cancel a step.
func (t Target) RunContext(ctx context.Context, tb testing.TB, s sdk.Step, config string) Result {
	tb.Helper()
	raw := toJSON(tb, config)
	if err := checkSchema(s, raw); err != nil {
		tb.Fatalf("gild wouldn't run step %s: %v", s.Name, err)
	}
	r := &recorder{tee: t.Log}
	out, err := s.Run(ctx, t.target(r), raw)
	return r.result(out, err)
}

func (t Target) target(r *recorder) *sdk.Target {
	target := &sdk.Target{
		Machine: t.Machine, Image: t.Image, Inputs: map[string]sdk.Input{}, Env: t.Env,
		Log: r, Progress: r.progress, Clock: t.Clock, Pipeline: t.Pipeline,
		Claim: r.claim, Attempt: max(t.Attempt, 1), Token: "test",
	}
	for name, path := range t.Inputs {
		target.Inputs[name] = steptest.Folder(path)
	}
	if target.Env == nil {
		target.Env = map[string]string{}
	}
	if target.Clock.IsZero() {
		target.Clock = Clock
	}
	if target.Pipeline == (sdk.PipelineInfo{}) {
		target.Pipeline = sdk.PipelineInfo{Name: "web", Release: "1.4.0", Arch: "amd64"}
	}
	return target
}

// Problems returns what gild would report of a config: what the step's schema or, when
// that takes it, what its Validate says.
func Problems(tb testing.TB, s sdk.Step, config string) []sdk.Problem {
	tb.Helper()
	raw := toJSON(tb, config)
	if err := checkSchema(s, raw); err != nil {
		return schemaProblems(tb, err)
	}
	if s.Validate == nil {
		return nil
	}
	problems, err := s.Validate(tb.Context(), raw)
	if err != nil {
		tb.Fatalf("validate step %s: %v", s.Name, err)
	}
	return problems
}

func schemaProblems(tb testing.TB, err error) (problems []sdk.Problem) {
	tb.Helper()
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		tb.Fatal(err)
	}
	for _, e := range invalid.BasicOutput().Errors {
		if e.Error != "" && e.KeywordLocation != "" {
			problems = append(problems, sdk.Problem{Pointer: e.InstanceLocation, Message: e.Error})
		}
	}
	return problems
}

func checkSchema(s sdk.Step, config []byte) error {
	schema, err := spec.CompileSchema("gild:///steps/"+s.Name, s.Schema)
	if err != nil {
		return fmt.Errorf("its schema: %w", err)
	}
	var value any
	if err := json.Unmarshal(config, &value); err != nil {
		return err
	}
	return schema.Validate(value)
}

func toJSON(tb testing.TB, config string) []byte {
	tb.Helper()
	value := map[string]any{}
	if err := yaml.Unmarshal([]byte(config), &value); err != nil {
		tb.Fatalf("the config of the test: %v", err)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		tb.Fatalf("the config of the test: %v", err)
	}
	return raw
}

// recorder takes what a step reports. It is safe for concurrent use.
type recorder struct {
	tee io.Writer

	mu     sync.Mutex
	log    bytes.Buffer
	last   Progress
	claims []Claim
}

// Write implements io.Writer.
func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tee != nil {
		if n, err := r.tee.Write(p); err != nil {
			return n, err
		}
	}
	return r.log.Write(p)
}

func (r *recorder) progress(done, total int64, unit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = Progress{done, total, unit}
}

func (r *recorder) claim(_ context.Context, res sdk.Resource) (func(context.Context) error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := len(r.claims)
	r.claims = append(r.claims, Claim{Resource: res})
	return func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.claims[i].Settled = true
		return nil
	}, nil
}

func (r *recorder) result(out sdk.Outputs, err error) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Result{Outputs: out, Err: err, Log: r.log.String(), Progress: r.last, Claims: r.claims}
}
