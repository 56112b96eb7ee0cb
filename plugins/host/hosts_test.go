package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/store"
)

// childHostEnv makes the test binary a gild that runs a step of the plugin whose digest it
// holds, until it is killed; its argument is the folder of store and host.
const childHostEnv = "GILD_TEST_HOST"

func serveHost() {
	if err := runHost(os.Args[1], os.Getenv(childHostEnv)); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// runHost prints the process ids of the plugin and of its child, and then waits.
func runHost(dir, digest string) error {
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	c, _, err := s.Find(digest)
	if err != nil {
		return err
	}
	h, err := New(Config{Dir: filepath.Join(dir, "plugins"), Store: s})
	if err != nil {
		return err
	}
	ctx := context.Background()
	steps, err := h.Steps(ctx, c)
	if err != nil {
		return err
	}
	target, _ := newTarget()
	for _, what := range []string{"pid", "child"} {
		out, err := steps[0].Run(ctx, target, do(what))
		if err != nil {
			return err
		}
		fmt.Println(out["text"])
	}
	target.Log = os.Stdout
	_, err = steps[0].Run(ctx, target, do("wait"))
	return err
}

// childHost is a gild of its own.
type childHost struct {
	cmd           *exec.Cmd
	plugin, child int
	out           *bufio.Scanner
}

// startHost starts a gild with a process group of its own, in the folder of h.
func startHost(t *testing.T, h *Host) *childHost {
	t.Helper()
	c := plugin{}.install(t, h.cfg.Store)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := &childHost{cmd: exec.Command(self, filepath.Dir(h.cfg.Dir))}
	child.cmd.Env = append(os.Environ(), childHostEnv+"="+c.Digest, "GORACE=atexit_sleep_ms=0")
	child.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	child.cmd.Stderr = os.Stderr
	stdout, err := child.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.end(t, syscall.SIGKILL)
		if _, err := h.Sweep(context.Background(), false); err != nil {
			t.Error(err)
		}
	})
	child.out = bufio.NewScanner(stdout)
	child.plugin, child.child = child.pid(t), child.pid(t)
	if !child.out.Scan() || child.out.Text() != "waiting" {
		t.Fatalf("the host says %q, not that its step runs", child.out.Text())
	}
	return child
}

func (c *childHost) pid(t *testing.T) int {
	t.Helper()
	c.out.Scan()
	pid, err := strconv.Atoi(c.out.Text())
	if err != nil || !alive(pid) {
		t.Fatalf("%q is no living process", c.out.Text())
	}
	return pid
}

// end signals the host and waits for its end.
func (c *childHost) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if c.cmd.ProcessState != nil {
		return
	}
	if err := c.cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
	// That it was killed is no news.
	_ = c.cmd.Wait()
}

// When gild is killed its plugins end; what they had started, and files, a sweep finds.
func TestHostIsKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	ctx := context.Background()
	dead, living := startHost(t, h), startHost(t, h)
	dead.end(t, syscall.SIGKILL)
	eventually(t, "the plugin has ended", func() bool { return !alive(dead.plugin) })
	if !alive(dead.child) {
		t.Fatal("the plugin's child has ended too, which makes the test one of nothing")
	}
	for _, dry := range []bool{true, false} {
		gone, err := h.Sweep(ctx, dry)
		if err != nil {
			t.Fatal(err)
		}
		want := []step.Resource{
			{Kind: "plugin process", ID: strconv.Itoa(dead.child), Note: "of a gild that was killed"},
			{Kind: "plugin files", ID: filepath.Join(h.cfg.Dir, runsDir, "*"), Note: "of a gild that was killed"},
		}
		if len(gone) == 2 {
			dir := gone[1].ID
			gone[1].ID = filepath.Join(filepath.Dir(dir), "*")
			if _, err := os.Stat(dir); os.IsNotExist(err) == dry {
				t.Errorf("after a sweep with dry %v the folder: %v", dry, err)
			}
			sockets := filepath.Join(os.TempDir(), "gild-"+filepath.Base(dir))
			if _, err := os.Stat(sockets); os.IsNotExist(err) == dry {
				t.Errorf("after a sweep with dry %v the folder for sockets: %v", dry, err)
			}
		}
		if diff := cmp.Diff(want, gone); diff != "" {
			t.Errorf("swept with dry %v (-want +got):\n%s", dry, diff)
		}
	}
	eventually(t, "the child has ended", func() bool { return !alive(dead.child) })
	if !alive(living.plugin) || !alive(living.child) {
		t.Error("the processes of a living gild were swept")
	}
	living.end(t, syscall.SIGKILL)
	if gone, err := h.Sweep(ctx, false); err != nil || len(gone) == 0 {
		t.Errorf("swept %v, %v; want what the second host left", gone, err)
	}
	if gone, err := h.Sweep(ctx, false); err != nil || len(gone) > 0 {
		t.Errorf("swept %v, %v; want nothing", gone, err)
	}
}

// A host in use is not swept, not even by itself; nor is there anything to sweep before
// there is a folder.
func TestSweepLeavesTheLiving(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	if gone, err := h.Sweep(context.Background(), false); err != nil || len(gone) > 0 {
		t.Errorf("swept %v, %v", gone, err)
	}
	s, _ := started(t, h, plugin{})
	if gone, err := h.Sweep(context.Background(), false); err != nil || len(gone) > 0 {
		t.Errorf("swept %v, %v", gone, err)
	}
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("echo")); err != nil {
		t.Error(err)
	}
}

// A link in the run folder that isn't the host's leads the sweep nowhere.
func TestSweepFollowsNoOtherLink(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	precious := filepath.Join(t.TempDir(), "precious")
	dir := filepath.Join(h.cfg.Dir, runsDir, "0123456789abcdef")
	for _, d := range []string{precious, dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(precious, filepath.Join(dir, socketsLink)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sweep(context.Background(), false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the run folder is left: %v", err)
	}
}

// Ctrl-C goes to gild's process group, which a plugin isn't in: gild decides what to do.
func TestInterruptDoesntReachThePlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	child := startHost(t, h)
	for _, pid := range []int{child.plugin, child.cmd.Process.Pid} {
		group, err := unix.Getpgid(pid)
		if err != nil || group != pid {
			t.Errorf("process %d is in group %d, %v; want its own", pid, group, err)
		}
	}
	// The host is kept from ending, which would end the plugin: what is tested is the signal.
	if err := unix.Kill(child.cmd.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// A Go plugin would ignore the signal; a stopped one would keep it pending.
	if err := unix.Kill(child.plugin, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{child.plugin, child.cmd.Process.Pid} {
		eventually(t, "the process is stopped", func() bool { return state(pid) == "T" })
	}
	if err := unix.Kill(-child.cmd.Process.Pid, unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	const interrupt = 1 << (unix.SIGINT - 1)
	eventually(t, "the host has the signal", func() bool { return pending(t, child.cmd.Process.Pid)&interrupt != 0 })
	if pending(t, child.plugin)&interrupt != 0 {
		t.Error("the plugin has the signal")
	}
	child.end(t, syscall.SIGKILL)
	eventually(t, "the plugin has ended", func() bool { return !alive(child.plugin) })
	if gone, err := h.Sweep(context.Background(), false); err != nil || len(gone) == 0 {
		t.Errorf("swept %v, %v; want what the host left", gone, err)
	}
}

// pending returns the set of signals that a process has yet to take.
func pending(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "ShdPnd:")
	set, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// The thread that started a plugin lives as long as the plugin: the kernel kills a process
// when the thread ends that it was told to watch.
func TestPluginOutlivesThreads(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	for range 50 {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // without an unlock, the thread ends with the goroutine
		}()
		<-ended
	}
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("echo")); err != nil || h.started != 1 {
		t.Errorf("%v, with %d processes started; want 1", err, h.started)
	}
}
