package host

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A tree in which folders can't be written to is removed all the same.
func TestRemoveAll(t *testing.T) {
	t.Parallel()
	top, err := os.MkdirTemp("", "gild-test-") // t.TempDir is in a folder that only root may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	dir := filepath.Join(top, "tree")
	locked := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(locked, "file"), 0o400, "")
	done := make(chan error)
	go func() {
		// Nothing holds up root, so this thread is another user as far as files go. It ends
		// with the goroutine.
		runtime.LockOSThread()
		const nobody = 65534
		for _, path := range []string{top, dir, filepath.Dir(locked), locked} {
			if err := os.Chown(path, nobody, -1); err != nil {
				done <- err
				return
			}
		}
		for _, path := range []string{locked, filepath.Dir(locked)} {
			if err := os.Chmod(path, 0o500); err != nil {
				done <- err
				return
			}
		}
		unix.Setfsuid(nobody)
		if os.RemoveAll(dir) == nil {
			t.Error("the tree is one that os.RemoveAll can remove, which makes the test one of nothing")
		}
		done <- removeAll(dir)
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}

// A description that was being written when gild was killed is swept; one that is being
// written is not.
func TestSweepDescriptions(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	dir := filepath.Join(h.cfg.Dir, describedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kept, dead, live := filepath.Join(dir, "abc"), filepath.Join(dir, ".abc-1"), filepath.Join(dir, ".abc-2")
	for _, path := range []string{kept, dead, live} {
		write(t, path, 0o600, "")
	}
	f, err := os.Open(live)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sweep(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	if got := strings.Join(names, " "); got != ".abc-2 abc" || err != nil {
		t.Errorf("left: %s, %v; want .abc-2 abc", got, err)
	}
}
