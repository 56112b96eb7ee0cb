package sandboxtest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

//go:embed boot.sh
var bootScript string

// boot is one run of a machine: its first process, and the cgroup of all of them.
type boot struct {
	cmd   *exec.Cmd
	group group
	life  *os.File // its first process ends when this is closed, also by our own end
	ended chan struct{}
}

// bootWithin is how long a machine may take to be up; it takes a few hundredths of a second.
const bootWithin = 30 * time.Second

// newBoot starts a machine on a tree, and returns when commands can be run in it. work is a
// folder beside the tree for the kernel's own use.
func newBoot(ctx context.Context, tree, work string, console io.Writer) (*boot, error) {
	theirLife, life, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	up, theirUp, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, life.Close(), theirLife.Close())
	}
	defer up.Close()
	b := &boot{life: life, ended: make(chan struct{})}
	b.group, err = newGroup()
	if err == nil {
		b.cmd = exec.Command("unshare", "--cgroup", "/bin/sh", "-c", bootScript, "sh", tree, work)
		b.cmd.Env = []string{"PATH=" + path}
		b.cmd.ExtraFiles = []*os.File{theirLife, theirUp}
		b.cmd.Stdout, b.cmd.Stderr = console, console
		b.cmd.SysProcAttr = &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		}
		err = b.group.start(b.cmd)
		if err != nil {
			err = errors.Join(err, b.group.remove())
		}
	}
	theirLife.Close()
	theirUp.Close()
	if err != nil {
		return nil, errors.Join(err, life.Close())
	}
	go b.wait()
	if err := b.awaitUp(ctx, up); err != nil {
		return nil, errors.Join(err, b.end())
	}
	return b, nil
}

// wait collects the first process, which the kernel lets go once all others are gone.
func (b *boot) wait() {
	// How it ended doesn't matter: it may be killed, and may end by itself.
	_ = b.cmd.Wait()
	close(b.ended)
}

func (b *boot) awaitUp(ctx context.Context, up *os.File) error {
	stop := context.AfterFunc(ctx, func() { up.SetReadDeadline(time.Now()) })
	defer stop()
	if err := up.SetReadDeadline(time.Now().Add(bootWithin)); err != nil {
		return err
	}
	said, err := io.ReadAll(up)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("it isn't up after %s: %w", bootWithin, err)
	case strings.TrimSpace(string(said)) != "up":
		<-b.ended
		return fmt.Errorf("it went off while booting (%v): %s", b.cmd.ProcessState, b.cmd.Stderr)
	}
	return nil
}

// pid is the host's number of its first process.
func (b *boot) pid() int { return b.cmd.Process.Pid }

// end ends all of its processes. Doing it again changes nothing.
func (b *boot) end() error {
	err := b.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if err == nil {
		<-b.ended
	}
	b.life.Close()
	return errors.Join(err, b.group.remove())
}
