package procs

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Start starts a command in a process group of its own. The kernel kills it when this
// process ends, however that ends. command makes it, more than once if need be.
//
// dead is closed when the command has ended. The caller then collects it with its Wait, and
// not before: until it is collected, the number of its group is no other group's.
func Start(command func() *exec.Cmd) (cmd *exec.Cmd, dead <-chan struct{}, err error) {
	started, ended := make(chan error), make(chan struct{})
	go func() {
		// Pdeathsig is about the thread that started a process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		cmd, err = start(command)
		started <- err
		if err == nil {
			awaitEnd(cmd.Process.Pid)
			close(ended)
		}
	}()
	err = <-started
	return cmd, ended, err
}

// start starts the command. While another goroutine forks, the new process holds the
// program open for writing for a moment, if it was being written just then; the kernel
// refuses to run such a file.
func start(command func() *exec.Cmd) (*exec.Cmd, error) {
	for try := 0; ; try++ {
		cmd := command()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		if !errors.Is(err, syscall.ETXTBSY) || try == 200 {
			return cmd, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// awaitEnd waits for the end of a child, and leaves it to be collected.
func awaitEnd(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
