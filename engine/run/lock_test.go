package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

func TestTwoProcessesWorkOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startProcess(t, dir, "first")
	first.expect(t, "working")
	second := startProcess(t, dir, "second")
	second.expect(t, fmt.Sprintf("waiting for another gild (pid %d)", first.Process.Pid))
	if _, err := first.in.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	first.expect(t, "done")
	second.expect(t, "cached")
	for _, p := range []*process{first, second} {
		if err := p.Wait(); err != nil {
			t.Errorf("process: %v", err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "result"))
	if err != nil || string(got) != "first" {
		t.Errorf("result = %q, %v; want it of the first process", got, err)
	}
	assertEmpty(t, filepath.Join(dir, "locks"))
}

func TestKilledHolderFreesLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := startProcess(t, dir, "first")
	first.expect(t, "working")
	second := startProcess(t, dir, "second")
	second.expect(t, fmt.Sprintf("waiting for another gild (pid %d)", first.Process.Pid))
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second.expect(t, "working")
	if _, err := second.in.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	second.expect(t, "done")
	if err := second.Wait(); err != nil {
		t.Errorf("second process: %v", err)
	}
	if err := first.Wait(); err == nil {
		t.Error("first process ended well, want it killed")
	}
	assertEmpty(t, filepath.Join(dir, "locks"))
}

func assertEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in %s: %v, %v; want nothing", dir, left, err)
	}
}

func TestSameKeyInOneRunWorksOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	// The lock is the kernel's, which the race detector doesn't see.
	var mu sync.Mutex
	var done []string
	work := func(id string) Task {
		return Task{ID: id, Key: "k",
			Cached: func(context.Context) (step.Outputs, bool, error) {
				mu.Lock()
				defer mu.Unlock()
				return nil, len(done) > 0, nil
			},
			Do: func(context.Context, *Attempt) (step.Outputs, error) {
				time.Sleep(20 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				done = append(done, id)
				return nil, nil
			}}
	}
	res := f.run(t, work("a"), work("b"), work("c"))
	states := map[event.State]int{}
	for _, task := range res.Tasks {
		states[task.State]++
	}
	if diff := cmp.Diff(map[event.State]int{event.Done: 1, event.Cached: 2}, states); diff != "" || len(done) != 1 {
		t.Errorf("done by %v; states (-want +got):\n%s", done, diff)
	}
	assertEmpty(t, f.LockDir)
}

func TestWaitForLockEndsWithContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if err := os.MkdirAll(f.LockDir, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := lock(t.Context(), f.LockDir, "k", func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(30*time.Millisecond, func() { cancel(errors.New("interrupted by Ctrl-C")) })
	res := f.runCtx(t, ctx, Task{ID: "a", Key: "k"})
	if diff := cmp.Diff(map[string]string{"a": "cancelled: interrupted by Ctrl-C"}, endings(res)); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
	if err := held.unlock(); err != nil {
		t.Error(err)
	}
}

// The holder removes the file when it is done; one who opened it before must not take a
// lock on the removed file for the lock.
func TestLockExcludesWhileFilesComeAndGo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.lock")
	var holders, taken atomic.Int32
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for taken.Load() < 200 {
				l, err := tryLock(path)
				if err != nil {
					t.Error(err)
					return
				}
				if l == nil {
					continue
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold the lock at once", n)
				}
				runtime.Gosched()
				holders.Add(-1)
				taken.Add(1)
				if err := l.unlock(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
