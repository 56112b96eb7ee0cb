package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/plugins/internal/procs"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// program is one process of a plugin. It implements go-plugin's runner.Runner, because
// go-plugin's own runner gives the process gild's standard input, knows nothing of the
// process's children, and waits for ever for a pipe that one of them holds open.
//
// go-plugin's SecureConfig doesn't go with a runner of one's own, and isn't missed: it
// hashes a file by its name and then starts what has that name. What is started here was
// hashed while it was written, into a folder that nobody else can write to.
type program struct {
	argv   []string
	seat   seat
	limits manifest.Limits
	allow  []string // names of gild's variables
	tick   time.Duration
	said   *output

	env            []string // from go-plugin
	begun          bool     // Start was called
	stdout, stderr *os.File
	endOut, endErr func() // tell that a pipe was read to its end
	handshake      handshake
	pid            int
	dead           <-chan struct{} // closed when the process has ended; set by Start
	exited         chan struct{}   // closed when all it started is gone too, and its output read
	err            error           // of the start; set when exited is closed
	state          *os.ProcessState

	mu     sync.Mutex
	reaped bool
	fate   error // why gild killed it
}

// Start implements runner.Runner.
func (p *program) Start(context.Context) error {
	p.begun = true
	outR, outW, err := os.Pipe()
	if err != nil {
		return p.failed(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return p.failed(errors.Join(err, outR.Close(), outW.Close()))
	}
	p.stdout, p.stderr = outR, errR
	p.endOut, p.endErr = p.said.reader(), p.said.reader()
	p.handshake.init()
	cmd, dead, err := procs.Start(func() *exec.Cmd { return p.command(outW, errW) })
	err = errors.Join(err, outW.Close(), errW.Close())
	if err != nil {
		return p.failed(errors.Join(err, outR.Close(), errR.Close()))
	}
	p.dead = dead
	p.mu.Lock()
	p.pid = cmd.Process.Pid
	p.mu.Unlock()
	if err := p.limit(); err != nil || p.condemned() {
		p.kill(err)
	}
	go p.reap(cmd)
	go p.watchMemory()
	go p.readStdout()
	return nil
}

func (p *program) failed(err error) error {
	p.err = err
	close(p.exited)
	return err
}

// reap waits for the end of the process, and ends what it leaves behind.
func (p *program) reap(cmd *exec.Cmd) {
	<-p.dead
	// The process isn't reaped yet, so its group can't be another's.
	p.kill(nil)
	_, left := procs.Kill(p.seat.holds)
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	p.err = errors.Join(left, waitError(cmd.Wait()))
	p.state = cmd.ProcessState
	// What is in the pipes is still read; then they end, even if somebody holds the other end.
	until := time.Now().Add(time.Second)
	p.err = errors.Join(p.err, p.stdout.SetReadDeadline(until), p.stderr.SetReadDeadline(until))
	p.said.wait()
	p.err = errors.Join(p.err, p.stdout.Close(), p.stderr.Close())
	close(p.exited)
}

func (p *program) command(stdout, stderr *os.File) *exec.Cmd {
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir = p.seat.content
	cmd.Env = p.environment()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd
}

// environment is all that the process sees. Later entries win.
func (p *program) environment() []string {
	var env []string
	for _, name := range p.allow {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	env = append(env,
		pluginv1.ParentEnv+"="+strconv.Itoa(os.Getpid()),
		procs.RunEnv+"="+p.seat.token,
		"TMPDIR="+p.seat.temp)
	return append(env, p.env...)
}

// limit bounds what the process may use.
func (p *program) limit() error {
	limits := map[int]uint64{unix.RLIMIT_NOFILE: uint64(p.limits.Files), unix.RLIMIT_CORE: 0}
	for resource, limit := range limits {
		var was unix.Rlimit
		err := unix.Prlimit(p.pid, resource, nil, &was)
		if err == nil {
			limit = min(limit, was.Max)
			err = unix.Prlimit(p.pid, resource, &unix.Rlimit{Cur: limit, Max: limit}, nil)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("limit its resources: %w", err)
		}
	}
	return nil
}

// waitError leaves out what a status says.
func waitError(err error) error {
	var status *exec.ExitError
	if errors.As(err, &status) {
		return nil
	}
	return err
}

// kill ends the process and its group. The first reason is kept as its fate.
func (p *program) kill(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if p.fate == nil {
		p.fate = why
	}
	if p.pid == 0 {
		return // Start does it
	}
	// The errors are that there is none any more. A process may have left its group.
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	_ = unix.Kill(p.pid, unix.SIGKILL)
}

// abandon ends a process that could not be connected to, if there is one, and waits for its end.
func (p *program) abandon() {
	if p.begun {
		p.kill(errNotStarted)
		<-p.exited
	}
}

// condemned tells that gild has killed the process.
func (p *program) condemned() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fate != nil
}

// ended tells how the process ended. Called when exited is closed.
func (p *program) ended() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return fmt.Sprintf("its process could not be waited for: %v", p.err)
	}
	status, _ := p.state.Sys().(syscall.WaitStatus)
	switch {
	case !status.Signaled():
		return fmt.Sprintf("its process exited with status %d", status.ExitStatus())
	case status.Signal() == syscall.SIGKILL && p.fate != nil:
		return fmt.Sprintf("its process was killed: %v", p.fate)
	case status.Signal() == syscall.SIGKILL:
		return "its process was killed from outside (SIGKILL), which the kernel does when memory runs out"
	}
	return fmt.Sprintf("its process was ended by %s (%v)", unix.SignalName(status.Signal()), status.Signal())
}

// killedFor tells that gild killed the process for this reason. Called when exited is closed.
func (p *program) killedFor(why error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == nil {
		return false
	}
	status, _ := p.state.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL && errors.Is(p.fate, why)
}

// over tells that the process has ended.
func (p *program) over() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// Wait implements runner.AttachedRunner.
func (p *program) Wait(context.Context) error {
	<-p.exited
	return p.err
}

// Kill implements runner.AttachedRunner. go-plugin calls it when a start fails.
func (p *program) Kill(context.Context) error {
	p.kill(errNotStarted)
	return nil
}

// Stdout implements runner.Runner: it yields nothing but the handshake.
func (p *program) Stdout() io.ReadCloser { return p.handshake.r }

// Stderr implements runner.Runner.
func (p *program) Stderr() io.ReadCloser { return &untilEnd{File: p.stderr, end: p.endErr} }

// Name implements runner.Runner.
func (p *program) Name() string { return p.argv[0] }

// ID implements runner.AttachedRunner.
func (p *program) ID() string { return strconv.Itoa(p.pid) }

// Diagnose implements runner.Runner. The host has its own words.
func (p *program) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator.
func (p *program) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" {
		return "", "", fmt.Errorf("it listens on %s, not on a unix socket", network)
	}
	if inside, err := filepath.Rel(p.seat.sockets, address); err != nil || !filepath.IsLocal(inside) {
		return "", "", fmt.Errorf("its socket %q is not in the folder that PLUGIN_UNIX_SOCKET_DIR names", address)
	}
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (p *program) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// untilEnd tells when a pipe was read to its end.
type untilEnd struct {
	*os.File
	end func()
}

func (u *untilEnd) Read(b []byte) (int, error) {
	n, err := u.File.Read(b)
	if err != nil {
		u.end()
		// Closed or out of time is an end too: the process is gone.
		err = io.EOF
	}
	return n, err
}

// Close does nothing: the pipe is closed with the process.
func (u *untilEnd) Close() error { return nil }

// commandOf is the command of a plugin whose content lies in dir.
func commandOf(m manifest.Manifest, self []string, dir string) ([]string, error) {
	if m.Exec != nil {
		if len(self) == 0 {
			return nil, errors.New("this gild can't run plugins of kind exec")
		}
		return append(append([]string{}, self...), dir), nil
	}
	if len(m.Command) == 0 || !filepath.IsLocal(m.Command[0]) {
		return nil, fmt.Errorf("its command %q is no program in its folder", strings.Join(m.Command, " "))
	}
	return append([]string{filepath.Join(dir, m.Command[0])}, m.Command[1:]...), nil
}
