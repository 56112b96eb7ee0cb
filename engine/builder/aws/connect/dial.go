package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/gildhq/gild/engine/step"
)

// errNoForward is the error of a transport that can't carry connections.
var errNoForward = errors.New("the connection can't be forwarded")

// relayScript connects to the address $1, port $2, says "+", and copies both ways until the
// other side closes. bash has sockets, and is what every image with cloud tools has.
const relayScript = `exec 3<>"/dev/tcp/$1/$2" || exit 44
printf +
cat <&0 >&3 &
cat <&3
`

// Dial connects to a TCP port of the machine, from the machine itself: to the address
// [Instance.Private], or to its loopback. No security group has to let it in.
//
// Over SSH it is a forwarded connection. Where the server forbids that, and over Run
// Command, a command on the machine copies both ways. Over Run Command every exchange takes
// about a second or two and two API calls or more, which is enough to look at an HTTP
// answer or a banner and too slow for much else.
//
// When ctx ends, connections that were made stay. They end with Close of theirs.
func (m *Machine) Dial(ctx context.Context, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("connect to port %d of %s: ports are 1 to 65535", port, m.in.ID)
	}
	host := m.in.Private
	if host == "" {
		host = "127.0.0.1"
	}
	c, err := m.t.dial(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, errNoForward) {
		c, err = m.relay(ctx, host, port)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of %s: %w", port, m.in.ID, err)
	}
	return c, nil
}

// relay makes a connection out of a command.
func (m *Machine) relay(ctx context.Context, host string, port int) (net.Conn, error) {
	ours, theirs := net.Pipe()
	running, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c := &relayed{Conn: ours, cancel: func() { cancel(net.ErrClosed) }, ended: make(chan struct{})}
	ready := make(chan struct{})
	out := &afterPlus{w: theirs, ready: ready}
	complaint := &beginning{most: 1 << 10}
	var err error
	go func() {
		defer close(c.ended)
		err = m.exec(running, step.Cmd{
			Argv:  []string{"bash", "-c", relayScript, "bash", host, strconv.Itoa(port)},
			Stdin: theirs, Stdout: out, Stderr: complaint,
		}, true)
		theirs.Close()
	}()
	select {
	case <-ready:
		return c, nil
	case <-ctx.Done():
		c.Close()
		return nil, context.Cause(ctx)
	case <-c.ended:
		ours.Close()
		cancel(nil)
		return nil, relayError(err, complaint.String())
	}
}

// relayError says why a relay didn't come about.
func relayError(err error, complaint string) error {
	if _, why, ok := strings.Cut(complaint, "connect: "); ok {
		why, _, _ = strings.Cut(why, "\n")
		return errors.New(strings.ToLower(why))
	}
	if err == nil {
		err = errors.New("the connection ended at once")
	}
	return fmt.Errorf("%w: %q", err, strings.TrimSpace(complaint))
}

// relayed is a connection that a command carries.
type relayed struct {
	net.Conn
	cancel func()
	ended  chan struct{}
}

// Close ends the connection and the command.
func (r *relayed) Close() error {
	err := r.Conn.Close()
	r.cancel()
	<-r.ended
	return err
}

// afterPlus takes off the byte that says that the connection stands.
type afterPlus struct {
	w     io.Writer
	once  sync.Once
	ready chan struct{}
}

func (a *afterPlus) Write(p []byte) (int, error) {
	rest := p
	a.once.Do(func() {
		if len(p) > 0 {
			rest = p[1:]
			close(a.ready)
		}
	})
	if len(rest) == 0 {
		return len(p), nil
	}
	if _, err := a.w.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}
