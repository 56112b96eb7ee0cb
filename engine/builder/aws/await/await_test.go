package await_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/aws/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// things are ready some time after they appear.
type things struct {
	began time.Time
	mu    sync.Mutex
	calls [][]string
	// appears and goes are when an id can be seen; fails is when the call fails.
	appears, goes map[string]time.Duration
	fails         time.Duration
}

var errDenied = errors.New("denied")

func (th *things) describe(_ context.Context, ids []string) (map[string]time.Duration, error) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.calls = append(th.calls, slices.Clone(ids))
	age := time.Since(th.began)
	if th.fails > 0 && age >= th.fails {
		return nil, errDenied
	}
	found := map[string]time.Duration{}
	for _, id := range ids {
		from, ok := th.appears[id]
		until, gone := th.goes[id]
		if ok && age >= from && (!gone || age < until) {
			found[id] = age
		}
	}
	return found, nil
}

func group(th *things) *await.Group[time.Duration] {
	return &await.Group[time.Duration]{Describe: th.describe, First: time.Second, Most: 10 * time.Second, Settling: time.Minute}
}

func older(than time.Duration) func(time.Duration, bool) (bool, error) {
	return func(age time.Duration, found bool) (bool, error) {
		if !found {
			return false, errors.New("gone")
		}
		return age >= than, nil
	}
}

func TestManyWaitersShareCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := &things{began: time.Now(), appears: map[string]time.Duration{}}
		g := group(th)
		var wg sync.WaitGroup
		for i := range 50 {
			id := fmt.Sprintf("i-%02d", i)
			th.appears[id] = 0
			wg.Go(func() {
				if _, err := g.Wait(t.Context(), id, older(2*time.Minute)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		// Two minutes with pauses of 1 s to 10 s: far below one call per waiter and look.
		if n := len(th.calls); n < 12 || n > 20 {
			t.Errorf("%d calls for 50 waiters in 2 minutes", n)
		}
		for _, ids := range th.calls {
			if len(ids) != 50 {
				t.Errorf("a call asked for %d of 50", len(ids))
			}
		}
	})
}

func TestNewcomersAreAskedForSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := &things{began: time.Now(), appears: map[string]time.Duration{"old": 0, "new": 0}}
		g := group(th)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.Wait(t.Context(), "old", older(3*time.Minute)); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(2*time.Minute + 500*time.Millisecond)
		began := time.Now()
		if _, err := g.Wait(t.Context(), "new", older(0)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the first look at something new came after %s", took)
		}
		wg.Wait()
	})
}

func TestAbsence(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		appears, goes time.Duration
		wantErr       string
	}{
		{name: "appears late", appears: 50 * time.Second},
		{name: "never appears", appears: time.Hour, wantErr: "gone"},
		{name: "vanishes for good", goes: 30 * time.Second, wantErr: "gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				th := &things{began: time.Now(), appears: map[string]time.Duration{"x": tt.appears}, goes: map[string]time.Duration{}}
				if tt.goes > 0 {
					th.goes["x"] = tt.goes
				}
				_, err := group(th).Wait(t.Context(), "x", older(55*time.Second))
				if got := fmt.Sprint(err); got != tt.wantErr && (err != nil || tt.wantErr != "") {
					t.Errorf("error %v, want %q", err, tt.wantErr)
				}
				if tt.wantErr != "" && time.Since(th.began) < time.Minute {
					t.Errorf("gave up after %s", time.Since(th.began))
				}
			})
		})
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	cause := errors.New("within")
	for _, tt := range []struct {
		name  string
		fails time.Duration
		limit time.Duration
		want  error
	}{
		{name: "the caller's limit", limit: 20 * time.Second, want: cause},
		{name: "a call that fails", fails: 10 * time.Second, limit: time.Hour, want: errDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				th := &things{began: time.Now(), appears: map[string]time.Duration{"x": 0}, fails: tt.fails}
				ctx, cancel := context.WithTimeoutCause(t.Context(), tt.limit, cause)
				defer cancel()
				seen, err := group(th).Wait(ctx, "x", older(time.Hour))
				if !errors.Is(err, tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
				if seen == 0 {
					t.Error("the last look is lost")
				}
			})
		})
	}
}

func TestBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := &things{began: time.Now(), appears: map[string]time.Duration{"a": 0, "b": 0, "c": 0}}
		g := group(th)
		g.Batch = 2
		var wg sync.WaitGroup
		for _, id := range []string{"a", "b", "c"} {
			wg.Go(func() {
				if _, err := g.Wait(t.Context(), id, older(0)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff([][]string{{"a", "b"}, {"c"}}, th.calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}
