package lan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// dialTimeout is how long a connection may take to be made.
	dialTimeout = 15 * time.Second
	// idleTimeout ends an exchange over UDP in which nothing is said.
	idleTimeout = 30 * time.Second
)

// forwardTCP makes a connection for the machine. The stack calls it in a goroutine.
func (l *LAN) forwardTCP(r *tcp.ForwarderRequest) {
	if !l.begin() {
		r.Complete(true)
		return
	}
	defer l.finish()
	out, err := l.dial("tcp", r.ID().LocalAddress, r.ID().LocalPort)
	if err != nil {
		l.config.Log.Debug("the machine connects", "err", err)
		r.Complete(true)
		return
	}
	var queue waiter.Queue
	ep, problem := r.CreateEndpoint(&queue)
	r.Complete(problem != nil)
	if problem != nil {
		l.drop(out.Close())
		return
	}
	l.join(gonet.NewTCPConn(&queue, ep), out)
}

// forwardUDP relays an exchange of datagrams. The stack must not be kept waiting.
func (l *LAN) forwardUDP(r *udp.ForwarderRequest) {
	var queue waiter.Queue
	ep, problem := r.CreateEndpoint(&queue)
	if problem != nil {
		return
	}
	in := gonet.NewUDPConn(&queue, ep)
	if !l.begin() {
		l.drop(in.Close())
		return
	}
	go func() {
		defer l.finish()
		out, err := l.dial("udp", r.ID().LocalAddress, r.ID().LocalPort)
		if err != nil {
			l.drop(in.Close())
			return
		}
		l.exchange(in, out)
	}()
}

// begin takes a slot for a connection; finish gives it back.
func (l *LAN) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.slots <- struct{}{}:
		l.work.Add(1)
		return true
	default:
		return false
	}
}

func (l *LAN) finish() {
	<-l.slots
	l.work.Done()
}

// dial connects to where the machine wants to, if it may.
func (l *LAN) dial(network string, to tcpip.Address, port uint16) (net.Conn, error) {
	wanted := netip.AddrPortFrom(netip.AddrFrom4(to.As4()), port)
	target, err := l.resolve(wanted)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", wanted, err)
	}
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, target.String())
}

var errForbidden = errors.New("the address is the host's, or of no use outside it")

// resolve says where a connection of the machine to an address really goes.
func (l *LAN) resolve(to netip.AddrPort) (netip.AddrPort, error) {
	a := to.Addr()
	if to.Port() == 53 && (a == l.gateway || a == resolverAddr) {
		if l.config.Resolver.IsValid() {
			return l.config.Resolver, nil
		}
		return hostResolver()
	}
	if !a.IsGlobalUnicast() || a.As4()[0] == 0 || l.config.Machine.Masked().Contains(a) {
		return to, errForbidden
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return to, err
	}
	for _, o := range own {
		if n, ok := o.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
			return to, errForbidden
		}
	}
	return to, nil
}

// hostResolver is the first name server of the host.
func hostResolver() (netip.AddrPort, error) {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer f.Close()
	return findResolver(f)
}

func findResolver(r io.Reader) (netip.AddrPort, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			return netip.AddrPortFrom(a, 53), nil
		}
	}
	return netip.AddrPort{}, errors.Join(lines.Err(), errors.New("the host's resolv.conf names no server"))
}

// halfCloser is a connection of which one direction can be ended.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// join passes bytes between two connections until both directions have ended, and closes them.
func (l *LAN) join(a, b net.Conn) {
	if !l.keep(a) {
		l.drop(b.Close())
		return
	}
	defer l.end(a)
	if !l.keep(b) {
		return
	}
	defer l.end(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(a, b)
	}()
	pass(b, a)
	<-done
}

// pass copies from src to dst and tells dst of the end. After an error nothing more can be
// said to dst, and src has nobody to talk to.
func pass(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	if end, ok := dst.(halfCloser); ok && err == nil {
		err = end.CloseWrite()
	}
	if err != nil {
		// The other direction's copy ends by it; the owner closes again.
		_ = dst.Close()
		_ = src.Close()
	}
}

// exchange passes datagrams between two sockets until nothing is said for a while.
func (l *LAN) exchange(in *gonet.UDPConn, out net.Conn) {
	if !l.keep(in) {
		l.drop(out.Close())
		return
	}
	defer l.end(in)
	if !l.keep(out) {
		return
	}
	defer l.end(out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		passDatagrams(in, out)
		// What waits for the machine needn't wait any longer.
		l.drop(in.Close())
	}()
	passDatagrams(out, in)
	l.drop(out.Close())
	<-done
}

func passDatagrams(dst, src net.Conn) {
	buf := make([]byte, frameLimit)
	for {
		if src.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}
