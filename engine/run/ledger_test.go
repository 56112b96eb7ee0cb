package run

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
)

func tmpdir(id string) builder.Resource {
	return builder.Resource{Kind: "tmpdir", ID: id, Note: "for a test"}
}

// claims records each id, and settles those with a plus sign.
func claims(ctx context.Context, l builder.Ledger, ids ...string) error {
	for _, id := range ids {
		c, err := l.Intent(ctx, tmpdir(id))
		if err != nil {
			return err
		}
		if id[0] != '+' {
			continue
		}
		for range 2 {
			if err := c.Settle(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// open lists the ids of the journal's open intents.
func open(t *testing.T, f fixture) []string {
	t.Helper()
	intents, err := f.Journal.OpenIntents(t.Context(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, i := range intents {
		ids = append(ids, i.Node+" "+i.Resource.ID)
	}
	return ids
}

func TestUndo(t *testing.T) {
	t.Parallel()
	type want struct {
		Cleaned []string
		Left    []string
		State   string
		Exit    int
	}
	tests := map[string]struct {
		ids    []string
		end    func(ctx context.Context, cancel func()) error
		broken string
		want   want
	}{
		"latest first, after a failure": {
			ids: []string{"one", "+two", "three"}, end: func(context.Context, func()) error { return errBroken },
			want: want{Cleaned: []string{"three", "one"}, State: "failed: it broke", Exit: 1},
		},
		"after success too": {
			ids: []string{"one"}, end: func(context.Context, func()) error { return nil },
			want: want{Cleaned: []string{"one"}, State: "done"},
		},
		"all settled": {
			ids: []string{"+one", "+two"}, end: func(context.Context, func()) error { return nil },
			want: want{State: "done"},
		},
		"after a panic": {
			ids: []string{"one"}, end: func(context.Context, func()) error { panic("x") },
			want: want{Cleaned: []string{"one"}, State: "failed: panic: x (this is a bug of gild or of the step)", Exit: 1},
		},
		"cancelled with all removed is undone": {
			ids: []string{"one"}, end: func(ctx context.Context, cancel func()) error { cancel(); return ctx.Err() },
			want: want{Cleaned: []string{"one"}, State: "undone: stop", Exit: 130},
		},
		"cancelled with nothing made is cancelled": {
			ids: []string{"+one"}, end: func(ctx context.Context, cancel func()) error { cancel(); return ctx.Err() },
			want: want{State: "cancelled: stop", Exit: 130},
		},
		"cancelled with something left is cancelled": {
			ids: []string{"one", "two"}, end: func(ctx context.Context, cancel func()) error { cancel(); return ctx.Err() }, broken: "one",
			want: want{Cleaned: []string{"two", "one"}, Left: []string{"a one"}, State: "cancelled: stop", Exit: 130},
		},
		"one that can't be removed doesn't keep the others": {
			ids: []string{"one", "two", "three"}, end: func(context.Context, func()) error { return nil }, broken: "two",
			want: want{Cleaned: []string{"three", "two", "one"}, Left: []string{"a two"}, State: "done", Exit: 5},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var got want
			f.Cleanup = func(ctx context.Context, r builder.Resource) error {
				if _, limited := ctx.Deadline(); ctx.Err() != nil || !limited {
					t.Errorf("cleanup with context %v, want one that lives and has a deadline", ctx)
				}
				got.Cleaned = append(got.Cleaned, r.ID)
				if r.ID == tc.broken {
					return errBroken
				}
				return nil
			}
			res := f.runCtx(t, ctx, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error {
				if err := claims(ctx, a, tc.ids...); err != nil {
					return err
				}
				return tc.end(ctx, func() { cancel(errors.New("stop")) })
			})})
			got.Left, got.State, got.Exit = open(t, f), endings(res)["a"], res.ExitCode
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			var left []string
			for _, l := range res.Leftovers {
				left = append(left, l.Task+" "+l.Resource.ID)
				if want := "remove tmpdir " + tc.broken + " (for a test): it broke"; l.Err.Error() != want {
					t.Errorf("error of leftover = %q, want %q", l.Err, want)
				}
			}
			if diff := cmp.Diff(tc.want.Left, left); diff != "" {
				t.Errorf("leftovers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUndoneEvents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Cleanup = func(_ context.Context, r builder.Resource) error {
		if r.ID == "bad" {
			return errBroken
		}
		return nil
	}
	f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error { return claims(ctx, a, "bad", "good") })})
	var got []string
	for _, e := range f.events.all() {
		if e.Kind == event.NodeUndone {
			text := e.Node + ": " + e.Text
			if e.Failure != nil {
				text += ": " + e.Failure.Error
			}
			got = append(got, text)
		}
	}
	want := []string{"a: tmpdir good (for a test)", "a: tmpdir bad (for a test): remove tmpdir bad (for a test): it broke"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestIntentIsDurableBeforeItReturns(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Cleanup = func(context.Context, builder.Resource) error { return nil }
	f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error {
		if err := claims(ctx, a, "one", "+two", "three"); err != nil {
			return err
		}
		if diff := cmp.Diff([]string{"a one", "a three"}, open(t, f)); diff != "" {
			t.Errorf("open intents while the task runs (-want +got):\n%s", diff)
		}
		return nil
	})})
	if left := open(t, f); left != nil {
		t.Errorf("open intents after the run: %v", left)
	}
}

func TestIntentRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var kept *Attempt
	f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error {
		kept = a
		ctx, cancel := context.WithCancelCause(ctx)
		cancel(errBroken)
		if _, err := a.Intent(ctx, tmpdir("one")); !errors.Is(err, errBroken) {
			t.Errorf("intent with an ended context: %v, want its cause", err)
		}
		return nil
	})})
	_, err := kept.Intent(t.Context(), tmpdir("late"))
	if !errors.Is(err, errLedgerClosed) {
		t.Errorf("intent after the attempt: %v, want it refused", err)
	}
	if left := open(t, f); left != nil {
		t.Errorf("open intents: %v, want none", left)
	}
}

func TestEachAttemptIsUndone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var seen []string
	f.Cleanup = func(_ context.Context, r builder.Resource) error {
		seen = append(seen, "remove "+r.ID)
		return nil
	}
	f.run(t, Task{ID: "a", Attempts: 2, Do: do(func(ctx context.Context, a *Attempt) error {
		seen = append(seen, fmt.Sprint("attempt ", a.Number))
		if err := claims(ctx, a, fmt.Sprint(a.Number)); err != nil {
			return err
		}
		return errBroken
	})})
	want := []string{"attempt 1", "remove 1", "attempt 2", "remove 2"}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUndoHasADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.UndoTimeout = 30 * time.Second
		f.Cleanup = func(ctx context.Context, _ builder.Resource) error {
			<-ctx.Done()
			return ctx.Err()
		}
		start := time.Now()
		res := f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error { return claims(ctx, a, "one", "two") })})
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("took %s, want 30s for all of a task's resources", took)
		}
		if len(res.Leftovers) != 2 || res.Leftovers[0].Err.Error() != "remove tmpdir two (for a test): timed out after 30s" {
			t.Errorf("leftovers %v", res.Leftovers)
		}
	})
}

func TestCleanupPanicOrMissing(t *testing.T) {
	t.Parallel()
	for name, cleanup := range map[string]func(context.Context, builder.Resource) error{
		"panics": func(context.Context, builder.Resource) error { panic("x") }, "missing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.Cleanup = cleanup
			res := f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error { return claims(ctx, a, "one") })})
			if res.ExitCode != 5 || len(res.Leftovers) != 1 || len(open(t, f)) != 1 {
				t.Errorf("exit code %d, leftovers %v, open %v; want 5 and the one", res.ExitCode, res.Leftovers, open(t, f))
			}
		})
	}
}

func TestSharedClaimsOutliveTheAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var seen []string
	f.Cleanup = func(_ context.Context, r builder.Resource) error {
		seen = append(seen, "remove "+r.ID)
		return nil
	}
	f.Release = func(context.Context, string) error {
		seen = append(seen, "release")
		return nil
	}
	f.run(t,
		Task{ID: "a", Holds: []string{"guest"}, Do: do(func(ctx context.Context, a *Attempt) error {
			return errors.Join(claims(ctx, a.Shared("guest"), "qemu", "+disk"), claims(ctx, a, "own"))
		})},
		Task{ID: "b", Needs: []string{"a"}, Holds: []string{"guest"}, Do: do(func(context.Context, *Attempt) error {
			if diff := cmp.Diff([]string{"a qemu"}, open(t, f)); diff != "" {
				t.Errorf("open between the tasks (-want +got):\n%s", diff)
			}
			return nil
		})})
	if diff := cmp.Diff([]string{"remove own", "release", "remove qemu"}, seen); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if left := open(t, f); left != nil {
		t.Errorf("open after the run: %v", left)
	}
}

func TestSharedMustBeHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	res := f.run(t, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
		a.Shared("guest")
		return nil
	})})
	want := `failed: panic: task "a" uses "guest", which it doesn't hold (this is a bug of gild or of the step)`
	if got := endings(res)["a"]; got != want {
		t.Errorf("ended %q, want %q", got, want)
	}
}
