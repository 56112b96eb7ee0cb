package poll_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gildhq/gild/steps/internal/poll"
	"github.com/google/go-cmp/cmp"
)

func TestUntil(t *testing.T) {
	t.Parallel()
	broken := errors.New("guest is gone")
	for name, tc := range map[string]struct {
		within  time.Duration
		attempt func(ctx context.Context, n int) ([]string, error)
		want    []string
		wantErr error
		elapsed time.Duration
	}{
		"holds at once": {time.Minute, func(context.Context, int) ([]string, error) { return nil, nil }, nil, nil, 0},
		"holds later": {time.Minute, func(_ context.Context, n int) ([]string, error) {
			if n < 3 {
				return []string{"no"}, nil
			}
			return nil, nil
		}, nil, nil, 2 * poll.Every},
		"one try":    {0, func(context.Context, int) ([]string, error) { return []string{"no"}, nil }, []string{"no"}, nil, 0},
		"never":      {2 * poll.Every, func(context.Context, int) ([]string, error) { return []string{"no"}, nil }, []string{"no"}, nil, 2 * poll.Every},
		"error ends": {time.Minute, func(context.Context, int) ([]string, error) { return nil, broken }, nil, broken, 0},
		"hangs": {10 * time.Second, func(ctx context.Context, n int) ([]string, error) {
			if n == 1 {
				return []string{"no"}, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}, []string{"no"}, nil, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start, n := time.Now(), 0
				got, err := poll.Until(t.Context(), start.Add(tc.within), func(ctx context.Context) ([]string, error) {
					n++
					return tc.attempt(ctx, n)
				})
				if d := cmp.Diff(tc.want, got); d != "" || !errors.Is(err, tc.wantErr) {
					t.Errorf("error %v (-want +got)\n%s", err, d)
				}
				if got := time.Since(start); got != tc.elapsed {
					t.Errorf("took %v, want %v", got, tc.elapsed)
				}
			})
		})
	}
}

func TestUntilIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(stop) })
		_, err := poll.Until(ctx, time.Now().Add(time.Hour), func(context.Context) ([]string, error) { return []string{"no"}, nil })
		if !errors.Is(err, stop) {
			t.Errorf("got %v, want %v", err, stop)
		}
	})
}
