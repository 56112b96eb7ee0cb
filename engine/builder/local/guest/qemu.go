package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The descriptors QEMU inherits, from 3 on: one end each of a socket pair. There is no
// socket in the file system that another process could find.
var channels = []string{"qmp", "serial", "control", "kill", "stdin", "stdout", "stderr"}

// agentChannels are those that the guest sees as virtio-serial ports.
var agentChannels = channels[2:]

// ports are the host's ends of the agent's channels.
type ports struct {
	control, kill, stdin, stdout, stderr net.Conn
}

// qemu is a running QEMU.
type qemu struct {
	cmd     *exec.Cmd
	started time.Time
	near    []net.Conn // the host's ends of all channels
	qmp     *qmp
	serial  net.Conn
	ports   ports
	stderr  lastBytes

	done chan struct{} // closed when the process is gone and waited for
	err  error         // how it ended; set before done is closed
}

// hardware is what differs between a throw-away guest and a [Machine].
type hardware struct {
	// args are QEMU's, for disks and network.
	args []string
	// ports begins the names of the agent's ports.
	ports string
	// files are inherited after the channels, from the descriptor firstFile on.
	files []*os.File
}

// firstFile follows the channels.
var firstFile = 3 + len(channels)

// startQEMU starts the machine, with c.Dir as its working folder.
func startQEMU(c Config, m machine, h hardware) (*qemu, error) {
	near, far, err := connect()
	if err != nil {
		return nil, fmt.Errorf("connect to QEMU: %w", err)
	}
	q := &qemu{
		cmd: exec.Command(m.binary, m.arguments(c, h)...), near: near, serial: near[1],
		ports: ports{near[2], near[3], near[4], near[5], near[6]}, done: make(chan struct{}),
	}
	if q.qmp, err = newQMP(near[0]); err != nil {
		return nil, errors.Join(err, closeAll(far), q.close())
	}
	q.cmd.Dir, q.cmd.Env, q.cmd.ExtraFiles, q.cmd.Stderr = c.Dir, toolEnv(), slices.Concat(far, h.files), &q.stderr
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	q.cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go q.run(started, c.MemoryMiB)
	if err := errors.Join(<-started, closeAll(far)); err != nil {
		return nil, errors.Join(fmt.Errorf("start QEMU: %w", err), q.close())
	}
	return q, nil
}

// connect makes a socket pair for each channel.
func connect() (near []net.Conn, far []*os.File, err error) {
	for _, name := range channels {
		conn, file, err := socketPair(name)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(near), closeAll(far))
		}
		near, far = append(near, conn), append(far, file)
	}
	return near, far, nil
}

// close closes the host's ends of all channels.
func (q *qemu) close() error { return closeAll(q.near) }

func closeAll[C io.Closer](closers []C) error {
	var errs []error
	for _, c := range closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// run starts the process and waits for it, all on one thread: the kernel kills QEMU when
// the thread that started it ends.
func (q *qemu) run(started chan<- error, memoryMiB int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	q.started = time.Now()
	if err := q.cmd.Start(); err != nil {
		started <- err
		return
	}
	err := limit(q.cmd.Process.Pid, memoryMiB)
	if err != nil {
		q.kill()
	}
	started <- err
	q.err = q.cmd.Wait()
	close(q.done)
}

// slackMiB is what QEMU may use besides the guest's memory; 1.6 GiB of address space
// were seen, most of it for translated code and threads.
const slackMiB = 4096

// limit bounds what a guest that has taken over QEMU could use up.
func limit(pid, memoryMiB int) error {
	space := uint64(memoryMiB+slackMiB) << 20
	if err := unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: space, Max: space}, nil); err != nil {
		return fmt.Errorf("limit its memory: %w", err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}

// kill ends the process; done tells when it is gone.
func (q *qemu) kill() {
	// The only error is that it has already ended.
	_ = q.cmd.Process.Kill()
}

// crash describes a QEMU that didn't end by itself in an orderly way.
func (q *qemu) crash() error {
	if said := strings.TrimSpace(q.stderr.String()); said != "" {
		return fmt.Errorf("QEMU ended with %w: %s", q.err, said)
	}
	return fmt.Errorf("QEMU ended with %w", q.err)
}

// socketPair returns the host's end and the end for QEMU.
func socketPair(name string) (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(near)
	if err = errors.Join(err, near.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return conn, far, nil
}

// throwAway is the hardware of a guest on its own copy of a disk.
func throwAway() hardware {
	return hardware{ports: defaultPorts, args: []string{
		"-no-reboot",
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file=" + diskName,
		"-device", "virtio-blk-pci,drive=disk,bootindex=1",
		// Without a ROM the firmware doesn't try to boot from the network.
		"-netdev", "user,id=" + netdevID + ",restrict=on",
		"-device", "virtio-net-pci,netdev=" + netdevID + ",romfile=",
	}}
}

// defaultPorts is what agent.sh assumes.
const defaultPorts = "gild"

// arguments are QEMU's.
func (m machine) arguments(c Config, h hardware) []string {
	args := []string{
		"-name", processName(c.Token),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-m", strconv.Itoa(c.MemoryMiB), "-smp", strconv.Itoa(c.CPUs),
	}
	args = append(args, h.args...)
	args = append(args,
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=serial,fd=4", "-serial", "chardev:serial",
		"-device", "virtio-serial-pci",
	)
	for i, name := range agentChannels {
		args = append(args, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", name, 5+i),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s.%s", name, h.ports, name))
	}
	return append(args, m.args...)
}

// lastBytes is a writer that keeps the end of what is written to it.
type lastBytes struct {
	mu  sync.Mutex
	buf []byte
}

const lastBytesKept = 2 << 10

// Write never fails.
func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	l.buf = l.buf[max(0, len(l.buf)-lastBytesKept):]
	return len(p), nil
}

// String returns what is kept.
func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}
