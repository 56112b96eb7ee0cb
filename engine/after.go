package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/run"
)

// RunInfo is a run as the journal knows it.
type RunInfo struct {
	journal.Run
	// Interrupted says that its process is gone and it hasn't ended: it can be resumed.
	Interrupted bool
	// Files are the pipeline files it was asked for.
	Files []string
}

func (e *Engine) info(r journal.Run) (RunInfo, error) {
	var src sources
	if err := json.Unmarshal(r.Request, &src); err != nil {
		return RunInfo{}, fmt.Errorf("run %s: read its request: %w", r.ID, err)
	}
	out := RunInfo{Run: r, Files: src.Request.Files}
	if r.State != event.Running {
		return out, nil
	}
	running, err := e.alive(r.ID)
	out.Interrupted = !running
	return out, err
}

// Runs lists the latest n runs, newest first; 0 means all.
func (e *Engine) Runs(ctx context.Context, n int) ([]RunInfo, error) {
	runs, err := e.journal.Runs(ctx, n)
	if err != nil {
		return nil, err
	}
	var out []RunInfo
	for _, r := range runs {
		i, err := e.info(r)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

// Run returns one run, by id or unique prefix of it, with its nodes.
func (e *Engine) Run(ctx context.Context, id string) (RunInfo, []journal.Node, error) {
	r, err := e.journal.Run(ctx, id)
	if err != nil {
		return RunInfo{}, nil, err
	}
	i, err := e.info(r)
	if err != nil {
		return RunInfo{}, nil, err
	}
	nodes, err := e.journal.Nodes(ctx, r.ID)
	return i, nodes, err
}

// LogPath returns the log file of a run's node, which is named whole or without the
// pipeline's name.
func (e *Engine) LogPath(ctx context.Context, id, node string) (string, error) {
	r, nodes, err := e.Run(ctx, id)
	if err != nil {
		return "", err
	}
	var known []string
	for _, n := range nodes {
		if n.ID == node || strings.HasSuffix(n.ID, "/"+node) {
			return filepath.Join(e.runs(), r.ID, run.LogName(n.ID)), nil
		}
		known = append(known, n.ID)
	}
	return "", fmt.Errorf("run %s has no node %q; it has %s", r.ID, node, strings.Join(known, ", "))
}

// Resume finishes a run that was killed, cancelled or failed, from the files as they
// were when it was started. What it left is cleaned up first.
func (e *Engine) Resume(ctx context.Context, id string, sink event.Sink) (*Report, diag.List, error) {
	r, err := e.journal.Run(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	release, err := e.claimRun(r.ID)
	if err != nil {
		return nil, nil, err
	}
	report, diags, err := e.resume(ctx, r.ID, sink)
	return report, diags, errors.Join(err, release())
}

// ErrFinished is wrapped by the error of resuming a run that has nothing left to do.
var ErrFinished = errors.New("the run is finished; there is nothing to resume")

// resume works on a run that this process has claimed. What the journal said before
// that may have been another process's doing.
func (e *Engine) resume(ctx context.Context, id string, sink event.Sink) (*Report, diag.List, error) {
	r, err := e.journal.Run(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if r.State == event.Done {
		return nil, nil, fmt.Errorf("resume run %s: %w", r.ID, ErrFinished)
	}
	var src sources
	if err := json.Unmarshal(r.Request, &src); err != nil {
		return nil, nil, fmt.Errorf("run %s: read its request: %w", r.ID, err)
	}
	if _, err := e.sweepPlugins(ctx, false); err != nil {
		return nil, nil, err
	}
	left, err := e.settle(ctx, r.ID, false)
	if err != nil {
		return nil, nil, err
	}
	for _, l := range left.Left {
		return nil, nil, fmt.Errorf("remove %s, which the run left: %w", ResourceName(l.Resource), l.Err)
	}
	return e.build(ctx, r.ID, src, sink, known)
}

// TakeOver finishes a run that was begun on another machine, from pipeline files that must
// be the ones it was begun with: what it made in a cloud is found by its tags. A run that
// this state folder knows is resumed as [Engine.Resume] does, and the files don't matter.
func (e *Engine) TakeOver(ctx context.Context, id string, req Request, sink event.Sink) (*Report, diag.List, error) {
	_, err := e.journal.Run(ctx, id)
	if err == nil {
		return e.Resume(ctx, id, sink)
	}
	if !errors.Is(err, journal.ErrNoRun) {
		return nil, nil, err
	}
	if !runID.MatchString(id) {
		return nil, nil, fmt.Errorf("take over run %q: the id must be whole, such as 20261204-120300-abcdef", id)
	}
	src, diags, err := readSources(req)
	if err != nil {
		return nil, diags, err
	}
	if diags.HasErrors() {
		return nil, diags, diags.Err()
	}
	release, err := e.claimRun(id)
	if err != nil {
		return nil, diags, err
	}
	report, diags, err := e.build(ctx, id, src, sink, foreign)
	return report, diags, errors.Join(err, release())
}

var runID = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z0-9]{6}$`)

// takeOver removes what the run began elsewhere and didn't finish. What it finished is kept.
func (b *prepared) takeOver(ctx context.Context) error {
	for _, img := range b.plan.Images {
		p := img.Pipeline
		if p.Builder != "aws" {
			return fmt.Errorf("take over run %s: %s is built by %s, whose results are on the machine that began the run; build it anew here", b.run, img.Name, p.Builder)
		}
		found, err := b.builderOf(p).Sweep(ctx, builder.SweepRequest{Regions: []string{p.AWS.Region}, Run: b.run, Resuming: true})
		if err != nil {
			return fmt.Errorf("take over run %s: %w", b.run, err)
		}
		for _, l := range found.Left {
			return fmt.Errorf("take over run %s: remove %s %s, which it left: %w", b.run, l.Kind, l.ID, l.Err)
		}
	}
	return nil
}

// GCReport is what a garbage collection found.
type GCReport struct {
	// Removed was left by dead runs, and is gone now (or would be, in a dry run).
	Removed []builder.Resource
	// Left could not be removed.
	Left []run.Leftover
	// Kept stays on purpose, for the reason that its Err tells.
	Kept []run.Leftover
	// Running are the runs in progress, whose resources were left alone.
	Running []string
}

// GCRequest says what to collect.
type GCRequest struct {
	// Dry only lists.
	Dry bool
	// Regions are those of a cloud to look at; without any, only what the journal knows and
	// what is on this machine is.
	Regions []string
	// Run limits the search in the regions to one run, which is taken for dead.
	Run string
}

// GC removes everything that dead runs left.
func (e *Engine) GC(ctx context.Context, req GCRequest) (*GCReport, error) {
	dry := req.Dry
	// First: what a plugin left running could make again what is cleaned up.
	orphans, err := e.sweepPlugins(ctx, dry)
	if err != nil {
		return nil, err
	}
	report, err := e.settle(ctx, "", dry)
	if err != nil {
		return report, err
	}
	report.add(orphans)
	for _, b := range e.builders {
		found, err := b.Sweep(ctx, builder.SweepRequest{Dry: dry, Regions: req.Regions, Run: req.Run, Busy: e.busy(ctx)})
		if err != nil {
			return report, err
		}
		report.add(found.Removed)
		for _, l := range found.Left {
			to := &report.Left
			if kept := builder.Kept(""); errors.As(l.Err, &kept) {
				to = &report.Kept
			}
			*to = append(*to, run.Leftover{Resource: l.Resource, Err: l.Err})
		}
	}
	return report, nil
}

// busy tells which runs of the state folder somebody works on.
func (e *Engine) busy(ctx context.Context) func(string) (busy, known bool, err error) {
	return func(id string) (busy, known bool, err error) {
		if _, err := e.journal.Run(ctx, id); errors.Is(err, journal.ErrNoRun) {
			return false, false, nil
		} else if err != nil {
			return false, false, err
		}
		busy, err = e.alive(id)
		return busy, true, err
	}
}

// sweepPlugins lists what plugins of dead gilds left, and ends and removes it unless dry.
func (e *Engine) sweepPlugins(ctx context.Context, dry bool) ([]builder.Resource, error) {
	if e.config.Plugins == nil {
		return nil, nil
	}
	return e.config.Plugins.Sweep(ctx, dry)
}

// add adds what a sweep found and the journal didn't already name.
func (g *GCReport) add(found []builder.Resource) {
	known := map[string]bool{}
	for _, r := range g.Removed {
		known[r.Kind+" "+r.ID] = true
	}
	for _, r := range found {
		if !known[r.Kind+" "+r.ID] {
			g.Removed = append(g.Removed, r)
		}
	}
}

// settle cleans up the open intents of one dead run, or of all.
func (e *Engine) settle(ctx context.Context, id string, dry bool) (*GCReport, error) {
	intents, err := e.journal.OpenIntents(ctx, id)
	if err != nil {
		return nil, err
	}
	report := &GCReport{}
	busy := map[string]bool{}
	// The latest first: a guest before the folder its disk is in.
	for i := len(intents) - 1; i >= 0; i-- {
		in := intents[i]
		running, seen := busy[in.Run]
		// The run that is asked for by name is claimed by the caller.
		if !seen && id == "" {
			if running, err = e.alive(in.Run); err != nil {
				return report, err
			}
			busy[in.Run] = running
			if running {
				report.Running = append(report.Running, in.Run)
			}
		}
		if running {
			continue
		}
		if !dry {
			if err := e.cleanup(ctx, in.Resource); err != nil {
				report.Left = append(report.Left, run.Leftover{Resource: in.Resource, Task: in.Node, Err: err})
				continue
			}
			if err := e.journal.Settle(ctx, in.ID); err != nil {
				return report, err
			}
		}
		report.Removed = append(report.Removed, in.Resource)
	}
	return report, nil
}
