package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

var errBroken = errors.New("it broke")

func ok() func(context.Context, *Attempt) (step.Outputs, error) {
	return do(func(context.Context, *Attempt) error { return nil })
}

func TestRunEnds(t *testing.T) {
	t.Parallel()
	type want struct {
		State    event.State
		ExitCode int
		First    string
		Tasks    map[string]string
	}
	test := &step.TestFailed{Checks: []string{"nginx answers 500"}}
	tests := map[string]struct {
		keepGoing bool
		tasks     []Task
		want      want
	}{
		"nothing to do": {
			want: want{State: event.Done, Tasks: map[string]string{}},
		},
		"done, cached, skipped and joining tasks": {
			tasks: []Task{
				{ID: "join", Needs: []string{"a", "b", "c", "d"}},
				{ID: "a", Do: ok()},
				{ID: "b", Key: "k", Do: fails(errBroken), Cached: func(context.Context) (step.Outputs, bool, error) { return nil, true, nil }},
				{ID: "c", Skip: "when is false", Do: fails(errBroken)},
				{ID: "d", Do: fails(&step.Skipped{Reason: "nothing to install"})},
			},
			want: want{State: event.Done, Tasks: map[string]string{"a": "done", "b": "cached",
				"c": "skipped: when is false", "d": "skipped: nothing to install", "join": "done"}},
		},
		"a failure stops what has not started": {
			tasks: []Task{
				{ID: "a", Do: fails(errBroken)},
				{ID: "b", Needs: []string{"a"}, Do: ok()},
				{ID: "c", Needs: []string{"b"}, Do: ok()},
				{ID: "d", Do: ok()},
			},
			want: want{State: event.Failed, ExitCode: 1, First: "a", Tasks: map[string]string{"a": "failed: it broke",
				"b": "skipped: needs a, which failed", "c": "skipped: needs a, which failed",
				"d": "cancelled: not started, because a failed"}},
		},
		"keep going runs what does not depend on it": {
			keepGoing: true,
			tasks: []Task{
				{ID: "a", Do: fails(errBroken)},
				{ID: "b", Needs: []string{"a"}, Do: ok()},
				{ID: "c", Do: ok()},
			},
			want: want{State: event.Failed, ExitCode: 1, First: "a", Tasks: map[string]string{"a": "failed: it broke",
				"b": "skipped: needs a, which failed", "c": "done"}},
		},
		"a skipped task between does not hide a failure": {
			keepGoing: true,
			tasks: []Task{
				{ID: "a", Do: fails(errBroken)},
				{ID: "b", Needs: []string{"a"}, Skip: "when is false"},
				{ID: "c", Needs: []string{"b"}, Do: ok()},
			},
			want: want{State: event.Failed, ExitCode: 1, First: "a", Tasks: map[string]string{"a": "failed: it broke",
				"b": "skipped: when is false", "c": "skipped: needs a, which failed"}},
		},
		"continue on error": {
			tasks: []Task{
				{ID: "a", ContinueOnError: true, Do: fails(errBroken)},
				{ID: "b", Needs: []string{"a"}, Do: ok()},
			},
			want: want{State: event.Done, Tasks: map[string]string{"a": "failed: it broke", "b": "done"}},
		},
		"tests failed": {
			tasks: []Task{
				{ID: "test", Test: true, Do: fails(fmt.Errorf("check: %w", test))},
				{ID: "publish", Needs: []string{"test"}, Do: ok()},
			},
			want: want{State: event.Failed, ExitCode: 3, First: "test", Tasks: map[string]string{
				"test": "failed: check: nginx answers 500", "publish": "skipped: needs test, which failed"}},
		},
		"a test that could not be made is a failure": {
			tasks: []Task{{ID: "test", Test: true, Do: fails(errBroken)}},
			want:  want{State: event.Failed, ExitCode: 1, First: "test", Tasks: map[string]string{"test": "failed: it broke"}},
		},
		"a failed region stops neither the others nor the run": {
			tasks: []Task{
				{ID: "east", Partial: true, Do: fails(errBroken)},
				{ID: "west", Partial: true, Do: ok()},
				{ID: "retain", Needs: []string{"east"}, Do: ok()},
			},
			want: want{State: event.Failed, ExitCode: 4, First: "east", Tasks: map[string]string{"east": "failed: it broke",
				"west": "done", "retain": "skipped: needs east, which failed"}},
		},
		"the gravest failure gives the exit code": {
			keepGoing: true,
			tasks: []Task{
				{ID: "east", Partial: true, Do: fails(errBroken)},
				{ID: "test", Test: true, Do: fails(test)},
				{ID: "a", Do: fails(errBroken)},
				{ID: "b", Do: fails(errBroken)},
			},
			want: want{State: event.Failed, ExitCode: 1, First: "a", Tasks: map[string]string{"east": "failed: it broke",
				"test": "failed: nginx answers 500", "a": "failed: it broke", "b": "failed: it broke"}},
		},
		"tests failed is graver than partly published": {
			keepGoing: true,
			tasks: []Task{
				{ID: "east", Partial: true, Do: fails(errBroken)},
				{ID: "test", Test: true, Do: fails(test)},
			},
			want: want{State: event.Failed, ExitCode: 3, First: "test", Tasks: map[string]string{"east": "failed: it broke",
				"test": "failed: nginx answers 500"}},
		},
		"a cache that can't be read": {
			tasks: []Task{{ID: "a", Key: "k", Do: ok(), Cached: func(context.Context) (step.Outputs, bool, error) { return nil, false, errBroken }}},
			want: want{State: event.Failed, ExitCode: 1, First: "a",
				Tasks: map[string]string{"a": "failed: look for an earlier result: it broke"}},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.Workers, f.KeepGoing = 1, tc.keepGoing
			res := f.run(t, tc.tasks...)
			got := want{res.State, res.ExitCode, res.First, endings(res)}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRunRefusesImpossibleGraphs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		tasks []Task
		want  string
	}{
		"no id":        {[]Task{{}}, "task 0 has no id"},
		"duplicate":    {[]Task{{ID: "a"}, {ID: "a"}}, `task "a" is there twice`},
		"unknown need": {[]Task{{ID: "a", Needs: []string{"b"}}}, `task "a" needs "b", which isn't there`},
		"itself":       {[]Task{{ID: "a", Needs: []string{"a"}}}, "tasks need each other: a needs a"},
		"cycle": {[]Task{{ID: "x", Needs: []string{"a"}}, {ID: "a", Needs: []string{"free", "b"}},
			{ID: "b", Needs: []string{"c"}}, {ID: "c", Needs: []string{"a"}}, {ID: "free"}},
			"tasks need each other: a needs b needs c needs a"},
		"nobody to release": {[]Task{{ID: "a", Holds: []string{"guest"}}}, `task "a" holds ["guest"], and no release is given`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			_, err := Run(t.Context(), tc.tasks, f.Options)
			if err == nil || err.Error() != "run r1: "+tc.want {
				t.Errorf("error = %v, want %q", err, "run r1: "+tc.want)
			}
			if len(f.events.all()) != 0 {
				t.Errorf("events of a run that didn't start: %v", f.events.all())
			}
		})
	}
}

func TestRunNeedsFoldersAndJournal(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), []Task{{ID: "a", Key: "k"}}, Options{Run: "r1"})
	for _, want := range []string{"no journal given", "no log folder given", "no lock folder given"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want it to say %q", err, want)
		}
	}
}

func TestOrderAndOutputs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 1
	var order []string
	task := func(id string, needs ...string) Task {
		return Task{ID: id, Needs: needs, Do: func(_ context.Context, a *Attempt) (step.Outputs, error) {
			order = append(order, id)
			for _, need := range needs {
				if got := a.Outputs(need)["id"]; got != need {
					t.Errorf("%s sees output %v of %s", id, got, need)
				}
			}
			if a.Outputs(id) != nil || a.Outputs("no such task") != nil {
				t.Errorf("%s sees outputs of tasks that aren't done", id)
			}
			return step.Outputs{"id": id}, nil
		}}
	}
	f.run(t, task("last", "b", "c", "a"), task("c"), task("a", "c"), task("b"))
	if diff := cmp.Diff([]string{"c", "a", "b", "last"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestWorkersBoundParallelism(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 3
	var now, most atomic.Int32
	var tasks []Task
	for i := range 12 {
		tasks = append(tasks, Task{ID: fmt.Sprint(i), Do: do(func(context.Context, *Attempt) error {
			n := now.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(10 * time.Millisecond)
			now.Add(-1)
			return nil
		})})
	}
	f.run(t, tasks...)
	if most.Load() != 3 {
		t.Errorf("%d tasks ran at once, want 3", most.Load())
	}
}

func TestRunningTasksFinishAfterFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 2
	failed := make(chan struct{})
	res := f.run(t,
		Task{ID: "slow", Do: do(func(ctx context.Context, _ *Attempt) error {
			<-failed
			time.Sleep(20 * time.Millisecond)
			return ctx.Err()
		})},
		Task{ID: "bad", Do: do(func(context.Context, *Attempt) error {
			close(failed)
			return errBroken
		})},
		Task{ID: "later", Needs: []string{"slow"}, Do: ok()},
	)
	want := map[string]string{"slow": "done", "bad": "failed: it broke", "later": "cancelled: not started, because bad failed"}
	if diff := cmp.Diff(want, endings(res)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 2
	ctx, cancel := context.WithCancelCause(t.Context())
	var wait sync.WaitGroup
	wait.Add(2)
	block := do(func(ctx context.Context, _ *Attempt) error {
		wait.Done()
		<-ctx.Done()
		return fmt.Errorf("apt-get: %w", ctx.Err())
	})
	go func() {
		wait.Wait()
		cancel(errors.New("interrupted by Ctrl-C"))
	}()
	res := f.runCtx(t, ctx,
		Task{ID: "a", Do: block, Attempts: 3},
		Task{ID: "finishes", Do: do(func(ctx context.Context, _ *Attempt) error {
			wait.Done()
			<-ctx.Done()
			return nil
		})},
		Task{ID: "b", Needs: []string{"a"}, Do: ok()},
		Task{ID: "never", Skip: "when is false"},
	)
	want := map[string]string{"a": "cancelled: interrupted by Ctrl-C", "finishes": "done",
		"b": "cancelled: interrupted by Ctrl-C", "never": "skipped: when is false"}
	if diff := cmp.Diff(want, endings(res)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if res.State != event.Cancelled || res.ExitCode != 130 || res.First != "" {
		t.Errorf("run ended %s with exit code %d, first %q; want cancelled, 130", res.State, res.ExitCode, res.First)
	}
	if err := res.Tasks["a"].Err; err == nil || err.Error() != "interrupted by Ctrl-C: apt-get: context canceled" {
		t.Errorf("error of a = %v", err)
	}
}

func TestInterruptIsGraverThanFailure(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 1
	ctx, cancel := context.WithCancel(t.Context())
	f.KeepGoing = true
	res := f.runCtx(t, ctx, Task{ID: "a", Do: fails(errBroken)}, Task{ID: "b", Do: do(func(ctx context.Context, _ *Attempt) error {
		cancel()
		return ctx.Err()
	})})
	if res.ExitCode != 130 || res.First != "a" {
		t.Errorf("exit code %d, first %q; want 130, and the failure named", res.ExitCode, res.First)
	}
}

func TestInterruptAfterTheEndIsNone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	res := f.runCtx(t, ctx, Task{ID: "a", Do: do(func(context.Context, *Attempt) error {
		cancel()
		return nil
	})})
	if res.State != event.Done || res.ExitCode != 0 {
		t.Errorf("run ended %s with %d, want done: all was", res.State, res.ExitCode)
	}
}

func TestPanicHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.KeepGoing = true
	var attempts int
	res := f.run(t,
		Task{ID: "bad", Attempts: 3, Do: do(func(context.Context, *Attempt) error {
			attempts++
			panic("index out of range")
		})},
		Task{ID: "badcache", Key: "k", Cached: func(context.Context) (step.Outputs, bool, error) { panic("no cache") }},
		Task{ID: "good", Do: ok()},
	)
	want := map[string]string{
		"bad":      "failed: panic: index out of range (this is a bug of gild or of the step)",
		"badcache": "failed: look for an earlier result: panic: no cache (this is a bug of gild or of the step)",
		"good":     "done",
	}
	if diff := cmp.Diff(want, endings(res)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if attempts != 1 {
		t.Errorf("%d attempts, want 1: a bug isn't mended by trying again", attempts)
	}
	for id, name := range map[string]string{"bad": "TestPanicHarmsNobodyElse.func1", "badcache": "TestPanicHarmsNobodyElse.func2"} {
		text, err := os.ReadFile(res.Tasks[id].LogPath)
		if err != nil || !strings.Contains(string(text), name) {
			t.Errorf("log of %s lacks the stack with %s: %v\n%s", id, name, err, text)
		}
	}
}

func TestHoldsAreReleasedOnce(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		first func(context.Context, *Attempt) (step.Outputs, error)
		err   error
		want  int
	}{
		"all done":        {first: ok(), want: 0},
		"first failed":    {first: fails(errBroken), want: 1},
		"release failed":  {first: ok(), err: errBroken, want: 5},
		"first panicked":  {first: do(func(context.Context, *Attempt) error { panic("x") }), want: 1},
		"first cancelled": {first: nil, want: 130},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.Workers = 1
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.first == nil {
				tc.first = do(func(ctx context.Context, _ *Attempt) error {
					cancel()
					return ctx.Err()
				})
			}
			var seen []string
			f.Release = func(ctx context.Context, name string) error {
				if ctx.Err() != nil {
					t.Errorf("release of %s with an ended context", name)
				}
				seen = append(seen, "release "+name)
				return tc.err
			}
			note := func(id string) func(context.Context, *Attempt) (step.Outputs, error) {
				return do(func(context.Context, *Attempt) error {
					seen = append(seen, id)
					return nil
				})
			}
			res := f.runCtx(t, ctx,
				Task{ID: "a", Holds: []string{"guest"}, Do: tc.first},
				Task{ID: "b", Needs: []string{"a"}, Holds: []string{"guest"}, Do: note("b")},
				Task{ID: "after", Needs: []string{"b"}, Do: note("after")})
			if res.ExitCode != tc.want {
				t.Errorf("exit code %d, want %d", res.ExitCode, tc.want)
			}
			want := []string{"release guest"}
			if tc.want == 0 || tc.want == 5 {
				want = []string{"b", "release guest", "after"}
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if tc.err != nil && (len(res.Leftovers) != 1 || res.Leftovers[0].Resource.ID != "guest") {
				t.Errorf("leftovers %v, want the guest", res.Leftovers)
			}
		})
	}
}

func TestEventsAndNodes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 1
	f.Now = func() time.Time { return time.Unix(100, 0) }
	f.Mask = NewMask("hunter22")
	res := f.run(t,
		Task{ID: "a", Title: "A", Key: "ka", Place: "web.yaml:3", Do: func(_ context.Context, a *Attempt) (step.Outputs, error) {
			fmt.Fprintln(a.Log, "password hunter22")
			a.Progress(1, 2, "bytes")
			return step.Outputs{"n": 1.0, "token": []any{map[string]any{"v": "hunter22"}}}, nil
		}},
		Task{ID: "b", Title: "B", Needs: []string{"a"}, Do: func(_ context.Context, a *Attempt) (step.Outputs, error) {
			fmt.Fprint(a.Log, "no newline")
			return nil, fmt.Errorf("set password hunter22: %w", &step.ExitError{Argv: []string{"chpasswd", "hunter22"}, Status: 7})
		}})
	if diff := cmp.Diff(map[string]string{"a": "done", "b": "failed: set password ***: chpasswd: exit status 7"}, endings(res)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if want := (step.Outputs{"n": 1.0, "token": []any{map[string]any{"v": "hunter22"}}}); !cmp.Equal(want, res.Tasks["a"].Outputs) {
		t.Errorf("outputs %v, want %v: the run itself needs the secret", res.Tasks["a"].Outputs, want)
	}
	code := 1
	logPath := func(id string) string { return f.LogDir + "/" + LogName(id) }
	want := []event.Event{
		{Kind: event.RunStarted, Graph: []event.Node{{ID: "a", Title: "A", Place: "web.yaml:3"}, {ID: "b", Title: "B", Needs: []string{"a"}}}},
		{Kind: event.NodeState, Node: "a", State: event.Running, Attempt: 1},
		{Kind: event.NodeLog, Node: "a", Stream: "stdout", Text: "password ***"},
		{Kind: event.NodeProgress, Node: "a", Attempt: 1, Done: 1, Total: 2, Unit: "bytes"},
		{Kind: event.NodeState, Node: "a", State: event.Done, Attempt: 1},
		{Kind: event.NodeState, Node: "b", State: event.Running, Attempt: 1},
		{Kind: event.NodeLog, Node: "b", Stream: "stdout", Text: "no newline"},
		{Kind: event.NodeState, Node: "b", State: event.Failed, Attempt: 1, Failure: &event.Failure{
			Error: "set password ***: chpasswd: exit status 7", Command: []string{"chpasswd", "***"}, ExitStatus: 7,
			Tail: []string{"no newline"}, LogPath: logPath("b")}},
		{Kind: event.RunFinished, State: event.Failed, ExitCode: &code},
	}
	for i := range want {
		want[i].V, want[i].Seq, want[i].Run, want[i].Time = 1, uint64(i+1), "r1", time.Unix(100, 0)
	}
	if diff := cmp.Diff(want, f.events.all()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	nodes, err := f.Journal.Nodes(t.Context(), "r1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range nodes {
		got = append(got, fmt.Sprintf("%s %s %s %d %v %q %s", n.ID, n.Key, n.State, n.Attempt, n.Outputs, n.Error, n.LogPath))
	}
	wantNodes := []string{
		`a ka done 1 map[n:1 token:[map[v:***]]] "" ` + logPath("a"),
		`b  failed 1 map[] "set password ***: chpasswd: exit status 7" ` + logPath("b"),
	}
	if diff := cmp.Diff(wantNodes, got); diff != "" {
		t.Errorf("journal nodes (-want +got):\n%s", diff)
	}
}

func TestSeqIsWithoutGapsUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var tasks []Task
	for i := range 20 {
		tasks = append(tasks, Task{ID: fmt.Sprint(i), Do: do(func(_ context.Context, a *Attempt) error {
			for line := range 50 {
				fmt.Fprintf(a.Log, "line %d\n", line)
			}
			return nil
		})})
	}
	f.run(t, tasks...)
	events := f.events.all()
	if !slices.IsSortedFunc(events, func(a, b event.Event) int { return int(a.Seq) - int(b.Seq) }) || events[len(events)-1].Seq != uint64(len(events)) {
		t.Errorf("sequence numbers of %d events aren't 1, 2, 3…", len(events))
	}
	for i := range 20 {
		if got := f.events.lines(fmt.Sprint(i)); len(got) != 50 || got[0] != "line 0" || got[49] != "line 49" {
			t.Errorf("task %d has lines %v", i, got)
		}
	}
}

// One task prints as fast as it can to a slow sink until another one, which prints too,
// is done.
func TestFloodDoesNotStarveOthers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Sink = slowSink{}
	quiet := make(chan struct{})
	f.run(t,
		Task{ID: "flood", Do: do(func(_ context.Context, a *Attempt) error {
			chunk := []byte(strings.Repeat("y\n", 1000))
			for range 20 {
				select {
				case <-quiet:
					return nil
				default:
				}
				if _, err := a.Log.Write(chunk); err != nil {
					return err
				}
			}
			t.Error("20,000 lines passed before ten of the other task")
			return nil
		})},
		Task{ID: "quiet", Do: do(func(_ context.Context, a *Attempt) error {
			defer close(quiet)
			for i := range 10 {
				fmt.Fprintln(a.Log, i)
			}
			return nil
		})})
}

type slowSink struct{}

func (slowSink) Emit(event.Event) { time.Sleep(100 * time.Microsecond) }

func TestBrokenJournalStopsTheRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Workers = 1
	res, err := Run(t.Context(), []Task{
		{ID: "a", Do: do(func(context.Context, *Attempt) error { return f.Journal.Close() })},
		{ID: "b", Do: ok()},
	}, f.Options)
	if err == nil || !strings.HasPrefix(err.Error(), "run r1: ") {
		t.Errorf("error = %v, want the journal's", err)
	}
	if res.ExitCode != 1 || res.State != event.Failed || res.Tasks["a"].State != event.Done {
		t.Errorf("run ended %s with %d, a %s; want failed, 1, and a done", res.State, res.ExitCode, res.Tasks["a"].State)
	}
	if b := res.Tasks["b"]; b.State != event.Cancelled || !strings.HasPrefix(b.Reason, "not started: ") {
		t.Errorf("b ended %s: %s; want it not started", b.State, b.Reason)
	}
}
