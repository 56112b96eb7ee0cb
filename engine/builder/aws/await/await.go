// Package await waits for things that change slowly, such as instances that start and images
// that are being made.
//
// All that is awaited of one kind in one place is asked for together: one [Group] per region
// and kind makes one Describe call for everybody who waits, sooner after something new is
// awaited and slower as it ages. It is told what to ask and how often; what comes out is the
// thing as it was last seen. It changes nothing, and retries nothing: the client does.
package await

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Group asks for all that is awaited of one kind in one region. Its fields must not change
// after the first [Group.Wait]. Safe for concurrent use.
type Group[T any] struct {
	// Describe returns what there is of ids; what isn't there is left out. At most Batch ids come at once.
	Describe func(ctx context.Context, ids []string) (map[string]T, error)
	// Batch is the most ids per call; 0 means 100.
	Batch int
	// First is the pause before the first look at something new, Most what the pause grows to.
	First, Most time.Duration
	// Settling is how long something may be unknown, before it is first seen or after, until
	// it counts as absent: AWS doesn't know everywhere at once what was just made.
	Settling time.Duration

	mu      sync.Mutex
	waiters map[*waiter[T]]bool
	wake    chan struct{}
	stop    context.CancelFunc
}

type waiter[T any] struct {
	id    string
	due   time.Time
	pause time.Duration
	looks chan look[T] // holds the latest
}

type look[T any] struct {
	value T
	found bool
	err   error
}

// Wait looks at id until `until` is content or fails. until is called with found false only
// after the thing was absent for the whole of Settling, and then must be content or fail.
// It returns the thing as it was last seen, also with an error; the error is until's,
// Describe's, or the cause of ctx's end.
func (g *Group[T]) Wait(ctx context.Context, id string, until func(v T, found bool) (bool, error)) (T, error) {
	w := g.join(id)
	defer g.leave(w)
	var last T
	seen := time.Now()
	for {
		select {
		case <-ctx.Done():
			return last, context.Cause(ctx)
		case l := <-w.looks:
			if l.err != nil {
				return last, l.err
			}
			if l.found {
				last, seen = l.value, time.Now()
			} else if time.Since(seen) < g.Settling {
				continue
			}
			if done, err := until(l.value, l.found); done || err != nil {
				return last, err
			}
		}
	}
}

func (g *Group[T]) join(id string) *waiter[T] {
	w := &waiter[T]{id: id, due: time.Now().Add(g.First), pause: g.First, looks: make(chan look[T], 1)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiters) == 0 {
		ctx, cancel := context.WithCancel(context.Background())
		g.waiters, g.wake, g.stop = map[*waiter[T]]bool{}, make(chan struct{}, 1), cancel
		go g.run(ctx, g.wake)
	}
	g.waiters[w] = true
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return w
}

// leave ends the group's calls when nobody waits any more.
func (g *Group[T]) leave(w *waiter[T]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiters, w)
	if len(g.waiters) == 0 {
		g.stop()
	}
}

func (g *Group[T]) run(ctx context.Context, wake <-chan struct{}) {
	for {
		t := time.NewTimer(time.Until(g.next()))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-wake:
			// Somebody new may be due sooner.
			t.Stop()
		case <-t.C:
			g.look(ctx)
		}
	}
}

// next is when the first of the waiters is due.
func (g *Group[T]) next() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	due := time.Now().Add(g.Most)
	for w := range g.waiters {
		if w.due.Before(due) {
			due = w.due
		}
	}
	return due
}

// look asks for all and tells everybody.
func (g *Group[T]) look(ctx context.Context) {
	ids := g.ids()
	batch := g.Batch
	if batch == 0 {
		batch = 100
	}
	for part := range slices.Chunk(ids, batch) {
		found, err := g.Describe(ctx, part)
		if ctx.Err() != nil {
			return
		}
		g.tell(part, found, err)
	}
}

func (g *Group[T]) ids() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var ids []string
	for w := range g.waiters {
		ids = append(ids, w.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (g *Group[T]) tell(ids []string, found map[string]T, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for w := range g.waiters {
		if _, asked := slices.BinarySearch(ids, w.id); !asked {
			continue
		}
		// The pause grows with what is awaited: an image takes minutes, its end isn't urgent.
		w.pause = min(g.Most, w.pause+w.pause/2)
		w.due = now.Add(w.pause)
		v, ok := found[w.id]
		select {
		case <-w.looks:
		default:
		}
		w.looks <- look[T]{value: v, found: ok, err: err}
	}
}
