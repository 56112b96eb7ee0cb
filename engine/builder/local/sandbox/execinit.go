package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execSpec is what to run. It travels over the call's socket, so no secret in it is
// ever an argument or an environment variable of a process outside.
type execSpec struct {
	Argv []string
	// Env is the whole environment.
	Env []string
	Dir string
	// Resolver is the host's resolv.conf; nil when there is none or no network.
	Resolver []byte `json:",omitempty"`
}

// runExecInit is the first process of one command's process namespace. When it ends,
// the kernel ends everything the command has left behind.
func runExecInit() error {
	socket := os.NewFile(controlFD, "call")
	w := newWire(socket)
	var spec execSpec
	if err := w.receive(&spec); err != nil {
		return nil // cancelled before it began
	}
	pid, err := startCommand(spec)
	if err != nil {
		return w.send(failed(err))
	}
	go endWithCaller(w.dec.Buffered(), socket)
	status, err := reap(pid)
	if err != nil {
		return w.send(failed(err))
	}
	// A caller that is gone doesn't need the status.
	_ = w.send(reply{Status: status})
	return nil
}

// endWithCaller ends the process, and with it the command, when the caller closes the
// call, cancels it or dies.
func endWithCaller(buffered io.Reader, socket io.Reader) {
	// Whatever ends reading, nobody is waiting for the command any more.
	_, _ = io.Copy(io.Discard, io.MultiReader(buffered, socket))
	exit(0)
}

func startCommand(spec execSpec) (int, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("hide from tracing: %w", err)
	}
	if err := prepareExec(spec); err != nil {
		return 0, err
	}
	program, err := lookUp(spec)
	if err != nil {
		return 0, err
	}
	var pid int
	onThrowawayThread(func() {
		if err = confine(); err != nil {
			return
		}
		pid, err = syscall.ForkExec(program, spec.Argv, &syscall.ProcAttr{
			Dir:   spec.Dir,
			Env:   spec.Env,
			Files: []uintptr{0, 1, 2},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", spec.Argv[0], err)
	}
	return pid, nil
}

// onThrowawayThread runs f on a thread that ends with it, so that f may give up the
// thread's rights. It is never the first thread: that one can't end, and what is done
// to the process as a whole is decided by the rights it has.
func onThrowawayThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			onThrowawayThread(f) // while this thread is taken
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}

// prepareExec enters the tree, and makes what is private to one command: its /proc,
// network and limits.
func prepareExec(spec execSpec) error {
	ignoreSignals()
	err := enterTree(func() error { return errors.Join(mountProc(), protectProc()) })
	if err != nil {
		return err
	}
	if spec.Resolver != nil {
		if err := mountResolver(spec.Resolver); err != nil {
			return fmt.Errorf("mount resolv.conf: %w", err)
		}
	}
	if err := errors.Join(raiseLoopback(), limit()); err != nil {
		return err
	}
	unix.Umask(0o022)
	return nil
}

// ignoreSignals makes the process deaf to what the command could send it. Go's own
// handlers would end it. The default action would, too: the kernel spares the first
// process of a namespace only while its first thread blocks no signals.
//
// The command starts with every signal at its default, as Go resets those it handles.
// That is what Notify is for: it takes on those that the caller ignores.
func ignoreSignals() {
	signal.Notify(make(chan os.Signal, 1))
	const preempt, children = syscall.SIGURG, syscall.SIGCHLD // the runtime and reap need them
	var byDefault, ignore [4]uint64                           // struct sigaction with SIG_DFL, and with SIG_IGN
	ignore[0] = 1
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		action := &ignore
		if sig == preempt || sig == children {
			continue
		}
		if sig >= 32 && sig <= 34 {
			// libc's own. Go doesn't handle them, so it wouldn't reset them for the command
			// either, and make(1) starts what it runs with two of them ignored.
			action = &byDefault
		}
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(action)), 0, 8, 0, 0)
	}
}

// mountResolver mounts a file with the given content over resolv.conf. The file system
// it is in is never mounted where the command could see it.
func mountResolver(content []byte) error {
	if err := unix.Mount("tmpfs", "/proc", "tmpfs", nothingSpecial|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return err
	}
	err := os.WriteFile("/proc/resolv.conf", content, 0o644)
	file := -1
	if err == nil {
		file, err = unix.OpenTree(unix.AT_FDCWD, "/proc/resolv.conf", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	if err := errors.Join(err, unix.Unmount("/proc", unix.MNT_DETACH)); err != nil {
		return err
	}
	defer unix.Close(file)
	target, err := unix.Open(resolver, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return unix.MoveMount(file, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// raiseLoopback switches on the loopback device. In the host's network the call is
// refused, and the device is up anyway.
func raiseLoopback() error {
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("switch on the loopback device: %w", err)
	}
	defer unix.Close(sock)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP)
	err = unix.IoctlIfreq(sock, unix.SIOCSIFFLAGS, ifreq)
	if err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("switch on the loopback device: %w", err)
	}
	return nil
}

// limit sets resource limits that don't depend on who calls.
func limit() error {
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("limit core dumps: %w", err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit open files: %w", err)
	}
	// Some programs close every possible descriptor, which takes minutes when a caller
	// allows a thousand million.
	files.Max = min(files.Max, 524288)
	files.Cur = min(files.Max, 1024)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("limit open files: %w", err)
	}
	return nil
}

// lookUp finds the program in the PATH of the command, inside the tree.
func lookUp(spec execSpec) (string, error) {
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(pathOf(spec.Env), ":") {
		candidate := path.Join("/", dir, name)
		info, err := os.Stat(candidate)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("start %s: not found in the machine's PATH: %w", name, fs.ErrNotExist)
}

func pathOf(env []string) string {
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			return value
		}
	}
	return ""
}

// reap collects ended processes until the command itself ends, and returns its status.
func reap(pid int) (int, error) {
	for {
		var status syscall.WaitStatus
		var got int
		err := retry(func() (err error) {
			got, err = syscall.Wait4(-1, &status, 0, nil)
			return err
		})
		switch {
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case got != pid:
			continue
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}
