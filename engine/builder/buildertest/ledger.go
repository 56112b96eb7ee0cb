package buildertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/gildhq/gild/engine/builder"
)

// Ledger is a builder.Ledger that remembers what is open. Safe for concurrent use.
type Ledger struct {
	work builder.Work

	mu   sync.Mutex
	open []builder.Resource
	seen int
}

// NewLedger returns the ledger of one node of a run.
func NewLedger(run, node string) *Ledger {
	return &Ledger{work: builder.Work{Run: run, Node: node}}
}

// Work implements [builder.Ledger].
func (l *Ledger) Work() builder.Work { return l.work }

// Intent implements [builder.Ledger].
func (l *Ledger) Intent(ctx context.Context, r builder.Resource) (builder.Claim, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if r.Kind == "" || r.ID == "" {
		return nil, fmt.Errorf("a claim without kind or id: %+v", r)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, r)
	l.seen++
	return claim{l, r}, nil
}

// Open lists the claims that aren't settled, the first made first.
func (l *Ledger) Open() []builder.Resource {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.open)
}

// Seen counts all claims ever made.
func (l *Ledger) Seen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// Undo gives what is open to the builder's Cleanup, twice, as a crash followed by another
// would, and closes it.
func (l *Ledger) Undo(t *testing.T, b builder.Builder) {
	t.Helper()
	for _, r := range slices.Backward(l.Open()) {
		for range 2 {
			if mine, err := b.Cleanup(context.WithoutCancel(t.Context()), r); err != nil || !mine {
				t.Errorf("clean up %s %s: mine %v, %v", r.Kind, r.ID, mine, err)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = nil
}

type claim struct {
	ledger   *Ledger
	resource builder.Resource
}

// Settle implements [builder.Claim].
func (c claim) Settle(context.Context) error {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	if i := slices.Index(c.ledger.open, c.resource); i >= 0 {
		c.ledger.open = slices.Delete(c.ledger.open, i, i+1)
	}
	return nil
}
