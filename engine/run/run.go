// Package run executes tasks: each as soon as what it needs has ended, as many at a
// time as there are workers, with timeouts, retries and the removal of what a task left.
//
// In come tasks, which engine makes from a plan, and what they may use (journal, log
// folder, sink, builder's cleanup). Out come events, log files, journal entries and a
// [Result]. The package knows no step by name and prints nothing. A run's own entry in
// the journal (StartRun, EndRun) is the caller's.
package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/event"
)

// Run executes tasks and returns when all have ended and what they left is removed.
//
// When ctx ends, running attempts are cancelled with its cause and undone, nothing more
// starts, and the run ends as Cancelled. A failure of a task is no error of Run: it is in
// the result. The error is of a graph that can't be executed (then nothing ran and
// Result is zero), or of a journal or folder that can't be written (then the result
// tells how far the run came).
func Run(ctx context.Context, tasks []Task, o Options) (Result, error) {
	nodes, err := newGraph(tasks)
	if err == nil {
		err = checkOptions(nodes, o)
	}
	if err != nil {
		return Result{}, fmt.Errorf("run %s: %w", o.Run, err)
	}
	r := newRunner(ctx, nodes, o)
	start := r.now()
	r.out.emit(event.Event{Kind: event.RunStarted, Graph: eventGraph(nodes)})
	r.runAll()
	if err := o.Journal.Flush(context.WithoutCancel(ctx)); err != nil {
		r.fail(err)
	}
	res := r.result()
	r.out.emit(event.Event{Kind: event.RunFinished, State: res.State, ExitCode: &res.ExitCode, ElapsedMS: r.now().Sub(start).Milliseconds()})
	if err := cmp.Or(r.broken, o.Journal.Flush(context.WithoutCancel(ctx))); err != nil {
		return res, fmt.Errorf("run %s: %w", o.Run, err)
	}
	return res, nil
}

// checkOptions makes the folders, and refuses options that would fail half-way.
func checkOptions(nodes []*node, o Options) error {
	var errs []error
	if o.Journal == nil {
		errs = append(errs, errors.New("no journal given"))
	}
	dirs := map[string]string{"log": o.LogDir}
	for _, n := range nodes {
		if n.lockName() != "" {
			dirs["lock"] = o.LockDir
		}
		if len(n.Holds) > 0 && o.Release == nil {
			errs = append(errs, fmt.Errorf("task %q holds %q, and no release is given", n.ID, n.Holds))
		}
	}
	for name, dir := range dirs {
		if dir == "" {
			errs = append(errs, fmt.Errorf("no %s folder given", name))
		} else if err := os.MkdirAll(dir, 0o700); err != nil {
			errs = append(errs, fmt.Errorf("make %s folder: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func eventGraph(nodes []*node) []event.Node {
	graph := make([]event.Node, len(nodes))
	for i, n := range nodes {
		graph[i] = event.Node{ID: n.ID, Title: n.Title, Needs: n.Needs, Place: n.Place}
	}
	return graph
}

// runner is one run. What is below mu is guarded by it.
type runner struct {
	ctx   context.Context
	o     Options
	now   func() time.Time
	out   *stream
	nodes []*node
	byID  map[string]*node

	mu    sync.Mutex
	wake  *sync.Cond
	ready readyQueue
	// left counts the nodes that have not ended.
	left int
	// stop is why no further task starts; empty while they do.
	stop string
	// holders counts the tasks that still may use a shared resource; shared are its claims.
	holders map[string]int
	shared  map[string]*ledger

	interrupted bool
	failures    [severities]string
	leftovers   []Leftover
	// broken is the first error of the journal.
	broken error
}

func newRunner(ctx context.Context, nodes []*node, o Options) *runner {
	r := &runner{ctx: ctx, o: o, now: o.Now, nodes: nodes, left: len(nodes),
		byID: make(map[string]*node, len(nodes)), holders: map[string]int{}, shared: map[string]*ledger{}}
	if r.now == nil {
		r.now = time.Now
	}
	r.wake = sync.NewCond(&r.mu)
	r.out = &stream{run: o.Run, sink: o.Sink, journal: o.Journal, now: r.now, broken: r.fail}
	for _, n := range nodes {
		r.byID[n.ID] = n
		if n.pending == 0 {
			r.ready.push(n)
		}
		for _, name := range n.Holds {
			r.holders[name]++
			r.shared[name] = &ledger{r: r}
		}
	}
	return r
}

// runAll works the graph off.
func (r *runner) runAll() {
	var workers sync.WaitGroup
	for range min(cmp.Or(r.o.Workers, runtime.NumCPU()), len(r.nodes)) {
		workers.Go(r.work)
	}
	workers.Wait()
}

func (r *runner) work() {
	for n := r.next(); n != nil; n = r.next() {
		e := r.execute(n)
		e.Reason, e.Err = r.clean(e.Reason), r.cleanError(e.Err)
		r.tell(n, e)
		for _, name := range r.finish(n, e.TaskResult) {
			r.release(name)
		}
	}
}

// clean makes text fit to be shown: secrets hidden, no control characters.
func (r *runner) clean(text string) string {
	return r.o.Mask.String(harmless(text))
}

// cleanError is err with a text fit to be shown; errors.Is and As see through it.
func (r *runner) cleanError(err error) error {
	if err == nil {
		return nil
	}
	if text := r.clean(err.Error()); text != err.Error() {
		return &cleanError{text, err}
	}
	return err
}

type cleanError struct {
	text string
	err  error
}

func (c *cleanError) Error() string { return c.text }
func (c *cleanError) Unwrap() error { return c.err }

// fail keeps the first error of the journal and lets no further task start: what isn't
// recorded can't be resumed or cleaned up.
func (r *runner) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken == nil {
		r.broken = err
	}
	if r.stop == "" {
		r.stop = "not started: " + err.Error()
	}
}
