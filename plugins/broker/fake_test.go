package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// sink is a machine without a system: it takes content and throws it away, and answers
// every command at once. It counts what works on it.
type sink struct {
	busy, most atomic.Int32
	bytes      atomic.Int64
}

func (s *sink) enter() func() {
	n := s.busy.Add(1)
	for {
		most := s.most.Load()
		if n <= most || s.most.CompareAndSwap(most, n) {
			return func() { s.busy.Add(-1) }
		}
	}
}

// Exec copies the command's input to its output. A command named "wait" waits for ctx.
func (s *sink) Exec(ctx context.Context, cmd step.Cmd) error {
	defer s.enter()()
	if cmd.Argv[0] == "wait" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	_, err := io.Copy(cmd.Stdout, cmd.Stdin)
	return err
}

func (s *sink) Put(_ context.Context, _ step.PutFile, r io.Reader) error {
	defer s.enter()()
	n, err := io.Copy(io.Discard, r)
	s.bytes.Add(n)
	return err
}

// Get never ends.
func (s *sink) Get(_ context.Context, _ string, w io.Writer) error {
	defer s.enter()()
	for {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
}

func (s *sink) Facts(context.Context) (step.Facts, error) { return step.Facts{OS: "none"}, nil }

// sinkGuest has the ports of a dialer.
type sinkGuest struct {
	*sink
	dial    func(ctx context.Context, port int) (net.Conn, error)
	console string
}

func (g sinkGuest) PoweredOn() time.Time { return time.Unix(1_790_000_000, 0) }

func (g sinkGuest) Dial(ctx context.Context, port int) (net.Conn, error) { return g.dial(ctx, port) }

func (g sinkGuest) Console() string { return g.console }

// newTarget returns a target on a machine, whose claims are refused when their kind is "refused".
func newTarget(m step.MachineHandle) *step.Target {
	return &step.Target{
		Machine: m, Log: io.Discard,
		Inputs: map[string]step.Input{},
		Claim: func(_ context.Context, r step.Resource) (func(context.Context) error, error) {
			if r.Kind == "refused" {
				return nil, errors.New("the journal is full")
			}
			return func(context.Context) error {
				if r.Kind == "unsettled" {
					return errors.New("the journal is gone")
				}
				return nil
			}, nil
		},
	}
}

// serve is open with what is needed to open more tokens.
func serve(t testing.TB) *Server {
	t.Helper()
	server, err := Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func connect(t testing.TB, server *Server, token string) *Client {
	t.Helper()
	client, err := Dial(server.Address(), token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// within fails the test when f takes too long.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	var once sync.Once
	done := make(chan struct{})
	go func() {
		defer once.Do(func() { close(done) })
		f()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s takes too long", what)
	}
}
