// Package engine puts the parts together: it reads pipeline files, plans them, runs
// the plan and records what came out.
//
//	pipelines/x.yaml → engine/spec → engine/plan → engine/run → engine/catalog
//
// It is handed the steps and builders it may use; it imports none of the steps. It
// prints nothing: mistakes are diagnostics, progress is events, results are values.
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sys/unix"
)

// Config is what an engine is made of.
type Config struct {
	// State is the state folder; it is made when missing.
	State string
	// Steps are the kinds of steps pipelines may use.
	Steps []step.Step
	// Plugins finds further steps; nil means that there are none.
	Plugins Plugins
	// Builders are the builders pipelines may choose, by their Kind.
	Builders []builder.Builder
	// Version of gild, recorded with runs.
	Version string
	// Now is the clock for people (build times, ages); nil means time.Now.
	Now func() time.Time
}

// Engine plans and builds. Safe for concurrent use; many engines, in many processes,
// may share one state folder.
type Engine struct {
	config   Config
	language *Language
	builders map[string]builder.Builder
	journal  *journal.Journal
	catalog  *catalog.Catalog
}

// Request says what to validate, plan or build.
type Request struct {
	// Files are pipeline files, and folders of them.
	Files []string
	// Params are --param values by name, as text; ParamsFile a YAML file of values.
	Params     map[string]string
	ParamsFile string
	// Builder overrides the files' own choice when not empty.
	Builder string
	// Selection narrows the graph.
	Selection plan.Selection
	// Locked refuses to build from anything that gild.lock doesn't name.
	Locked bool
	// KeepGoing goes on with what doesn't depend on a failure.
	KeepGoing bool
	// Jobs is how many nodes run at once; 0 means the number of CPUs.
	Jobs int
}

// StateFolder returns the state folder: flag, else $GILD_STATE, else gild under
// $XDG_STATE_HOME, else ~/.local/state/gild.
func StateFolder(flag string) (string, error) {
	for _, dir := range []string{flag, os.Getenv("GILD_STATE")} {
		if dir != "" {
			return filepath.Abs(dir)
		}
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "gild"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a state folder: %w; name one with --state", err)
	}
	return filepath.Join(home, ".local", "state", "gild"), nil
}

// Open opens the state folder.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	e := &Engine{config: c, builders: map[string]builder.Builder{}}
	for _, b := range c.Builders {
		e.builders[b.Kind()] = b
	}
	var err error
	if e.language, err = NewLanguage(c.Steps, c.Plugins, e.unsupported); err != nil {
		return nil, err
	}
	if err := checkSteps(e.language.builtin); err != nil {
		return nil, err
	}
	for _, dir := range []string{c.State, e.locks(), e.runs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the state folder: %w; name another with --state", err)
		}
	}
	db := filepath.Join(c.State, "gild.db")
	if e.journal, err = journal.Open(ctx, db); err != nil {
		return nil, err
	}
	if e.catalog, err = catalog.Open(ctx, db); err != nil {
		return nil, errors.Join(err, e.journal.Close())
	}
	return e, nil
}

func (e *Engine) locks() string { return filepath.Join(e.config.State, "locks") }
func (e *Engine) runs() string  { return filepath.Join(e.config.State, "runs") }

// Close closes the state folder.
func (e *Engine) Close() error { return errors.Join(e.catalog.Close(), e.journal.Close()) }

// Catalog is what builds yielded.
func (e *Engine) Catalog() *catalog.Catalog { return e.catalog }

// Plan reads, resolves and plans. The plan is nil when there are diagnostics with errors.
func (e *Engine) Plan(ctx context.Context, req Request) (*plan.Plan, diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil || diags.HasErrors() {
		return nil, diags, err
	}
	b, diags, err := e.prepare(ctx, newRunID(e.config.Now()), src, nil)
	if b == nil {
		return nil, diags, err
	}
	return b.plan, diags, errors.Join(err, b.close())
}

// Build plans and runs. A *diag.Failed error means that nothing was run because the
// input is wrong; the diagnostics hold warnings otherwise.
func (e *Engine) Build(ctx context.Context, req Request, sink event.Sink) (*Report, diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil {
		return nil, diags, err
	}
	if diags.HasErrors() {
		return nil, diags, diags.Err()
	}
	id := newRunID(e.config.Now())
	release, err := e.claimRun(id)
	if err != nil {
		return nil, diags, err
	}
	report, diags, err := e.build(ctx, id, src, sink, fresh)
	return report, diags, errors.Join(err, release())
}

// origin is where a run comes from.
type origin int

const (
	fresh   origin = iota
	known          // the journal has it: another process on this state folder began it
	foreign        // it was begun elsewhere, and what it made is found by its tags
)

// build prepares and executes one run.
func (e *Engine) build(ctx context.Context, run string, src sources, sink event.Sink, from origin) (*Report, diag.List, error) {
	b, diags, err := e.prepare(ctx, run, src, sink)
	if err != nil {
		return nil, diags, err
	}
	if b == nil {
		return nil, diags, diags.Err()
	}
	if from == foreign {
		err = b.takeOver(ctx)
	}
	var report *Report
	if err == nil {
		report, err = b.execute(ctx, from == known)
	}
	return report, diags, errors.Join(err, b.close())
}

// ErrRunning is wrapped by the errors of calls that want a run to themselves while a
// process works on it.
var ErrRunning = errors.New("the run is still going on")

// claimRun takes a run for this process. The kernel gives it back when the process ends
// in whatever way, so that a run can be told dead from alive without asking for its
// process, which another container may have.
func (e *Engine) claimRun(id string) (release func() error, err error) {
	dir := filepath.Join(e.runs(), id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("claim run %s: %w", id, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRunning
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("claim run %s: %w", id, err), f.Close())
	}
	return f.Close, nil
}

// alive reports whether a process works on the run.
func (e *Engine) alive(id string) (bool, error) {
	release, err := e.claimRun(id)
	if errors.Is(err, ErrRunning) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, release()
}
