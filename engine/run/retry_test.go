package run

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		base    time.Duration
		attempt int
		atLeast time.Duration
	}{
		{0, 1, 0},
		{2 * time.Second, 1, 2 * time.Second},
		{2 * time.Second, 2, 4 * time.Second},
		{2 * time.Second, 5, 32 * time.Second},
		{2 * time.Second, 60, time.Hour},
		{2 * time.Second, 1 << 30, time.Hour},
		{3 * time.Hour, 4, 3 * time.Hour},
	} {
		got := backoff(tc.base, "run", "task", tc.attempt)
		if got < tc.atLeast || got > tc.atLeast+tc.atLeast/4 {
			t.Errorf("backoff(%s, attempt %d) = %s, want %s to a quarter more", tc.base, tc.attempt, got, tc.atLeast)
		}
	}
}

func TestBackoffDependsOnRunTaskAndAttempt(t *testing.T) {
	t.Parallel()
	jitter := func(run, task string, attempt int) time.Duration {
		return backoff(time.Minute, run, task, attempt) - time.Minute<<(attempt-1)
	}
	same := jitter("r1", "web/a", 2)
	if again := jitter("r1", "web/a", 2); again != same {
		t.Errorf("the same attempt waits %s, then %s", same, again)
	}
	for name, other := range map[string]time.Duration{
		"run":            jitter("r2", "web/a", 2),
		"task":           jitter("r1", "web/b", 2),
		"attempt":        jitter("r1", "web/a", 3),
		"moved boundary": jitter("r1w", "eb/a", 2),
	} {
		if other == same {
			t.Errorf("another %s waits the same %s", name, same)
		}
	}
}

func TestTimeoutErrorText(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		5 * time.Minute:               "timed out after 5m",
		2 * time.Hour:                 "timed out after 2h",
		90 * time.Second:              "timed out after 1m30s",
		10 * time.Second:              "timed out after 10s",
		1500 * time.Millisecond:       "timed out after 1.5s",
		20*time.Hour + 10*time.Minute: "timed out after 20h10m",
	} {
		if got := timeoutError(d).Error(); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		errs     []error
		attempts int
		tries    int
		state    event.State
	}{
		"works the second time":    {[]error{errBroken, nil}, 3, 2, event.Done},
		"never works":              {[]error{errBroken, errBroken, errBroken}, 3, 3, event.Failed},
		"no retry asked for":       {[]error{errBroken}, 0, 1, event.Failed},
		"permanent":                {[]error{fmt.Errorf("a: %w", &step.Permanent{Err: errBroken})}, 3, 1, event.Failed},
		"failed test":              {[]error{&step.TestFailed{Checks: []string{"x"}}}, 3, 1, event.Failed},
		"skipped":                  {[]error{errBroken, &step.Skipped{Reason: "x"}}, 3, 2, event.Skipped},
		"cancelled by the step":    {[]error{context.Canceled, nil}, 3, 2, event.Done},
		"permanent the second try": {[]error{errBroken, &step.Permanent{Err: errBroken}}, 3, 2, event.Failed},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			var numbers []int
			res := f.run(t, Task{ID: "a", Attempts: tc.attempts, Backoff: time.Millisecond, Do: do(func(_ context.Context, a *Attempt) error {
				numbers = append(numbers, a.Number)
				return tc.errs[a.Number-1]
			})})
			if len(numbers) != tc.tries || numbers[len(numbers)-1] != tc.tries || res.Tasks["a"].State != tc.state {
				t.Errorf("attempts %v ended %s, want %d and %s", numbers, res.Tasks["a"].State, tc.tries, tc.state)
			}
		})
	}
}

// TestTimes runs in a bubble with its own clock, journal included.
func TestTimes(t *testing.T) {
	t.Parallel()
	forever := do(func(ctx context.Context, _ *Attempt) error {
		<-ctx.Done()
		return fmt.Errorf("sleep: %w", ctx.Err())
	})
	tests := map[string]struct {
		task Task
		stop time.Duration
		want string
		exit int
		took [2]time.Duration
	}{
		"timeout of the task": {task: Task{Timeout: 5 * time.Minute, Do: forever},
			want: "failed: timed out after 5m: sleep: context deadline exceeded", exit: 1, took: [2]time.Duration{5 * time.Minute, 5 * time.Minute}},
		"timeout of the options": {task: Task{Do: forever},
			want: "failed: timed out after 1h: sleep: context deadline exceeded", exit: 1, took: [2]time.Duration{time.Hour, time.Hour}},
		"timeout is for each attempt, with pauses between": {task: Task{Timeout: time.Minute, Attempts: 3, Backoff: 10 * time.Second, Do: forever},
			want: "failed: timed out after 1m: sleep: context deadline exceeded", exit: 1,
			took: [2]time.Duration{3*time.Minute + 30*time.Second, 3*time.Minute + 38*time.Second}},
		"a cause says enough alone": {task: Task{Timeout: time.Second, Do: do(func(ctx context.Context, _ *Attempt) error {
			<-ctx.Done()
			return ctx.Err()
		})}, want: "failed: timed out after 1s", exit: 1, took: [2]time.Duration{time.Second, time.Second}},
		"interrupt during a pause": {task: Task{Attempts: 2, Backoff: time.Minute, Do: fails(errBroken)}, stop: 10 * time.Second,
			want: "cancelled: interrupted by Ctrl-C", exit: 130, took: [2]time.Duration{10 * time.Second, 10 * time.Second}},
		"interrupt during an attempt": {task: Task{Do: forever, Attempts: 5}, stop: 10 * time.Second,
			want: "cancelled: interrupted by Ctrl-C", exit: 130, took: [2]time.Duration{10 * time.Second, 10 * time.Second}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.Timeout = time.Hour
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tc.stop > 0 {
					defer time.AfterFunc(tc.stop, func() { cancel(errors.New("interrupted by Ctrl-C")) }).Stop()
				}
				tc.task.ID = "a"
				res := f.runCtx(t, ctx, tc.task)
				if diff := cmp.Diff(map[string]string{"a": tc.want}, endings(res)); diff != "" || res.ExitCode != tc.exit {
					t.Errorf("exit code %d, want %d; tasks (-want +got):\n%s", res.ExitCode, tc.exit, diff)
				}
				if took := res.Tasks["a"].Elapsed; took < tc.took[0] || took > tc.took[1] {
					t.Errorf("took %s, want %s to %s", took, tc.took[0], tc.took[1])
				}
			})
		})
	}
}

func TestRetryIsSeen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(t, Task{ID: "a", Attempts: 2, Backoff: time.Millisecond, Do: do(func(_ context.Context, a *Attempt) error {
		if a.Number == 1 {
			return errBroken
		}
		return nil
	})})
	var got []string
	for _, e := range f.events.all() {
		if e.Kind == event.NodeState {
			reason, _, _ := strings.Cut(e.Reason, " in ")
			got = append(got, fmt.Sprintf("%s %d %s", e.State, e.Attempt, reason))
		}
	}
	want := []string{"running 1 ", "running 1 trying again", "running 2 ", "done 2 "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}
