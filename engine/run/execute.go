package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

// job is the execution of one task by one worker.
type job struct {
	*node
	r   *runner
	log *taskLog
	// started is when the first attempt began, after any wait for a lock; attempt is the last one's number.
	started time.Time
	attempt int
	// removed counts what was undone after attempts; left is what could not be.
	removed int
	left    []Leftover
	// interrupted tells that the run's context ended before the task did.
	interrupted bool
}

// ending is how a task ended, with what only the report of it needs.
type ending struct {
	TaskResult
	attempt int
	started time.Time
	tail    []string
}

// execute runs a task, or finds that it isn't to be run, and returns its end.
func (r *runner) execute(n *node) ending {
	if res, ok := r.unstarted(n); ok {
		return ending{TaskResult: res}
	}
	j := &job{node: n, r: r, log: newTaskLog(r, n.ID), started: r.now()}
	out, state, err := j.underLock()
	if logErr := j.log.close(); !errors.Is(err, logErr) {
		err = errors.Join(err, logErr)
	}
	r.addLeftovers(j.left)
	return j.end(out, state, err)
}

// end turns what came out into the task's final state.
func (j *job) end(out step.Outputs, state event.State, err error) ending {
	tail, path := j.log.report()
	res := TaskResult{State: state, Elapsed: j.r.now().Sub(j.started), LogPath: path}
	var skipped *step.Skipped
	switch {
	case err == nil:
		res.Outputs = out
	case errors.As(err, &skipped):
		res.State, res.Reason = event.Skipped, skipped.Reason
	case j.interrupted:
		res.State, res.Err, res.Reason = event.Cancelled, err, context.Cause(j.r.ctx).Error()
		if j.removed > 0 && len(j.left) == 0 {
			res.State = event.Undone
		}
		j.r.interrupt()
	default:
		res.State, res.Err = event.Failed, err
	}
	return ending{res, j.attempt, j.started, tail}
}

func (r *runner) interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interrupted = true
}

// lockName is what the task locks between processes, or empty.
func (n *node) lockName() string { return cmp.Or(n.Exclusive, n.Key) }

// underLock does the task while no other process does the same.
func (j *job) underLock() (out step.Outputs, state event.State, err error) {
	if name := j.lockName(); name != "" {
		l, lockErr := lock(j.r.ctx, j.r.o.LockDir, name, j.waiting)
		if lockErr != nil {
			j.interrupted = j.r.ctx.Err() != nil
			return nil, "", lockErr
		}
		defer func() { err = errors.Join(err, l.unlock()) }()
	}
	j.started = j.r.now()
	if out, ok, err := j.cached(); ok || err != nil {
		return out, event.Cached, err
	}
	out, err = j.attempts()
	return out, event.Done, err
}

func (j *job) waiting(pid int) {
	reason := fmt.Sprintf("waiting for another gild (pid %d)", pid)
	if pid == os.Getpid() {
		reason = "waiting for another task that does the same"
	}
	j.r.out.emit(event.Event{Kind: event.NodeState, Node: j.ID, State: event.Running, Reason: reason})
}

func (j *job) cached() (out step.Outputs, ok bool, err error) {
	if j.Cached == nil {
		return nil, false, nil
	}
	err = j.guard(func() (err error) {
		out, ok, err = j.Cached(j.r.ctx)
		return err
	})
	if err != nil {
		j.interrupted = j.r.ctx.Err() != nil
		return nil, false, fmt.Errorf("look for an earlier result: %w", err)
	}
	return out, ok, nil
}

// attempts tries until the task is done, or trying again makes no sense.
func (j *job) attempts() (step.Outputs, error) {
	for {
		j.attempt++
		j.begin()
		out, err := j.try()
		if err == nil || j.interrupted || j.attempt >= j.Attempts || !retryable(err) {
			return out, err
		}
		if !j.pause(err) {
			return nil, err
		}
	}
}

// pause waits before the next attempt; false when the run ended first.
func (j *job) pause(err error) bool {
	d := backoff(j.Backoff, j.r.o.Run, j.ID, j.attempt)
	j.r.out.emit(event.Event{Kind: event.NodeState, Node: j.ID, State: event.Running, Attempt: j.attempt,
		Reason: j.r.clean(fmt.Sprintf("trying again in %s: %v", d.Round(time.Millisecond), err))})
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-j.r.ctx.Done():
		j.interrupted = true
		return false
	}
}

// try makes one attempt and removes what it left.
func (j *job) try() (step.Outputs, error) {
	claims := &ledger{r: j.r}
	out, err := j.do(claims)
	j.interrupted = err != nil && j.r.ctx.Err() != nil
	removed, left := claims.undo(j.r.ctx)
	j.removed += removed
	j.left = append(j.left, left...)
	return out, err
}

// do calls the task's function under its time limit.
func (j *job) do(claims *ledger) (out step.Outputs, err error) {
	if j.Do == nil {
		return nil, nil
	}
	ctx, cancel := context.WithCancelCause(j.r.ctx)
	defer cancel(nil)
	j.log.begin(cancel)
	if limit := cmp.Or(j.Timeout, j.r.o.Timeout); limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, limit, timeoutError(limit))
		defer stop()
	}
	a := &Attempt{Number: j.attempt, Log: j.log, Progress: j.progress(), Outputs: j.r.outputs,
		ledger: nodeLedger{claims, j.ID}, shared: j.sharedLedger}
	err = because(ctx, j.guard(func() (err error) {
		out, err = j.Do(ctx, a)
		return err
	}))
	logErr := j.log.end()
	switch {
	case logErr == nil || errors.Is(err, logErr):
		return out, err
	case err == nil:
		return nil, logErr
	default:
		return nil, fmt.Errorf("%w: %w", logErr, err)
	}
}

// guard is guard with the stack of a panic in the task's log.
func (j *job) guard(f func() error) error {
	err := guard(f)
	var p *panicError
	if errors.As(err, &p) {
		_, logErr := fmt.Fprintf(j.log, "%v\n%s", p, p.stack)
		err = errors.Join(err, logErr)
	}
	return err
}

// progress returns the function of an attempt that turns progress into events, ten
// times a second at most, and always the first and the last.
func (j *job) progress() func(done, total int64, unit string) {
	const pause = 100 * time.Millisecond
	var mu sync.Mutex
	var last time.Time
	ended := false // the last that was told was the end
	return func(done, total int64, unit string) {
		mu.Lock()
		defer mu.Unlock()
		now := j.r.now()
		if !last.IsZero() && (done != total || ended) && now.Sub(last) < pause {
			return
		}
		last, ended = now, done == total
		j.r.out.emit(event.Event{Kind: event.NodeProgress, Node: j.ID, Attempt: j.attempt, Done: done, Total: total, Unit: j.r.clean(unit)})
	}
}

func (j *job) sharedLedger(name string) builder.Ledger {
	l := j.r.shared[name]
	if l == nil || !slices.Contains(j.Holds, name) {
		panic(fmt.Sprintf("task %q uses %q, which it doesn't hold", j.ID, name))
	}
	return nodeLedger{l, j.ID}
}
