package procs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/plugins/internal/procs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a shell that has the mark in its environment, and waits until it has said
// something.
func start(t *testing.T, mark, script string) (*exec.Cmd, <-chan struct{}) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, dead, err := procs.Start(func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env, cmd.Stdout = []string{"PATH=/usr/bin:/bin", procs.RunEnv + "=" + mark}, w
		return cmd
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd, dead
}

func has(mark string) func(int) bool {
	return func(pid int) bool { return procs.Variable(pid, procs.RunEnv) == mark }
}

// What leaves its parent and its group is found by its mark, and what has another mark is
// left alone.
func TestKill(t *testing.T) {
	t.Parallel()
	cmd, dead := start(t, t.Name(), `setsid sh -c 'echo; exec sleep 600' & wait`)
	other, otherDead := start(t, t.Name()+"2", `echo; exec sleep 600`)
	found, err := procs.Find(has(t.Name()))
	if err != nil || len(found) != 2 || !slices.Contains(found, cmd.Process.Pid) || !slices.IsSorted(found) {
		t.Errorf("found %v, %v, want %d and its child", found, err, cmd.Process.Pid)
	}
	killed, err := procs.Kill(has(t.Name()))
	slices.Sort(killed)
	if d := cmp.Diff(found, killed); d != "" || err != nil {
		t.Errorf("killed (-want +got)\n%s%v", d, err)
	}
	<-dead
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("it ended with %v", err)
	}
	select {
	case <-otherDead:
		t.Error("the other one has ended too")
	default:
	}
	if err := other.Process.Kill(); err != nil {
		t.Error(err)
	}
	<-otherDead
	// Its status says that it was killed.
	_ = other.Wait()
	if killed, err := procs.Kill(has(t.Name())); len(killed) > 0 || err != nil {
		t.Errorf("with none left: %v, %v", killed, err)
	}
}

// A process that starts others while they are being killed doesn't win.
func TestKillForks(t *testing.T) {
	t.Parallel()
	cmd, dead := start(t, t.Name(), `echo; while :; do setsid sh -c 'sleep 600 & sleep 600' & sleep 0.01; done`)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if found, err := procs.Find(has(t.Name())); err != nil || time.Now().After(deadline) {
			t.Fatalf("it has started %v, %v", found, err)
		} else if len(found) > 5 {
			break
		}
	}
	if _, err := procs.Kill(has(t.Name())); err != nil {
		t.Error(err)
	}
	<-dead
	_ = cmd.Wait()
	if left, err := procs.Find(has(t.Name())); len(left) > 0 || err != nil {
		t.Errorf("%v are left, %v", left, err)
	}
}

// A program that can't be started leaves nothing to wait for; one that is still being
// written is tried again.
func TestStart(t *testing.T) {
	t.Parallel()
	if _, _, err := procs.Start(func() *exec.Cmd { return exec.Command("/nonexistent") }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that isn't there: %v", err)
	}
	busy := filepath.Join(t.TempDir(), "sh")
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(busy, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(program); err != nil {
		t.Fatal(err)
	}
	tries := 0
	cmd, dead, err := procs.Start(func() *exec.Cmd {
		if tries++; tries == 3 {
			f.Close()
		}
		return exec.Command(busy)
	})
	if err != nil || tries < 3 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	<-dead
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A process has a group of its own, and isn't collected before its Wait.
func TestGroup(t *testing.T) {
	t.Parallel()
	cmd, dead := start(t, t.Name(), `echo`)
	<-dead
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if d := cmp.Diff([]string{"Z", strconv.Itoa(cmd.Process.Pid)}, []string{fields[0], fields[2]}); d != "" {
		t.Errorf("state and group (-want +got)\n%s", d)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
