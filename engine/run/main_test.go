package run

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/step"
)

// helperEnv makes the test binary act as another gild process, see otherProcess.
const helperEnv = "GILD_RUN_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		if err := otherProcess(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// recorder keeps the events of a run.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) Emit(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// lines returns the log lines of a node.
func (r *recorder) lines(node string) []string {
	var lines []string
	for _, e := range r.all() {
		if e.Kind == event.NodeLog && e.Node == node {
			lines = append(lines, e.Text)
		}
	}
	return lines
}

// fixture is a state folder with a real journal, and options that use it.
type fixture struct {
	Options
	events *recorder
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	return fixtureIn(t, t.TempDir())
}

func fixtureIn(t testing.TB, dir string) fixture {
	t.Helper()
	j, err := journal.Open(t.Context(), filepath.Join(dir, "gild.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Errorf("close journal: %v", err)
		}
	})
	if err := j.StartRun(t.Context(), journal.Run{ID: "r1", State: event.Running, Started: time.Now(), PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	rec := &recorder{}
	return fixture{Options{Run: "r1", Workers: 4, Journal: j, Sink: rec,
		LogDir: filepath.Join(dir, "runs", "r1"), LockDir: filepath.Join(dir, "locks")}, rec}
}

func (f fixture) run(t testing.TB, tasks ...Task) Result {
	t.Helper()
	return f.runCtx(t, t.Context(), tasks...)
}

func (f fixture) runCtx(t testing.TB, ctx context.Context, tasks ...Task) Result {
	t.Helper()
	res, err := Run(ctx, tasks, f.Options)
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	return res
}

// do makes a task's function of a plain one.
func do(f func(ctx context.Context, a *Attempt) error) func(context.Context, *Attempt) (step.Outputs, error) {
	return func(ctx context.Context, a *Attempt) (step.Outputs, error) { return nil, f(ctx, a) }
}

// fails makes a task's function that only fails.
func fails(err error) func(context.Context, *Attempt) (step.Outputs, error) {
	return do(func(context.Context, *Attempt) error { return err })
}

// endings renders how tasks ended as "state: reason or error", by id.
func endings(res Result) map[string]string {
	got := map[string]string{}
	for id, t := range res.Tasks {
		text := string(t.State)
		switch {
		case t.State == event.Failed:
			text += ": " + t.Err.Error()
		case t.Reason != "":
			text += ": " + t.Reason
		}
		got[id] = text
	}
	return got
}

// otherProcess is a second gild: it runs one task that locks "shared work". If the work
// is done already, it says "cached"; else it says "working", and does it when it is told
// to by a line on stdin.
func otherProcess(dir, run string) error {
	ctx := context.Background()
	j, err := journal.Open(ctx, filepath.Join(dir, "gild.db"))
	if err != nil {
		return err
	}
	if err := j.StartRun(ctx, journal.Run{ID: run, State: event.Running, Started: time.Now(), PID: os.Getpid()}); err != nil {
		return err
	}
	result := filepath.Join(dir, "result")
	task := Task{ID: "work", Exclusive: "shared work",
		Cached: func(context.Context) (step.Outputs, bool, error) {
			_, err := os.Stat(result)
			return nil, err == nil, nil
		},
		Do: do(func(context.Context, *Attempt) error {
			fmt.Println("working")
			if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
				return err
			}
			return os.WriteFile(result, []byte(run), 0o600)
		})}
	res, err := Run(ctx, []Task{task}, Options{Run: run, Journal: j, LogDir: filepath.Join(dir, run), LockDir: filepath.Join(dir, "locks"), Sink: printReasons{}})
	if err != nil {
		return err
	}
	fmt.Println(res.Tasks["work"].State)
	return j.Close()
}

// printReasons prints the reasons of state changes.
type printReasons struct{}

func (printReasons) Emit(e event.Event) {
	if e.Reason != "" {
		fmt.Println(e.Reason)
	}
}

// process is a running otherProcess.
type process struct {
	*exec.Cmd
	in  *os.File
	out *bufio.Scanner
}

func startProcess(t *testing.T, dir, run string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, dir, run)
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	t.Cleanup(func() {
		ours.Close()
		// A test that failed half-way leaves the process; one that passed has ended it.
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &process{cmd, ours, bufio.NewScanner(out)}
}

// expect reads the next line.
func (p *process) expect(t *testing.T, want string) {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("process %d ended instead of saying %q: %v", p.Process.Pid, want, p.out.Err())
	}
	if got := strings.TrimSpace(p.out.Text()); got != want {
		t.Fatalf("process %d said %q, want %q", p.Process.Pid, got, want)
	}
}
