package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
)

var errLedgerClosed = errors.New("its attempt has ended")

// ledger keeps the claims of one attempt, or of one shared resource, in the order in
// which they were made.
type ledger struct {
	r *runner

	mu     sync.Mutex
	closed bool
	claims []*claim
}

// claim is one entry. Its mutex is held while the entry is settled or undone, so that
// a late Settle and the undo can't both act.
type claim struct {
	r        *runner
	node     string
	id       int64
	resource builder.Resource

	mu      sync.Mutex
	settled bool
}

// nodeLedger is a ledger as one task sees it. It implements [builder.Ledger].
type nodeLedger struct {
	*ledger
	node string
}

// Intent implements [builder.Ledger].
func (l nodeLedger) Intent(ctx context.Context, res builder.Resource) (builder.Claim, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// Cancelled half-way, the entry could be in the journal with nobody to settle it.
	ctx = context.WithoutCancel(ctx)
	id, err := l.r.o.Journal.Intent(ctx, l.r.o.Run, l.node, res)
	if err != nil {
		return nil, err
	}
	c := &claim{r: l.r, node: l.node, id: id, resource: res}
	if l.add(c) {
		return c, nil
	}
	return nil, errors.Join(fmt.Errorf("record %s before it is made: %w", describe(res), errLedgerClosed), c.Settle(ctx))
}

// Work implements [builder.Ledger].
func (l nodeLedger) Work() builder.Work { return builder.Work{Run: l.r.o.Run, Node: l.node} }

func (l *ledger) add(c *claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.claims = append(l.claims, c)
	}
	return !l.closed
}

// Settle implements [builder.Claim]. Settling twice does nothing.
func (c *claim) Settle(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settle(ctx)
}

func (c *claim) settle(ctx context.Context) error {
	if c.settled {
		return nil
	}
	if err := c.r.o.Journal.Settle(context.WithoutCancel(ctx), c.id); err != nil {
		return fmt.Errorf("record the end of %s: %w", describe(c.resource), err)
	}
	c.settled = true
	return nil
}

// undo closes the ledger and removes what its open claims stand for, the latest first.
// It goes on when the context of the run has ended, for at most UndoTimeout.
func (l *ledger) undo(ctx context.Context) (removed int, left []Leftover) {
	l.mu.Lock()
	l.closed = true
	claims := l.claims
	l.mu.Unlock()
	if len(claims) == 0 {
		return 0, nil
	}
	ctx, cancel := l.r.undoContext(ctx)
	defer cancel()
	for _, c := range slices.Backward(claims) {
		was, err := c.undo(ctx)
		switch {
		case err != nil:
			left = append(left, Leftover{Resource: c.resource, Task: c.node, Err: err})
		case was:
			removed++
		}
	}
	return removed, left
}

// undo removes the resource if the claim is open, and tells whether it was.
func (c *claim) undo(ctx context.Context) (was bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settled {
		return false, nil
	}
	err = c.r.cleanError(c.remove(ctx))
	e := event.Event{Kind: event.NodeUndone, Node: c.node, Text: c.r.clean(describe(c.resource))}
	if err != nil {
		e.Failure = &event.Failure{Error: err.Error()}
	}
	c.r.out.emit(e)
	return true, err
}

func (c *claim) remove(ctx context.Context) error {
	if c.r.o.Cleanup == nil {
		return fmt.Errorf("remove %s: nothing here can remove it", describe(c.resource))
	}
	err := guard(func() error { return c.r.o.Cleanup(ctx, c.resource) })
	if err != nil {
		return fmt.Errorf("remove %s: %w", describe(c.resource), because(ctx, err))
	}
	return c.settle(ctx)
}

// undoContext is for work that must be done although ctx may have ended.
func (r *runner) undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := cmp.Or(r.o.UndoTimeout, time.Minute)
	return context.WithTimeoutCause(context.WithoutCancel(ctx), limit, timeoutError(limit))
}

func describe(res builder.Resource) string {
	text := res.Kind + " " + res.ID
	if res.Note != "" {
		text += " (" + res.Note + ")"
	}
	return text
}
