package run

import (
	"container/heap"
	"context"
	"fmt"
	"maps"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

// readyQueue holds the nodes that may start, in the order in which tasks were given.
type readyQueue []*node

// The methods of heap.Interface; use push and pop.
func (q readyQueue) Len() int           { return len(q) }
func (q readyQueue) Less(i, j int) bool { return q[i].index < q[j].index }
func (q readyQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *readyQueue) Push(x any)        { *q = append(*q, x.(*node)) }
func (q *readyQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func (q *readyQueue) push(n *node) { heap.Push(q, n) }
func (q *readyQueue) pop() *node   { return heap.Pop(q).(*node) }

// next waits for a node that may start; nil when all have ended.
func (r *runner) next() *node {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.ready) == 0 && r.left > 0 {
		r.wake.Wait()
	}
	if r.left == 0 {
		return nil
	}
	return r.ready.pop()
}

// unstarted returns the end of a node that isn't run, if there is a reason not to.
func (r *runner) unstarted(n *node) (TaskResult, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case n.Skip != "":
		return TaskResult{State: event.Skipped, Reason: n.Skip}, true
	case n.blockedBy != "":
		return TaskResult{State: event.Skipped, Reason: fmt.Sprintf("needs %s, which failed", n.blockedBy)}, true
	case r.ctx.Err() != nil:
		r.interrupted = true
		return TaskResult{State: event.Cancelled, Reason: context.Cause(r.ctx).Error()}, true
	case r.stop != "":
		return TaskResult{State: event.Cancelled, Reason: r.stop}, true
	}
	return TaskResult{}, false
}

// finish records how a node ended and makes ready what waited for it. It returns the
// shared resources that nothing can use any more.
func (r *runner) finish(n *node, res TaskResult) (unused []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.ended, n.result = true, res
	r.left--
	blocking := n.blockedBy
	if res.State == event.Failed {
		blocking = r.failed(n, res)
	}
	for _, d := range n.dependents {
		if d.blockedBy == "" {
			d.blockedBy = blocking
		}
		if d.pending--; d.pending == 0 {
			r.ready.push(d)
		}
	}
	for _, name := range n.Holds {
		if r.holders[name]--; r.holders[name] == 0 {
			unused = append(unused, name)
		}
	}
	r.wake.Broadcast()
	return unused
}

// failed notes a failure and returns the id that dependents are blocked by.
func (r *runner) failed(n *node, res TaskResult) string {
	if n.ContinueOnError {
		return n.blockedBy
	}
	s := severityOf(n.Task, res.Err)
	if r.failures[s] == "" {
		r.failures[s] = n.ID
	}
	// A region that can't be reached doesn't keep the others from their copy.
	if !r.o.KeepGoing && s != partly && r.stop == "" {
		r.stop = fmt.Sprintf("not started, because %s failed", n.ID)
	}
	return n.ID
}

// release ends a shared resource and removes what its claims still stand for.
func (r *runner) release(name string) {
	ctx, cancel := r.undoContext(r.ctx)
	err := guard(func() error { return r.o.Release(ctx, name) })
	err = because(ctx, err)
	cancel()
	_, left := r.shared[name].undo(r.ctx)
	if err != nil {
		err = r.cleanError(fmt.Errorf("release %s: %w", name, err))
		r.out.emit(event.Event{Kind: event.Notice, Text: err.Error()})
		left = append(left, Leftover{Resource: builder.Resource{Kind: "shared", ID: name}, Err: err})
	}
	r.addLeftovers(left)
}

func (r *runner) addLeftovers(left []Leftover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leftovers = append(r.leftovers, left...)
}

// outputs returns a copy of what a task that has ended gave, else nil.
func (r *runner) outputs(id string) step.Outputs {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.byID[id]
	if n == nil || !n.ended {
		return nil
	}
	return maps.Clone(n.result.Outputs)
}
