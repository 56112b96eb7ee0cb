package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/step"
)

const (
	// sendTimeout is how long the agent may take to take a command.
	sendTimeout = time.Minute
	// killGrace is how long a command that was told to end may take to be gone.
	killGrace = 20 * time.Second
	// inputPiece is how much input goes to the guest at once. Each piece costs the agent
	// two processes.
	inputPiece = 1 << 20
)

var (
	errRestarted = errors.New("the guest's test agent was restarted, which ended the command")
	errGone      = errors.New("the guest is gone")
)

// Exec runs a command in the guest, as root, in a session of its own. What it leaves
// running is killed when it ends, like all of it is when ctx ends: a daemon that is to
// stay is started through the guest's service manager. Names of variables are those a
// POSIX shell allows.
//
// A read of cmd.Stdin that is under way when the command ends is left to finish by itself.
func (g *Guest) Exec(ctx context.Context, cmd step.Cmd) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(cmd.Argv) == 0 {
		return errors.New("run a command in the guest: no program given")
	}
	status, err := g.agent.run(ctx, cmd, g.ended)
	if errors.Is(err, errGone) {
		err = g.endedBy
	}
	if err != nil {
		return fmt.Errorf("run %q in the guest: %w", cmd.Argv[0], err)
	}
	if status != 0 {
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return nil
}

// run runs one command. ended is closed when the guest is gone.
func (a *agent) run(ctx context.Context, c step.Cmd, ended <-chan struct{}) (status int, err error) {
	r, err := encode(c)
	if err != nil {
		return 0, err
	}
	select {
	case <-ended:
		return 0, errGone
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	default:
	}
	if a.broken != nil {
		return 0, a.broken
	}
	a.forget()
	a.last++
	x := &execution{
		agent: a, id: a.last, marker: rand.Text(),
		failed: make(chan error, 8), outputs: make(chan struct{}), inputOver: make(chan struct{}),
	}
	x.start(c)
	head := fmt.Sprintf("\nexec %s %d %s %d %d %s\n", a.currentSession(), x.id, x.marker, r.words, r.variables, r.input)
	if err := a.send(head + r.text); err != nil {
		err = fmt.Errorf("send the command: %w", err)
		return 0, errors.Join(err, x.abort(err))
	}
	return x.wait(ctx, ended)
}

func (a *agent) send(text string) error {
	if err := a.ports.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(a.ports.control, text)
	return err
}

// execution is one command that is running.
type execution struct {
	agent  *agent
	id     int
	marker string

	failed    chan error    // from copying input or output; has room for all there can be
	outputs   chan struct{} // closed when both outputs are complete
	inputOver chan struct{} // closed when no more input is sent

	inMu   sync.Mutex
	inOver bool
}

// start begins copying input and output.
func (x *execution) start(c step.Cmd) {
	var both sync.WaitGroup
	p := x.agent.ports
	both.Go(func() { x.copyOutput(c.Stdout, p.stdout) })
	both.Go(func() { x.copyOutput(c.Stderr, p.stderr) })
	go func() {
		both.Wait()
		close(x.outputs)
	}()
	if c.Stdin == nil {
		x.inOver = true
		close(x.inputOver)
		return
	}
	go x.feed(c.Stdin)
}

// wait returns when the command has ended and all that it wrote has been passed on.
func (x *execution) wait(ctx context.Context, ended <-chan struct{}) (status int, err error) {
	canceled, grace := ctx.Done(), (<-chan time.Time)(nil)
	outputs, exited, done, killed := x.outputs, false, false, true
	var stopped error // why the command was told to end
	stop := func(why error) {
		if stopped == nil {
			_, err := fmt.Fprintf(x.agent.ports.kill, "\nkill %d\n", x.id)
			stopped, killed, canceled, grace = errors.Join(why, err), false, nil, time.After(killGrace)
		}
	}
	for outputs != nil || !done || !killed {
		select {
		case m := <-x.agent.says:
			switch {
			case m.word == "hello":
				return 0, errors.Join(errRestarted, x.abort(nil))
			case m.word == "exit" && m.id == x.id && !exited:
				exited, status = true, m.status
				go x.endInput()
			case m.word == "done" && m.id == x.id:
				done = exited
			case m.word == "killed" && m.id == x.id:
				killed = true
			}
		case <-outputs:
			outputs = nil
		case err := <-x.failed:
			stop(err)
		case <-canceled:
			stop(context.Cause(ctx))
		case <-grace:
			err := fmt.Errorf("%w, and the guest didn't end the command within %s", stopped, killGrace)
			return 0, errors.Join(err, x.abort(err))
		case <-ended:
			return 0, errors.Join(errGone, x.abort(errGone))
		}
	}
	<-x.inputOver
	return status, stopped
}

// abort gives the command up. When broken isn't nil the agent isn't used again.
func (x *execution) abort(broken error) error {
	x.agent.broken = broken
	err := x.agent.setDeadlines(time.Unix(1, 0))
	<-x.outputs
	x.endInput()
	<-x.inputOver
	return errors.Join(err, x.agent.setDeadlines(time.Time{}))
}

// setDeadlines interrupts whoever is copying, or allows it again.
func (a *agent) setDeadlines(t time.Time) error {
	return errors.Join(a.ports.stdout.SetReadDeadline(t), a.ports.stderr.SetReadDeadline(t), a.ports.stdin.SetWriteDeadline(t))
}

// feed sends r to the command, piece by piece.
func (x *execution) feed(r io.Reader) {
	defer x.endInput()
	buf := make([]byte, inputPiece)
	for {
		n, err := r.Read(buf)
		if n > 0 && !x.sendInput(buf[:n]) {
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			x.failed <- fmt.Errorf("read the command's input: %w", err)
			return
		}
	}
}

// sendInput reports whether the command still takes input.
func (x *execution) sendInput(piece []byte) bool {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	if x.inOver {
		return false
	}
	head := fmt.Appendf(nil, "\nin %s %d\n", x.marker, len(piece))
	_, err := x.agent.ports.stdin.Write(append(head, piece...))
	if err != nil {
		x.failed <- fmt.Errorf("send the command's input: %w", err)
	}
	return err == nil
}

// endInput tells the agent that no more input comes. Calling it again does nothing.
func (x *execution) endInput() {
	x.inMu.Lock()
	defer x.inMu.Unlock()
	if x.inOver {
		return
	}
	x.inOver = true
	defer close(x.inputOver)
	if _, err := fmt.Fprintf(x.agent.ports.stdin, "\nin %s 0\n", x.marker); err != nil {
		x.failed <- fmt.Errorf("end the command's input: %w", err)
	}
}
