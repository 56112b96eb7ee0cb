package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

func TestToken(t *testing.T) {
	t.Parallel()
	server := serve(t)
	token, end := server.Open(newTarget(&sink{}))
	defer end()
	endedToken, endNow := server.Open(newTarget(&sink{}))
	endNow()
	endNow()
	for name, tc := range map[string]struct {
		token string
		more  []string
		want  codes.Code
	}{
		"right":   {token: token, want: codes.OK},
		"none":    {token: "", want: codes.Unauthenticated},
		"wrong":   {token: strings.Repeat("A", len(token)), want: codes.Unauthenticated},
		"prefix":  {token: token[:len(token)-1], want: codes.Unauthenticated},
		"longer":  {token: token + "A", want: codes.Unauthenticated},
		"ended":   {token: endedToken, want: codes.Unauthenticated},
		"two":     {token: token, more: []string{pluginv1.TokenMetadata, token}, want: codes.Unauthenticated},
		"kept up": {token: token, more: []string{"other", token}, want: codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, server, tc.token)
			ctx := metadata.AppendToOutgoingContext(t.Context(), tc.more...)
			_, err := client.machine.Facts(ctx, &pluginv1.FactsRequest{})
			if status.Code(err) != tc.want {
				t.Errorf("a unary call: %v, want %v", err, tc.want)
			}
			stream, err := client.machine.Exec(ctx)
			if err == nil {
				// The server may have refused by now.
				_ = stream.Send(&pluginv1.ExecRequest{Message: &pluginv1.ExecRequest_Start{Start: &pluginv1.ExecStart{Argv: []string{"cat"}}}})
				_ = stream.CloseSend()
				_, err = stream.Recv()
			}
			if status.Code(err) != tc.want {
				t.Errorf("a stream: %v, want %v", err, tc.want)
			}
		})
	}
}

// TestTokensAreApart asks two steps at once for their own machines.
func TestTokensAreApart(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for _, m := range []*sink{{}, {}} {
		token, end := server.Open(newTarget(m))
		defer end()
		machine := connect(t, server, token).Machine(&pluginv1.MachineInfo{})
		if err := machine.Put(t.Context(), step.PutFile{Path: "/x"}, strings.NewReader("123")); err != nil {
			t.Fatal(err)
		}
		if got := m.bytes.Load(); got != 3 {
			t.Errorf("its own machine took %d bytes, want 3", got)
		}
	}
}

// TestEnd ends a step with calls under way that wait for the plugin, for the machine, or
// for nothing at all.
func TestEnd(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(ctx context.Context, c *Client) (recv func() error, err error){
		"nothing sent": func(ctx context.Context, c *Client) (func() error, error) {
			s, err := c.machine.Exec(ctx)
			return func() error { _, err := s.Recv(); return err }, err
		},
		"command runs": func(ctx context.Context, c *Client) (func() error, error) {
			s, err := c.machine.Exec(ctx)
			if err == nil {
				err = s.Send(&pluginv1.ExecRequest{Message: &pluginv1.ExecRequest_Start{Start: &pluginv1.ExecStart{Argv: []string{"wait"}}}})
			}
			return func() error { _, err := s.Recv(); return err }, err
		},
		"content doesn't come": func(ctx context.Context, c *Client) (func() error, error) {
			s, err := c.machine.Put(ctx)
			if err == nil {
				err = s.Send(&pluginv1.PutRequest{Message: &pluginv1.PutRequest_File{File: &pluginv1.PutFile{Path: "/x"}}})
			}
			return func() error { return s.RecvMsg(&pluginv1.PutResponse{}) }, err
		},
		"content isn't taken": func(ctx context.Context, c *Client) (func() error, error) {
			s, err := c.machine.Get(ctx, &pluginv1.GetRequest{Path: "/endless"})
			return func() error {
				for {
					if _, err := s.Recv(); err != nil {
						return err
					}
				}
			}, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t)
			machine := &sink{}
			token, end := server.Open(newTarget(machine))
			recv, err := start(t.Context(), connect(t, server, token))
			if err != nil {
				t.Fatal(err)
			}
			sess := server.find(token)
			eventually(t, "the call arrives", func() bool { return len(sess.calls) == 1 })
			if name != "nothing sent" {
				eventually(t, "the call reaches the machine", func() bool { return machine.busy.Load() == 1 })
			}
			within(t, "end", end)
			if n := machine.busy.Load(); n != 0 {
				t.Errorf("%d calls work on the machine after end", n)
			}
			within(t, "the plugin's side", func() { err = recv() })
			if status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), "the step has ended") {
				t.Errorf("the plugin is told %v", err)
			}
		})
	}
}

// TestOneCallAtATime makes many calls at once, which wait for each other, and one that
// waits for itself, which is told so.
func TestOneCallAtATime(t *testing.T) {
	t.Parallel()
	server := serve(t)
	server.busyWait = 200 * time.Millisecond
	sink := &sink{}
	token, end := server.Open(newTarget(sink))
	defer end()
	machine := connect(t, server, token).Machine(&pluginv1.MachineInfo{})
	errs := make(chan error)
	for range 16 {
		go func() { errs <- machine.Put(t.Context(), step.PutFile{Path: "/x"}, strings.NewReader("123")) }()
	}
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := sink.most.Load(); n != 1 {
		t.Errorf("%d calls worked on the machine at once", n)
	}
	r, w := io.Pipe()
	go func() {
		err := machine.Get(t.Context(), "/endless", w)
		w.CloseWithError(err)
	}()
	err := machine.Put(t.Context(), step.PutFile{Path: "/copy"}, r)
	r.Close()
	if err == nil || !strings.Contains(err.Error(), "takes one call at a time") {
		t.Errorf("a call that waits for itself: %v", err)
	}
}

// TestBounds sends more than a plugin may.
func TestBounds(t *testing.T) {
	t.Parallel()
	server := serve(t)
	token, end := server.Open(newTarget(&sink{}))
	defer end()
	client := connect(t, server, token)

	large := &pluginv1.SettleRequest{Claim: strings.Repeat("x", maxMessage)}
	if _, err := client.host.Settle(t.Context(), large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large message: %v", err)
	}
	long := metadata.AppendToOutgoingContext(t.Context(), "x", strings.Repeat("x", maxMetadata))
	if _, err := client.machine.Facts(long, &pluginv1.FactsRequest{}); err == nil {
		t.Error("large metadata were taken")
	}

	// Calls are counted over all connections of a step, also those of which nothing has come.
	var calls []pluginv1.Machine_ExecClient
	for range maxCalls {
		s, err := connect(t, server, token).machine.Exec(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, s)
	}
	refused := func() bool {
		_, err := client.machine.Facts(t.Context(), &pluginv1.FactsRequest{})
		return status.Code(err) == codes.ResourceExhausted
	}
	sess := server.find(token)
	eventually(t, "all calls arrive", func() bool { return len(sess.calls) == maxCalls })
	if !refused() {
		t.Error("one call too many was taken")
	}
	other, endOther := server.Open(newTarget(&sink{}))
	defer endOther()
	if _, err := connect(t, server, other).machine.Facts(t.Context(), &pluginv1.FactsRequest{}); err != nil {
		t.Errorf("another step is held up: %v", err)
	}
	for _, s := range calls {
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "there is room again", func() bool { return !refused() })
}

// TestConnections opens more connections than a process may have.
func TestConnections(t *testing.T) {
	t.Parallel()
	server := serve(t)
	var conns []net.Conn
	for range maxConnsPerProcess + 20 {
		conn, err := net.Dial("unix", server.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	last := conns[len(conns)-1]
	if err := last.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// One that is taken is greeted with settings.
	if n, err := last.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one connection too many: %d bytes, %v", n, err)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "there is room again", func() bool {
		conn, err := net.Dial("unix", server.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		n, _ := conn.Read(make([]byte, 1))
		return n == 1
	})
}

// TestGarbage sends what isn't gRPC, and first messages that make no sense.
func TestGarbage(t *testing.T) {
	t.Parallel()
	server := serve(t)
	token, end := server.Open(newTarget(nil))
	defer end()
	conn, err := net.Dial("unix", server.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(bytes.Repeat([]byte("garbage\n"), 100)); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("the server has hung up: %v", err)
	}
	guestToken, endGuest := server.Open(newTarget(sinkGuest{sink: &sink{}}))
	defer endGuest()
	for _, tc := range []struct {
		name  string
		token string
		call  func(c *Client) error
		want  codes.Code
	}{
		{"no machine", token, func(c *Client) error { _, err := c.machine.Facts(t.Context(), &pluginv1.FactsRequest{}); return err }, codes.FailedPrecondition},
		{"no guest", token, func(c *Client) error {
			_, err := c.machine.Console(t.Context(), &pluginv1.ConsoleRequest{})
			return err
		}, codes.FailedPrecondition},
		{"no program", guestToken, func(c *Client) error { return first(c.machine.Exec, &pluginv1.ExecRequest{}) }, codes.InvalidArgument},
		{"input first", guestToken, func(c *Client) error {
			return first(c.machine.Exec, &pluginv1.ExecRequest{Message: &pluginv1.ExecRequest_Stdin{Stdin: []byte("x")}})
		}, codes.InvalidArgument},
		{"no port", guestToken, func(c *Client) error { return first(c.machine.Dial, &pluginv1.DialRequest{}) }, codes.InvalidArgument},
		{"port too high", guestToken, func(c *Client) error {
			return first(c.machine.Dial, &pluginv1.DialRequest{Message: &pluginv1.DialRequest_Port{Port: 65536}})
		}, codes.InvalidArgument},
		{"nothing at all", guestToken, func(c *Client) error { return first(c.machine.Exec) }, codes.InvalidArgument},
		{"claim of nothing", guestToken, func(c *Client) error { _, err := c.host.Claim(t.Context(), &pluginv1.ClaimRequest{}); return err }, codes.InvalidArgument},
	} {
		if err := tc.call(connect(t, server, tc.token)); status.Code(err) != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// first sends the first messages of a stream and returns how it ends.
func first[Q, A any](open func(context.Context, ...grpc.CallOption) (grpc.BidiStreamingClient[Q, A], error), messages ...*Q) error {
	stream, err := open(context.Background())
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := stream.Send(m); err != nil {
			break // Recv says why
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/new"
	server, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(server.socket.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's folder: %v, %v", info.Mode(), err)
	}
	token, _ := server.Open(newTarget(&sink{}))
	client := connect(t, server, token)
	if err := errors.Join(server.Close(), server.Close()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	_, err = client.Machine(&pluginv1.MachineInfo{}).Facts(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "gild doesn't answer: ") {
		t.Errorf("a call to a closed server: %v", err)
	}
	late, end := server.Open(newTarget(&sink{}))
	if server.find(late) != nil {
		t.Error("a closed server gives out tokens that work")
	}
	end()
}

// TestLongPath makes the folder elsewhere when the path of a socket would be too long, and
// removes those that killed processes left there.
func TestLongPath(t *testing.T) {
	tmp, err := os.MkdirTemp("", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(tmp); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", tmp)
	dead := deadSocket(t, tmp)
	long := tmp + "/" + strings.Repeat("long-", 20)
	one, err := Listen(long)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Listen(long)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a dead process is still there: %v", err)
	}
	for _, s := range []*Server{one, two} {
		if len(s.Address()) > maxPath || !strings.HasPrefix(s.Address(), tmp) {
			t.Errorf("the address is %s", s.Address())
		}
		token, end := s.Open(newTarget(&sink{}))
		if _, err := connect(t, s, token).Machine(&pluginv1.MachineInfo{}).Facts(t.Context()); err != nil {
			t.Error(err)
		}
		end()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("TMPDIR", long)
	if s, err := Listen(long); err == nil || !strings.Contains(err.Error(), "set TMPDIR to a short one") {
		t.Errorf("got %v, %v", s, err)
	}
}

// deadSocket leaves a folder as a process does that was killed.
func deadSocket(t *testing.T, tmp string) string {
	t.Helper()
	dir, err := shortDir(tmp)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/" + socketName, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}
