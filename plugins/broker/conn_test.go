package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// dialer returns a guest with one TCP port, and the connections that arrive there.
func dialer(t testing.TB) (g step.Guest, arrive func() (net.Conn, error)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	remote := sinkGuest{sink: &sink{}, console: "login: \xff", dial: func(ctx context.Context, port int) (net.Conn, error) {
		if port != 80 {
			return nil, errors.New("connection refused")
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}}
	_, client := open(t, newTarget(remote))
	return client.Machine(&pluginv1.MachineInfo{Guest: true}).(step.Guest), l.Accept
}

// TestConnIsANetConn runs the tests that every net.Conn should pass.
func TestConnIsANetConn(t *testing.T) {
	t.Parallel()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		guest, arrive := dialer(t)
		if c1, err = guest.Dial(t.Context(), 80); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = arrive(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func TestConn(t *testing.T) {
	t.Parallel()
	guest, arrive := dialer(t)
	pair := func(t *testing.T) (net.Conn, *net.TCPConn) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		conn, err := guest.Dial(ctx, 80)
		cancel() // ends the making of a connection, not the connection
		if err != nil {
			t.Fatal(err)
		}
		peer, err := arrive()
		if err != nil {
			t.Fatal(err)
		}
		return conn, peer.(*net.TCPConn)
	}
	t.Run("the guest ends its side", func(t *testing.T) {
		conn, peer := pair(t)
		defer conn.Close()
		write(peer, []byte("bye"), "")
		peer.Close()
		got, err := io.ReadAll(conn)
		if string(got) != "bye" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("the plugin ends its side and reads on", func(t *testing.T) {
		conn, peer := pair(t)
		defer conn.Close()
		go func() {
			asked, err := io.ReadAll(peer)
			if err == nil {
				_, err = peer.Write(append([]byte("you said "), asked...))
			}
			if err != nil {
				t.Error(err)
			}
			peer.Close()
		}()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if string(got) != "you said hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("what was written is sent when closed at once", func(t *testing.T) {
		conn, peer := pair(t)
		defer peer.Close()
		text := strings.Repeat("0123456789", 50_000)
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(peer)
		if len(got) != len(text) || err != nil {
			t.Errorf("got %d bytes of %d, %v", len(got), len(text), err)
		}
	})
	t.Run("the connection breaks", func(t *testing.T) {
		conn, peer := pair(t)
		defer conn.Close()
		if err := peer.SetLinger(0); err != nil { // Close resets
			t.Fatal(err)
		}
		peer.Close()
		_, err := conn.Read(make([]byte, 1))
		if err == nil || !strings.Contains(err.Error(), "connection reset by peer") || !strings.HasPrefix(err.Error(), "read tcp guest:80: ") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		conn, err := guest.Dial(t.Context(), 81)
		if err == nil || err.Error() != "dial port 81 of the guest: connection refused" {
			t.Errorf("got %v, %v", conn, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errBroken)
		if conn, err := guest.Dial(ctx, 80); !errors.Is(err, errBroken) {
			t.Errorf("got %v, %v", conn, err)
		}
	})
}

// TestConnEndsWithTheStep leaves a connection open when the step ends.
func TestConnEndsWithTheStep(t *testing.T) {
	t.Parallel()
	server := serve(t)
	here, there := net.Pipe()
	token, end := server.Open(newTarget(sinkGuest{sink: &sink{}, dial: func(context.Context, int) (net.Conn, error) { return there, nil }}))
	guest := connect(t, server, token).Machine(&pluginv1.MachineInfo{Guest: true}).(step.Guest)
	conn, err := guest.Dial(t.Context(), 80)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := here.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	within(t, "end", end)
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the guest's end: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "the step has ended") {
		t.Errorf("the plugin's end: %v", err)
	}
}

func TestGuest(t *testing.T) {
	t.Parallel()
	console := strings.Repeat("old\n", 1<<18) + "login: \xff"
	remote := sinkGuest{sink: &sink{}, console: console}
	server, client := open(t, newTarget(remote))
	guest := client.Machine(&pluginv1.MachineInfo{Guest: true}).(step.Guest)
	got := guest.Console()
	if !strings.HasSuffix(got, "login: \uFFFD") || len(got) > maxConsole+4 {
		t.Errorf("the console has %d bytes and ends with %q", len(got), got[max(0, len(got)-20):])
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if got := guest.Console(); got != "" {
		t.Errorf("without gild the console is %q", got)
	}
	if m := client.Machine(nil); m != nil {
		t.Errorf("a step without a machine has %v", m)
	}
}
