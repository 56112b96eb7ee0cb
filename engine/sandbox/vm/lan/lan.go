// Package lan is the network of one virtual machine, in this process.
//
// The machine's network card is a stream of Ethernet frames, as QEMU speaks over a
// socket. On its other side is a TCP/IP stack of our own, so that QEMU itself has no
// network and no right to start programs:
//
//   - DHCP gives the machine its one address; ARP and ping answer for the gateway.
//   - Connections of the machine to addresses beyond this host are made by this process
//     for it, TCP and UDP. This host's own addresses, loopback and link-local ones
//     (where a cloud has its metadata service) can't be reached.
//   - Name lookups go to the gateway's port 53, and from there to the host's resolver.
//   - 169.254.169.254 port 80 is an [http.Handler].
//   - TCP ports of the machine are reached through a loopback address of the host.
//
// There is no IPv6, no ping beyond the gateway, and no way from one machine to another.
package lan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Config says what a machine's network is like.
type Config struct {
	// Machine is the machine's address, with the length of its network's prefix, at most
	// 30. The zero value means 10.0.2.15/24. The network's first address is the gateway.
	Machine netip.Prefix
	// Public is the loopback address of the host at which the machine's ports are reached.
	Public netip.Addr
	// Metadata answers at 169.254.169.254 port 80; nil means that nothing does.
	Metadata http.Handler
	// Resolver is where name lookups go; the zero value means the first server of the
	// host's resolv.conf.
	Resolver netip.AddrPort
	// Log takes what goes wrong on the way; nil discards it.
	Log *slog.Logger
}

// LAN is a machine's network. Safe for concurrent use.
type LAN struct {
	config  Config
	gateway netip.Addr

	wire  net.Conn // frames, to and from the machine
	link  *channel.Endpoint
	stack *stack.Stack
	http  *http.Server

	// ctx ends what is under way when the network is closed.
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
	// slots bounds the connections there may be at a time.
	slots chan struct{}

	mu       sync.Mutex
	closed   bool
	open     map[io.Closer]bool
	forwards map[int]net.Listener
}

// maxConnections of a machine, in both directions.
const maxConnections = 1024

// New makes a network. The file is the machine's end of the wire: a stream socket on which
// each frame follows its length in four bytes, big-endian. The caller closes it when the
// machine has it.
func New(c Config) (*LAN, *os.File, error) {
	l, far, err := open(c)
	if err != nil {
		return nil, nil, fmt.Errorf("make a machine's network: %w", err)
	}
	return l, far, nil
}

func open(c Config) (*LAN, *os.File, error) {
	if err := c.fill(); err != nil {
		return nil, nil, err
	}
	near, far, err := wire()
	if err != nil {
		return nil, nil, err
	}
	l := &LAN{
		config: c, gateway: c.Machine.Masked().Addr().Next(), wire: near,
		slots: make(chan struct{}, maxConnections), open: map[io.Closer]bool{}, forwards: map[int]net.Listener{},
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if err := l.build(); err != nil {
		return nil, nil, errors.Join(err, far.Close(), l.Close())
	}
	l.work.Go(l.receive)
	l.work.Go(l.send)
	return l, far, nil
}

func (c *Config) fill() error {
	if !c.Machine.IsValid() {
		c.Machine = netip.MustParsePrefix("10.0.2.15/24")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if a := c.Machine.Addr(); !a.Is4() || c.Machine.Bits() > 30 || a == c.Machine.Masked().Addr() || a == c.Machine.Masked().Addr().Next() {
		return fmt.Errorf("%s can't be a machine's address: give an IPv4 address with a prefix of at most 30, neither the network's own nor the one after it", c.Machine)
	}
	if c.Public.IsValid() && !(c.Public.Is4() && c.Public.IsLoopback()) {
		return fmt.Errorf("%s can't be a machine's public address: give one of 127.0.0.0/8", c.Public)
	}
	return nil
}

// wire makes the two ends of the machine's cable.
func wire() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "lan"), os.NewFile(uintptr(fds[1]), "lan")
	conn, err := net.FileConn(near)
	if err = errors.Join(err, near.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return conn, far, nil
}

// serveMetadata answers for the metadata service.
func (l *LAN) serveMetadata() error {
	if l.config.Metadata == nil {
		return nil
	}
	listener, err := gonet.ListenTCP(l.stack, full(metadataAddr, 80), ipv4.ProtocolNumber)
	if err != nil {
		return fmt.Errorf("listen for the metadata service: %w", err)
	}
	l.http = &http.Server{
		Handler: l.config.Metadata, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(l.config.Log.Handler(), slog.LevelWarn),
	}
	l.work.Go(func() {
		if err := l.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			l.config.Log.Warn("the metadata service ended", "err", err)
		}
	})
	return nil
}

// keep registers something that [LAN.Close] closes; it reports false, with c closed, when
// that has been called, or when there are too many connections.
func (l *LAN) keep(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.open[c] = true
		return true
	}
	l.drop(c.Close())
	return false
}

// end closes what was kept. Closing it twice does nothing.
func (l *LAN) end(c io.Closer) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
	l.drop(c.Close())
}

// drop notes the error of closing something that nobody waits for any more.
func (l *LAN) drop(err error) {
	if err != nil && !errors.Is(err, net.ErrClosed) {
		l.config.Log.Debug("close a connection of the machine", "err", err)
	}
}

// Close ends the network with all its connections. Calling it again does nothing.
func (l *LAN) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	var closers []io.Closer
	for c := range l.open {
		closers = append(closers, c)
	}
	for _, f := range l.forwards {
		closers = append(closers, f)
	}
	l.mu.Unlock()
	l.cancel()
	for _, c := range closers {
		l.drop(c.Close())
	}
	var err error
	if l.http != nil {
		err = l.http.Close()
	}
	err = errors.Join(err, l.wire.Close())
	if l.stack != nil {
		l.stack.Close()
		l.link.Close()
	}
	l.work.Wait()
	if l.stack != nil {
		l.stack.Wait()
	}
	return err
}
