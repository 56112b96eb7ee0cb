package adapter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/plugins/internal/procs"
)

// leftTime is how long output may still come once every process that could be found is dead.
const leftTime = 2 * time.Second

// program is what to start.
type program struct {
	path  string
	args  []string
	dir   string
	env   []string
	mark  string // the value of callEnv in env
	stdin []byte
	// grace is how long the program may go on once it was asked to end, unless kill comes
	// first.
	grace time.Duration
	kill  <-chan struct{}
}

// process is a started program with a process group of its own.
type process struct {
	program
	cmd            *exec.Cmd
	stdout, stderr *pipe
	done           chan struct{}

	mu sync.Mutex
	// reaped tells that the group's number may be another group's by now.
	reaped bool
}

func start(prog program) (*process, error) {
	in, err := memory(prog.stdin)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p := &process{program: prog, done: make(chan struct{})}
	out, errs, err := p.pipes()
	defer closeAll(out, errs)
	var dead <-chan struct{}
	if err == nil {
		p.cmd, dead, err = procs.Start(func() *exec.Cmd {
			cmd := exec.Command(prog.path, prog.args...)
			cmd.Dir, cmd.Env = prog.dir, prog.env
			cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
			return cmd
		})
	}
	if err != nil {
		return nil, errors.Join(explain(err), p.close())
	}
	go p.reap(dead)
	return p, nil
}

// memory returns a file that is on no disk: a request may have secrets in it.
func memory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("gild-request", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "request")
	_, err = f.Write(content)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// pipes makes the pipes for standard output and error, and returns the program's ends.
func (p *process) pipes() (out, errs *os.File, err error) {
	ours, out, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p.stdout = &pipe{f: ours}
	ours, errs, err = os.Pipe()
	if err != nil {
		return out, nil, err
	}
	p.stderr = &pipe{f: ours}
	return out, errs, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		// The program has it, or there is none: what this end's closing says is of no use.
		_ = f.Close()
	}
}

// reap waits for the program, and kills what is left of its group while the dead program
// still holds the group's number.
func (p *process) reap(dead <-chan struct{}) {
	defer close(p.done)
	<-dead
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	defer p.mu.Unlock()
	// How it ended is in its state.
	_ = p.cmd.Wait()
	p.reaped = true
}

// explain adds what most often is the cause.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: a script needs a first line such as #!/bin/sh", err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: it isn't there, or the interpreter that its first line names isn't", err)
	}
	return err
}

// end waits for the program; once ctx is done it is asked to end, and then killed. All it
// left running is killed. The status is 128 plus the signal that ended it, if one did.
func (p *process) end(ctx context.Context) (status int, err error) {
	select {
	case <-p.done:
	case <-ctx.Done():
		p.signal(syscall.SIGTERM)
		grace := time.NewTimer(p.grace)
		defer grace.Stop()
		select {
		case <-p.done:
		case <-grace.C:
		case <-p.kill:
		}
		p.signal(syscall.SIGKILL)
		<-p.done
	}
	_, err = procs.Kill(func(pid int) bool { return procs.Variable(pid, callEnv) == p.mark })
	p.stdout.last()
	p.stderr.last()
	ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return 128 + int(ws.Signal()), err
	}
	return ws.ExitStatus(), err
}

// signal sends a signal to the process group. That it is gone is what is wanted.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, s)
}

// close closes our ends of the pipes.
func (p *process) close() error {
	var errs []error
	for _, end := range []*pipe{p.stdout, p.stderr} {
		if end != nil {
			errs = append(errs, end.f.Close())
		}
	}
	return errors.Join(errs...)
}

// pipe is our end of a program's output.
type pipe struct {
	f     *os.File
	ended atomic.Bool
}

// last begins the time in which output may still come: a process that couldn't be found
// may hold the other end open for ever.
func (p *pipe) last() {
	p.ended.Store(true)
	// Pipes have deadlines.
	_ = p.f.SetReadDeadline(time.Now().Add(leftTime))
}

// Read implements io.Reader. What comes too late doesn't come.
func (p *pipe) Read(b []byte) (int, error) {
	if p.ended.Load() {
		_ = p.f.SetReadDeadline(time.Now().Add(leftTime))
	}
	n, err := p.f.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}

// copyTo copies what comes; the error is that of w.
func (p *pipe) copyTo(w io.Writer) (int64, error) { return io.Copy(w, onlyReader{p}) }

// drain lets the program go on writing when nobody listens any more.
func (p *pipe) drain() {
	// There is nothing left to do about an error.
	_, _ = io.Copy(io.Discard, onlyReader{p})
}

// onlyReader keeps io.Copy from looking for other methods.
type onlyReader struct{ io.Reader }
