package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// linger is how long a closed connection has to send what was written to it.
const linger = 5 * time.Second

// Dial implements step.Guest.
func (g *guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	// The connection outlives ctx, which is for making it.
	callCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	stream, err := g.dial(callCtx, port)
	if !stop() || err != nil {
		cancel()
		return nil, fmt.Errorf("dial port %d of the guest: %w", port, callError(ctx, err))
	}
	return newConn(stream, cancel, port), nil
}

func (g *guest) dial(ctx context.Context, port int) (grpc.BidiStreamingClient[pluginv1.DialRequest, pluginv1.Chunk], error) {
	stream, err := g.client.Dial(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&pluginv1.DialRequest{Message: &pluginv1.DialRequest_Port{Port: int32(port)}})
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	// Metadata come when the connection stands, or none when the call has failed.
	if md, err := stream.Header(); err != nil || md == nil {
		_, err = stream.Recv()
		return nil, early(err)
	}
	return stream, nil
}

// Console implements step.Guest. It is empty when gild doesn't answer.
func (g *guest) Console() string {
	ctx, cancel := context.WithTimeout(context.Background(), consoleWait)
	defer cancel()
	resp, err := g.client.Console(ctx, &pluginv1.ConsoleRequest{})
	if err != nil {
		// The method has no error to return, and what is on a console is never certain.
		return ""
	}
	return resp.GetText()
}

const consoleWait = 10 * time.Second

// conn is a TCP connection of a guest, as a stream. Two pipes, one for each direction,
// give it deadlines.
type conn struct {
	in, out net.Conn // our ends
	port    int
	sent    sync.Once
	cancel  context.CancelFunc

	mu  sync.Mutex
	err error // why the stream ended, when not well
}

func newConn(stream grpc.BidiStreamingClient[pluginv1.DialRequest, pluginv1.Chunk], cancel context.CancelFunc, port int) *conn {
	in, fromStream := net.Pipe()
	out, toStream := net.Pipe()
	c := &conn{in: in, out: out, port: port, cancel: cancel}
	go c.receive(stream, fromStream)
	go c.transmit(stream, toStream)
	return c
}

// receive moves what comes to the reader until the stream ends. When the reader has gone
// it takes the rest and drops it, for what is still being sent must go out.
func (c *conn) receive(stream grpc.BidiStreamingClient[pluginv1.DialRequest, pluginv1.Chunk], to net.Conn) {
	var err error
	for err == nil {
		var chunk *pluginv1.Chunk
		if chunk, err = stream.Recv(); err == nil {
			_, _ = to.Write(chunk.GetData())
		}
	}
	if !errors.Is(err, io.EOF) {
		c.mu.Lock()
		c.err = FromStatus(err)
		c.mu.Unlock()
	}
	to.Close()
	c.out.Close()
	c.cancel()
}

// transmit moves what is written to the stream until the writer ends it.
func (c *conn) transmit(stream grpc.BidiStreamingClient[pluginv1.DialRequest, pluginv1.Chunk], from net.Conn) {
	_, err := io.Copy(&sender{send: func(p []byte) error {
		return stream.Send(&pluginv1.DialRequest{Message: &pluginv1.DialRequest_Data{Data: p}})
	}}, from)
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		from.Close() // why is what receive finds out
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if errors.Is(err, io.EOF) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			err = &net.OpError{Op: "read", Net: "tcp", Addr: c.RemoteAddr(), Err: c.err}
		}
	}
	return n, err
}

// Write implements net.Conn. Written means on its way to the guest.
func (c *conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// CloseWrite ends the direction to the guest, as that of net.TCPConn does.
func (c *conn) CloseWrite() error { return c.out.Close() }

// Close implements net.Conn. What was written before it is still sent.
func (c *conn) Close() error {
	err := errors.Join(c.out.Close(), c.in.Close())
	c.sent.Do(func() { time.AfterFunc(linger, c.cancel) })
	return err
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return guestAddr{} }

// RemoteAddr implements net.Conn: the guest's port.
func (c *conn) RemoteAddr() net.Addr { return guestAddr{port: c.port} }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.in.SetDeadline(t), c.out.SetDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

// guestAddr names an end of a connection to a guest. The plugin's own end has no port.
type guestAddr struct{ port int }

// Network implements net.Addr.
func (guestAddr) Network() string { return "tcp" }

// String implements net.Addr.
func (a guestAddr) String() string {
	if a.port == 0 {
		return "plugin"
	}
	return "guest:" + strconv.Itoa(a.port)
}
