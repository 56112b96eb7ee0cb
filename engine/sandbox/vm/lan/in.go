package lan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Dial connects to a TCP port of the machine.
func (l *LAN) Dial(ctx context.Context, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("connect to the machine's port %d: ports are 1 to 65535", port)
	}
	conn, err := gonet.DialContextTCP(ctx, l.stack, full(l.config.Machine.Addr(), uint16(port)), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("connect to the machine's port %d: %w", port, err)
	}
	return conn, nil
}

// Forward makes exactly these TCP ports of the machine reachable, at the same ports of the
// public address. Connections that there are stay. The error says which port can't be had,
// and why; the others are reachable then.
//
// A connection is accepted before the machine is asked for it, and reset when that refuses.
func (l *LAN) Forward(ports []int) error {
	if len(ports) > 0 && !l.config.Public.IsValid() {
		return errors.New("let ports in: the machine has no public address")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("let ports in: the machine's network is closed")
	}
	var errs []error
	for port, listener := range l.forwards {
		if !slices.Contains(ports, port) {
			delete(l.forwards, port)
			errs = append(errs, listener.Close())
		}
	}
	for _, port := range ports {
		if l.forwards[port] == nil {
			errs = append(errs, l.listen(port))
		}
	}
	return errors.Join(errs...)
}

// listen begins to forward a port, with l.mu held.
func (l *LAN) listen(port int) error {
	if port < 1 || port > 65535 {
		return fmt.Errorf("let port %d in: ports are 1 to 65535", port)
	}
	address := netip.AddrPortFrom(l.config.Public, uint16(port)).String()
	listener, err := net.Listen("tcp4", address)
	if err != nil {
		return fmt.Errorf("let port %d in: %w", port, explain(err, port))
	}
	l.forwards[port] = listener
	l.work.Go(func() { l.accept(listener, port) })
	return nil
}

func explain(err error, port int) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: only root may listen on ports below 1024: run the sandbox as root, or as root once: sysctl net.ipv4.ip_unprivileged_port_start=%d", err, port)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program of this host, perhaps on all addresses, has the port", err)
	default:
		return err
	}
}

// accept serves a forwarded port until its listener is closed.
func (l *LAN) accept(listener net.Listener, port int) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if !strings.Contains(err.Error(), net.ErrClosed.Error()) {
				l.config.Log.Warn("accept a connection to the machine", "port", port, "err", err)
			}
			return
		}
		if !l.begin() {
			l.drop(conn.Close())
			continue
		}
		go func() {
			defer l.finish()
			l.connect(conn, port)
		}()
	}
}

func (l *LAN) connect(conn net.Conn, port int) {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	inside, err := l.Dial(ctx, port)
	if err != nil {
		if c, ok := conn.(*net.TCPConn); ok {
			// A reset is what a port without a listener answers.
			l.drop(c.SetLinger(0))
		}
		l.drop(conn.Close())
		return
	}
	l.join(inside, conn)
}
