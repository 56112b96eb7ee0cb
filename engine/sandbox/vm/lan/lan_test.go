package lan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

var (
	machineAddr = netip.MustParseAddr("10.0.2.15")
	gatewayAddr = netip.MustParseAddr("10.0.2.1")
)

// start makes a network that ends with the test, and a machine on it: a TCP/IP stack that
// is behind the wire as a guest's would be.
func start(tb testing.TB, c Config) (*LAN, *stack.Stack) {
	tb.Helper()
	l, far, err := New(c)
	must(tb, err)
	conn, err := net.FileConn(far)
	must(tb, errors.Join(err, far.Close()))
	link := channel.New(queued, mtu, "\x02\x00\x00\x00\x00\x02")
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	say := func(err tcpip.Error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	say(s.CreateNIC(nic, ethernet.New(link)))
	own := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(machineAddr.As4()), PrefixLen: 24}
	say(s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: own}, stack.AddressProperties{}))
	everywhere, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	must(tb, err)
	s.SetRouteTable([]tcpip.Route{
		{Destination: own.Subnet(), NIC: nic},
		{Destination: everywhere, Gateway: tcpip.AddrFrom4(gatewayAddr.As4()), NIC: nic},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for in := bufio.NewReader(conn); ; {
			frame, err := readFrame(in)
			if err != nil {
				return
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
			link.InjectInbound(0, pkt)
			pkt.DecRef()
		}
	})
	work.Go(func() {
		for pkt := link.ReadContext(ctx); pkt != nil; pkt = link.ReadContext(ctx) {
			frame := pkt.ToView().AsSlice()
			if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
				return
			}
		}
	})
	tb.Cleanup(func() {
		must(tb, l.Close())
		must(tb, l.Close())
		cancel()
		must(tb, conn.Close())
		s.Close()
		link.Close()
		work.Wait()
		s.Wait()
	})
	return l, s
}

func dial(ctx context.Context, s *stack.Stack, to string) (net.Conn, error) {
	a := netip.MustParseAddrPort(to)
	return gonet.DialContextTCP(ctx, s, full(a.Addr(), a.Port()), ipv4.ProtocolNumber)
}

// TestMetadata asks the metadata service on many connections at once.
func TestMetadata(t *testing.T) {
	t.Parallel()
	const clients = 40
	var together sync.WaitGroup
	together.Add(clients)
	_, s := start(t, Config{Metadata: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// All are under way before the first is answered.
		together.Done()
		together.Wait()
		fmt.Fprintf(w, "%s asked for %s", strings.Split(r.RemoteAddr, ":")[0], r.URL.Path)
	})})
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, to string) (net.Conn, error) { return dial(ctx, s, to) },
	}}
	var work sync.WaitGroup
	for i := range clients {
		work.Go(func() {
			resp, err := client.Get(fmt.Sprintf("http://169.254.169.254/latest/%d", i))
			if err != nil {
				t.Error(err)
				return
			}
			body, err := io.ReadAll(resp.Body)
			if err := errors.Join(err, resp.Body.Close()); err != nil {
				t.Error(err)
			}
			if want := fmt.Sprintf("10.0.2.15 asked for /latest/%d", i); string(body) != want {
				t.Errorf("body %q, want %q", body, want)
			}
		})
	}
	work.Wait()
}

func TestForward(t *testing.T) {
	t.Parallel()
	l, s := start(t, Config{Public: netip.MustParseAddr("127.77.1.1")})
	listener, err := gonet.ListenTCP(s, full(machineAddr, 8080), ipv4.ProtocolNumber)
	must(t, err)
	var work sync.WaitGroup
	defer work.Wait()
	defer listener.Close()
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// An echo that ends when it is told the end, and not before.
			work.Go(func() {
				text, err := io.ReadAll(conn)
				_, err2 := conn.Write(text)
				if err := errors.Join(err, err2, conn.Close()); err != nil {
					t.Error(err)
				}
			})
		}
	})
	must(t, l.Forward([]int{8080, 8081}))
	must(t, l.Forward([]int{8081, 8080}))
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 3 {
		if got := echo(t, "127.77.1.1:8080", text); !bytes.Equal(got, text) {
			t.Errorf("%d bytes came back, want the %d sent", len(got), len(text))
		}
	}
	// The reset comes after the connection is made, or before Dial has looked.
	conn, err := net.Dial("tcp", "127.77.1.1:8081")
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		must(t, conn.Close())
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port without a listener: %v, want a reset", err)
	}
	must(t, l.Forward([]int{8081}))
	if conn, err := net.Dial("tcp", "127.77.1.1:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that isn't let in any more: %v, %v, want that it is refused", conn, err)
	}
}

func echo(t *testing.T, address string, text []byte) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = conn.Write(text)
	must(t, errors.Join(err, conn.(*net.TCPConn).CloseWrite()))
	got, err := io.ReadAll(conn)
	must(t, errors.Join(err, conn.Close()))
	return got
}

func TestForwardRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.77.1.2:0")
	must(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	l, _ := start(t, Config{Public: netip.MustParseAddr("127.77.1.2")})
	for _, test := range []struct {
		port int
		want string
	}{
		{port, "another program of this host"},
		{0, "let port 0 in: ports are 1 to 65535"},
		{70000, "let port 70000 in"},
	} {
		if err := l.Forward([]int{test.port}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Forward(%d): %v, want %q in it", test.port, err, test.want)
		}
	}
	if err := explain(&os.SyscallError{Err: syscall.EACCES}, 22); !strings.Contains(err.Error(), "ip_unprivileged_port_start=22") {
		t.Errorf("explain: %v, want what to do", err)
	}
	private, _ := start(t, Config{})
	if err := private.Forward([]int{22}); err == nil || !strings.Contains(err.Error(), "no public address") {
		t.Errorf("Forward without an address: %v", err)
	}
	must(t, private.Forward(nil))
}

// TestNoWayToTheHost connects to servers of the host by every name that it has.
func TestNoWayToTheHost(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp4", "0.0.0.0:0")
	must(t, err)
	defer server.Close()
	port := server.Addr().(*net.TCPAddr).Port
	_, s := start(t, Config{})
	own, err := net.InterfaceAddrs()
	must(t, err)
	addresses := []string{"10.0.2.1", "10.0.2.2", "127.0.0.1", "0.0.0.1", "169.254.169.254", "169.254.170.2", "255.255.255.255"}
	for _, a := range own {
		if n := a.(*net.IPNet); n.IP.To4() != nil {
			addresses = append(addresses, n.IP.String())
		}
	}
	for _, a := range addresses {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		conn, err := dial(ctx, s, fmt.Sprintf("%s:%d", a, port))
		cancel()
		if err == nil {
			t.Errorf("%s leads somewhere: %s", a, conn.RemoteAddr())
			must(t, conn.Close())
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	resolver := netip.MustParseAddrPort("127.0.0.1:5353")
	l, _ := start(t, Config{Resolver: resolver})
	for _, test := range []struct {
		to, want string // "" when it is forbidden
	}{
		{"203.0.113.7:443", "203.0.113.7:443"},
		{"10.20.30.40:80", "10.20.30.40:80"},
		{"10.0.2.1:53", resolver.String()},
		{"169.254.169.253:53", resolver.String()},
		{"10.0.2.1:54", ""},
		{"10.0.2.99:80", ""},
		{"169.254.169.254:8080", ""},
		{"127.0.0.53:53", ""},
		{"224.0.0.1:53", ""},
		{"255.255.255.255:53", ""},
		{"0.0.0.0:53", ""},
		{"0.1.2.3:53", ""},
	} {
		got, err := l.resolve(netip.MustParseAddrPort(test.to))
		if test.want == "" {
			if err == nil {
				t.Errorf("%s leads to %s, want nowhere", test.to, got)
			}
		} else if err != nil || got.String() != test.want {
			t.Errorf("%s leads to %s, %v, want %s", test.to, got, err, test.want)
		}
	}
}

func TestFindResolver(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"# nameserver 1.1.1.1\nsearch x\nnameserver 192.0.2.53\nnameserver 192.0.2.54\n": "192.0.2.53:53",
		"nameserver nonsense\nnameserver fd00::1\n":                                      "[fd00::1]:53",
		"search x\n": "invalid AddrPort",
	} {
		if got, _ := findResolver(strings.NewReader(text)); got.String() != want {
			t.Errorf("findResolver(%q) = %s, want %s", text, got, want)
		}
	}
}

// listenTwice listens at one port for UDP and TCP.
func listenTwice(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		datagrams, err := net.ListenPacket("udp4", "127.0.0.1:0")
		must(t, err)
		streams, err := net.Listen("tcp4", datagrams.LocalAddr().String())
		if err == nil {
			return datagrams, streams
		}
		must(t, datagrams.Close())
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// TestResolver asks a name server, over UDP and TCP, through the gateway.
func TestResolver(t *testing.T) {
	t.Parallel()
	datagrams, streams := listenTwice(t)
	defer datagrams.Close()
	defer streams.Close()
	go func() {
		buf := make([]byte, mtu)
		for n, from, err := datagrams.ReadFrom(buf); err == nil; n, from, err = datagrams.ReadFrom(buf) {
			if _, err := datagrams.WriteTo(append([]byte("udp "), buf[:n]...), from); err != nil {
				t.Error(err)
			}
		}
	}()
	go func() {
		for conn, err := streams.Accept(); err == nil; conn, err = streams.Accept() {
			_, err := io.WriteString(conn, "tcp")
			if err := errors.Join(err, conn.Close()); err != nil {
				t.Error(err)
			}
		}
	}()
	_, s := start(t, Config{Resolver: netip.MustParseAddrPort(datagrams.LocalAddr().String())})
	for i := range 20 {
		to := full(gatewayAddr, 53)
		conn, err := gonet.DialUDP(s, nil, &to, ipv4.ProtocolNumber)
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = fmt.Fprintf(conn, "question %d", i)
		must(t, err)
		buf := make([]byte, mtu)
		n, err := conn.Read(buf)
		must(t, errors.Join(err, conn.Close()))
		if diff := cmp.Diff(fmt.Sprintf("udp question %d", i), string(buf[:n])); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	conn, err := dial(t.Context(), s, "10.0.2.1:53")
	must(t, err)
	text, err := io.ReadAll(conn)
	must(t, errors.Join(err, conn.Close()))
	if string(text) != "tcp" {
		t.Errorf("the server said %q", text)
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{Machine: netip.MustParsePrefix("10.0.2.0/24")},
		{Machine: netip.MustParsePrefix("10.0.2.1/24")},
		{Machine: netip.MustParsePrefix("10.0.2.2/31")},
		{Machine: netip.MustParsePrefix("fd00::15/64")},
		{Public: netip.MustParseAddr("192.0.2.1")},
		{Public: netip.MustParseAddr("::1")},
	} {
		if l, _, err := New(c); err == nil {
			t.Errorf("New(%v) made a network", c)
			must(t, l.Close())
		}
	}
}

// TestManyConnections checks that a machine can't have more connections than the bound.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	l, _ := start(t, Config{})
	for i := range maxConnections {
		if !l.begin() {
			t.Fatalf("connection %d was refused", i)
		}
	}
	if l.begin() {
		t.Error("one connection more than the bound was taken")
	}
	for range maxConnections {
		l.finish()
	}
}
