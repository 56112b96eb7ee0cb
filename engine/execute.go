package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/run"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// newRunID returns an id that sorts by time.
func newRunID(now time.Time) string {
	return now.UTC().Format("20060102-150405-") + strings.ToLower(rand.Text()[:6])
}

// execution is one run of a prepared plan.
type execution struct {
	*prepared
	mask   *run.Mask
	guests *guests
	logs   string

	failedMu sync.Mutex
	failed   map[string]map[string]bool // by image and key: steps that failed, and may

	retiredMu sync.Mutex
	retired   []step.Retired
}

// execute runs the plan and reports.
func (b *prepared) execute(ctx context.Context, adopt bool) (*Report, error) {
	x := &execution{prepared: b, mask: run.NewMask(b.secrets.all()...), logs: filepath.Join(b.Engine.runs(), b.run), failed: map[string]map[string]bool{}}
	x.guests = &guests{x: x, open: map[string]*sharedGuest{}}
	if err := b.keepLocks(); err != nil {
		return nil, err
	}
	written, err := b.saveLocks()
	if err != nil {
		return nil, err
	}
	if err := x.begin(ctx, adopt); err != nil {
		return nil, err
	}
	started := b.config.Now()
	result, err := run.Run(ctx, x.tasks(), run.Options{
		Run: b.run, Workers: b.src.Request.Jobs, KeepGoing: b.src.Request.KeepGoing,
		Journal: b.journal, LogDir: x.logs, LockDir: b.Engine.locks(), Mask: x.mask, Now: b.config.Now,
		Sink: b.sink, Cleanup: b.cleanup, Release: x.release, UndoTimeout: undoTimeout,
	})
	if err != nil {
		return nil, err
	}
	// The run has ended whatever became of the caller; that must be written down.
	ctx = context.WithoutCancel(ctx)
	if err := b.journal.EndRun(ctx, b.run, result.State, result.ExitCode, b.config.Now()); err != nil {
		return nil, err
	}
	if err := b.journal.Flush(ctx); err != nil {
		return nil, err
	}
	return x.report(ctx, result, written, b.config.Now().Sub(started))
}

// undoTimeout is how long the removal of what one step left may take: for a plugin that can
// be a resource far away.
const undoTimeout = 10 * time.Minute

// begin records the run, with all that resuming it takes.
func (x *execution) begin(ctx context.Context, adopt bool) error {
	request, err := json.Marshal(x.src)
	if err != nil {
		return fmt.Errorf("record the run: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if adopt {
		return x.journal.Adopt(ctx, x.run, os.Getpid(), host)
	}
	return x.journal.StartRun(ctx, journal.Run{
		ID: x.run, State: event.Running, Started: x.config.Now(), PID: os.Getpid(), Host: host, Request: request,
	})
}

// tasks turns the nodes of the plan into tasks.
func (x *execution) tasks() []run.Task {
	var tasks []run.Task
	for _, n := range x.plan.Nodes {
		tasks = append(tasks, x.task(n))
	}
	return tasks
}

func (x *execution) task(n *plan.Node) run.Task {
	t := run.Task{ID: n.ID, Title: n.Title, Needs: n.Needs, Key: n.Key, Place: place(n), Attempts: 1}
	if n.Step != nil {
		t.Timeout, t.Backoff, t.ContinueOnError = n.Step.Timeout, n.Step.Retry.Backoff, n.Step.ContinueOnError
		t.Attempts = max(1, n.Step.Retry.Attempts)
	}
	switch n.Action {
	case plan.Skip, plan.Unneeded:
		t.Skip = strings.Join(n.Why, "; ")
		return t
	case plan.Run, plan.Cached:
	}
	if !n.Forced {
		t.Cached = func(ctx context.Context) (step.Outputs, bool, error) {
			out, ok, err := x.find(ctx, x.effective(n))
			if ok && err == nil {
				err = x.remember(n)
			}
			return out, ok, err
		}
	}
	t.Test = n.Kind == plan.KindTest
	t.Partial = n.Kind == plan.KindCopy || n.Kind == plan.KindDeliver
	switch n.Kind {
	case plan.KindTest:
		t.Holds = []string{guestName(n)}
	case plan.KindStep, plan.KindSeal, plan.KindDisk:
		if n.Image.Whole {
			t.Holds = []string{x.benchName(n)}
		}
	case plan.KindFiles:
		// The disk and its files share a folder, and so do two pipelines with one disk.
		t.Exclusive = n.Image.DiskKey
	case plan.KindPublish, plan.KindRetain:
		t.Exclusive = "catalog " + n.Image.Name
	}
	t.Do = func(ctx context.Context, a *run.Attempt) (step.Outputs, error) {
		out, err := x.work(ctx, a, x.effective(n))
		if t.ContinueOnError && n.Kind == plan.KindStep {
			x.setFailed(n, err != nil && !isSkipped(err))
		}
		if err != nil {
			return out, err
		}
		return out, x.remember(n)
	}
	return t
}

func isSkipped(err error) bool {
	var s *step.Skipped
	return errors.As(err, &s)
}

func place(n *plan.Node) string {
	if n.Pos.Line == 0 {
		return n.Pos.File
	}
	return fmt.Sprintf("%s:%d", n.Pos.File, n.Pos.Line)
}

// remember keeps the parts of a node's key, for the next plan to compare with.
func (x *execution) remember(n *plan.Node) error {
	return x.journal.SaveKeyParts(x.abs[n.Image.Pipeline.File], n.ID, n.Key, n.Parts)
}

// work does what a node is for.
func (x *execution) work(ctx context.Context, a *run.Attempt, n *plan.Node) (step.Outputs, error) {
	maker := x.builderOf(n.Image.Pipeline)
	p := n.Image.Pipeline
	switch n.Kind {
	case plan.KindBase:
		base := n.Image.Base
		base.Layers = n.Layers // without those that failed, in an image built in this run
		return nil, maker.MakeBase(ctx, a, builder.BaseRequest{Pipeline: p, Base: base, Key: n.Key, Log: a.Log})
	case plan.KindStep, plan.KindSeal:
		return x.machineStep(ctx, a, maker, n)
	case plan.KindDisk:
		_, err := maker.MakeImage(ctx, a, builder.ImageRequest{
			Pipeline: p, Base: n.Image.Base, Layers: n.Layers, Bench: x.benchName(n), Key: n.Key, Name: n.Image.Name, Clock: n.Image.Clock,
			Log: a.Log, Progress: a.Progress,
		})
		return nil, err
	case plan.KindFiles:
		_, err := maker.Finish(ctx, a, builder.FinishRequest{
			Pipeline: p, Key: n.Image.DiskKey, Progress: func(done, total int64) { a.Progress(done, total, "bytes") },
		})
		return nil, err
	default:
		return x.imageStep(ctx, a, n)
	}
}

// runStep runs a step. Its outputs are kept and shown, so no secret may stay in them.
func (x *execution) runStep(ctx context.Context, n *plan.Node, t *step.Target, config json.RawMessage) (step.Outputs, error) {
	if err := validateNow(ctx, n, config); err != nil {
		return nil, err
	}
	out, err := n.Def.Run(ctx, t, config)
	for name, v := range out {
		out[name] = x.masked(v)
	}
	return out, err
}

// validateNow asks a step about a config that had to wait for outputs: planning couldn't.
func validateNow(ctx context.Context, n *plan.Node, config json.RawMessage) error {
	if n.Def.Validate == nil || !n.Step.Waits() {
		return nil
	}
	problems, err := n.Def.Validate(ctx, config)
	if err != nil {
		return fmt.Errorf("check the configuration: %w", err)
	}
	var errs []error
	for _, p := range problems {
		if !p.Warning {
			errs = append(errs, fmt.Errorf("with%s: %s", p.Pointer, p.Message))
		}
	}
	if len(errs) > 0 {
		return &step.Permanent{Err: errors.Join(errs...)}
	}
	return nil
}

// masked hides secrets in the strings of a JSON value.
func (x *execution) masked(v any) any {
	switch v := v.(type) {
	case string:
		return x.mask.String(v)
	case []any:
		for i := range v {
			v[i] = x.masked(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = x.masked(v[name])
		}
	}
	return v
}

// machineStep runs a step on a machine and stores the machine's state.
func (x *execution) machineStep(ctx context.Context, a *run.Attempt, maker builder.Builder, n *plan.Node) (out step.Outputs, err error) {
	runs, err := x.wanted(n, a)
	if err != nil {
		return nil, err
	}
	m, err := maker.Open(ctx, x.machineLedger(a, n), builder.OpenRequest{
		Pipeline: n.Image.Pipeline, Base: n.Image.Base, Layers: n.Layers, Key: n.Key, Bench: x.benchName(n),
		Checkpoint: n.Checkpoint, Clock: n.Image.Clock, Log: a.Log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var skipped *step.Skipped
	if runs {
		t, config, err := x.target(ctx, a, n)
		if err != nil {
			return nil, err
		}
		t.Machine = m
		if out, err = x.runStep(ctx, n, t, config); err != nil && !errors.As(err, &skipped) {
			return nil, err
		}
	} else {
		skipped = &step.Skipped{Reason: "its condition is false"}
	}
	// A skipped step has a state too, an empty one: what follows stands on it.
	if err := m.Commit(ctx); err != nil {
		return nil, err
	}
	if len(n.Def.Outputs) > 0 {
		if err := x.journal.SaveResult(ctx, n.Key, out); err != nil {
			return nil, err
		}
	}
	if skipped != nil {
		return out, skipped
	}
	return out, nil
}

// imageStep runs a test, publish, copy or retain step.
func (x *execution) imageStep(ctx context.Context, a *run.Attempt, n *plan.Node) (step.Outputs, error) {
	runs, err := x.wanted(n, a)
	if err != nil {
		return nil, err
	}
	if !runs {
		return nil, &step.Skipped{Reason: "its condition is false"}
	}
	t, config, err := x.target(ctx, a, n)
	if err != nil {
		return nil, err
	}
	info, ok, err := x.builderOf(n.Image.Pipeline).FindImage(ctx, n.Image.Pipeline, n.Image.DiskKey)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("the image of %s is not in the store any more; build again", n.Image.Name)
	}
	info = formatsOf(info, n.Image.Pipeline.Formats())
	t.Image = &info
	switch n.Kind {
	case plan.KindTest:
		guest, done, err := x.guests.get(ctx, a, n, info)
		if err != nil {
			return nil, err
		}
		defer done()
		t.Machine = guest
	case plan.KindDeliver: // has the files, and nothing to say about the catalog
	default:
		t.Registry = &registry{execution: x, attempt: a, image: n.Image, info: info}
	}
	out, err := x.runStep(ctx, n, t, config)
	if err != nil {
		return out, err
	}
	if n.Kind == plan.KindTest || n.Kind == plan.KindDeliver {
		err = x.journal.SaveResult(ctx, n.Key, out)
	}
	return out, err
}

// wanted evaluates a step's condition.
func (x *execution) wanted(n *plan.Node, a *run.Attempt) (bool, error) {
	if n.Step.When == nil {
		return true, nil
	}
	v, err := x.eval(n, a, *n.Step.When, nil)
	if err != nil {
		return false, err
	}
	yes, ok := v.(bool)
	if !ok {
		return false, fmt.Errorf("when: the condition gave %v, not true or false", v)
	}
	return yes, nil
}

// eval evaluates a value with the outputs of the steps before.
func (x *execution) eval(n *plan.Node, a *run.Attempt, v spec.Value, secrets map[string]string) (any, error) {
	outputs := map[string]map[string]any{}
	for _, id := range v.Steps() {
		outputs[id] = a.Outputs(n.Image.Name + "/" + id)
	}
	return v.Eval(outputs, secrets)
}

// target makes what a step is given, its configuration evaluated.
func (x *execution) target(ctx context.Context, a *run.Attempt, n *plan.Node) (*step.Target, json.RawMessage, error) {
	p := n.Image.Pipeline
	with, err := x.eval(n, a, n.Step.With, nil)
	if err != nil {
		return nil, nil, err
	}
	config, err := json.Marshal(with)
	if err != nil {
		return nil, nil, err
	}
	env, secret, err := x.environment(ctx, a, n)
	if err != nil {
		return nil, nil, err
	}
	t := &step.Target{
		Inputs: map[string]step.Input{}, Env: env, SecretEnv: secret, Log: a.Log, Progress: a.Progress, Clock: n.Image.Clock,
		Pipeline: step.PipelineInfo{Name: p.Name, Release: p.Release, Arch: p.Arch},
		Claim:    x.claimer(a, n.Def), Attempt: a.Number, Token: token(x.run, n.ID),
	}
	for name, in := range n.Inputs {
		t.Inputs[name] = in
	}
	return t, config, nil
}

// claimer records resources that a step makes outside.
func (x *execution) claimer(a *run.Attempt, def step.Step) func(context.Context, step.Resource) (func(context.Context) error, error) {
	return func(ctx context.Context, r step.Resource) (func(context.Context) error, error) {
		if def.Cleanup == nil {
			return nil, &step.Permanent{Err: fmt.Errorf("claim %s %s: the step %s doesn't clean up what it claims", r.Kind, r.ID, def.Name)}
		}
		if r.Note = x.mask.String(r.Note); x.mask.String(r.Kind+" "+r.ID) != r.Kind+" "+r.ID {
			return nil, &step.Permanent{Err: fmt.Errorf("claim a resource of %s: its kind or id holds a secret, and both are written down; name it in another way", def.Name)}
		}
		r.Kind = claimKind(def, r.Kind)
		claim, err := a.Intent(ctx, r)
		if err != nil {
			return nil, err
		}
		return claim.Settle, nil
	}
}

// token names a piece of work towards services outside.
func token(run, node string) string {
	sum := sha256.Sum256([]byte(run + "\x00" + node))
	return hex.EncodeToString(sum[:16])
}

func (x *execution) environment(ctx context.Context, a *run.Attempt, n *plan.Node) (env map[string]string, secret []string, err error) {
	env = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(n.Step.Env)) {
		v := n.Step.Env[name]
		if len(v.Secrets()) > 0 {
			secret = append(secret, name)
		}
		secrets := map[string]string{}
		for _, s := range v.Secrets() {
			value, err := x.secrets.value(ctx, n.Image.Pipeline, s, filepath.Dir(x.abs[n.Image.Pipeline.File]))
			if err != nil {
				return nil, nil, fmt.Errorf("secret %q: %w", s, err)
			}
			secrets[s] = value
		}
		value, err := x.eval(n, a, v, secrets)
		if err != nil {
			return nil, nil, fmt.Errorf("env %s: %w", name, err)
		}
		env[name] = fmt.Sprint(value)
	}
	return env, secret, nil
}
