package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// path is where programs are looked for, on the host and in machines.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// kept are the capabilities of commands. None lets them change mounts, devices or the
// host's kernel.
const kept = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+sys_chroot,+setfcap"

// holdsOn is how long output is waited for after a command has ended, when something it
// left running still holds its streams.
const holdsOn = time.Second

// exec starts a command in the machine. wait returns how it ended.
func (b *boot) exec(ctx context.Context, c step.Cmd) (wait func() error, err error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("it has no program")
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(b.pid()), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
		"env", "--chdir="+dir, "setpriv", "--bounding-set="+kept, "--inh-caps=-all", "--")
	cmd.Args = append(cmd.Args, c.Argv...)
	env := map[string]string{"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}
	maps.Copy(env, c.Env)
	cmd.Env = []string{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.WaitDelay = holdsOn
	// The command is a child of nsenter, and in its process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := b.group.start(cmd); err != nil {
		return nil, err
	}
	return func() error { return b.result(ctx, c, cmd) }, nil
}

// errOff is the error of a command whose machine was switched off under it.
var errOff = errors.New("the machine went off")

func (b *boot) result(ctx context.Context, c step.Cmd, cmd *exec.Cmd) error {
	err := cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("run %s: %w", c.Argv[0], context.Cause(ctx))
	case !errors.As(err, &exit):
		return fmt.Errorf("run %s: %w", c.Argv[0], err)
	}
	status := exit.Sys().(syscall.WaitStatus)
	if !status.Signaled() {
		return &step.ExitError{Argv: c.Argv, Status: status.ExitStatus()}
	}
	if status.Signal() == syscall.SIGKILL {
		// When the machine ends, its commands do a moment earlier.
		select {
		case <-b.ended:
			return fmt.Errorf("run %s: %w", c.Argv[0], errOff)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return &step.ExitError{Argv: c.Argv, Status: 128 + int(status.Signal())}
}
