package lan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

var (
	// metadataAddr and resolverAddr are where AWS has these services.
	metadataAddr = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	resolverAddr = netip.AddrFrom4([4]byte{169, 254, 169, 253})
)

const (
	nic = 1
	mtu = 1500
	// queued is how many frames may wait for the machine; more are lost, as on any wire.
	queued = 1024
	// gatewayMAC is locally administered.
	gatewayMAC = "\x02\x67\x69\x6c\x64\x01"
)

func full(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(a.As4()), Port: port}
}

// build makes the stack and all that answers on it.
func (l *LAN) build() error {
	// The stack's own log goes to standard error, and tells of every odd packet.
	log.SetLevel(log.Warning)
	l.link = channel.New(queued, mtu, tcpip.LinkAddress(gatewayMAC))
	l.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	var errs []error
	must := func(what string, err tcpip.Error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", what, err))
		}
	}
	must("make the card", l.stack.CreateNIC(nic, ethernet.New(l.link)))
	for _, a := range []netip.Prefix{
		netip.PrefixFrom(l.gateway, l.config.Machine.Bits()), netip.PrefixFrom(metadataAddr, 32), netip.PrefixFrom(resolverAddr, 32),
	} {
		must("give it an address", l.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
			Protocol:          ipv4.ProtocolNumber,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(a.Addr().As4()), PrefixLen: a.Bits()},
		}, stack.AddressProperties{}))
	}
	// Whatever the machine sends is taken, and answered in the name of whom it was meant for.
	must("take every packet", l.stack.SetPromiscuousMode(nic, true))
	must("answer for every address", l.stack.SetSpoofing(nic, true))
	everywhere, err := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	errs = append(errs, err)
	l.stack.SetRouteTable([]tcpip.Route{{Destination: everywhere, NIC: nic}})
	sack := tcpip.TCPSACKEnabled(true)
	must("turn SACK on", l.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	const window, inFlight = 0, 256
	l.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(l.stack, window, inFlight, l.forwardTCP).HandlePacket)
	l.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(l.stack, l.forwardUDP).HandlePacket)
	return errors.Join(l.serveDHCP(), l.serveMetadata())
}

const (
	// frameLimit is far more than a frame of this wire has.
	frameLimit     = 64 << 10
	ethernetHeader = 14
)

// receive takes the machine's frames until the wire ends.
func (l *LAN) receive() {
	in := bufio.NewReaderSize(l.wire, frameLimit)
	for {
		frame, err := readFrame(in)
		if err != nil {
			// A machine that ends with frames of ours unread resets the wire.
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
				l.config.Log.Warn("read a frame of the machine", "err", err)
			}
			return
		}
		if l.takes(frame) {
			l.inject(frame)
		}
	}
}

func (l *LAN) inject(frame []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	l.link.InjectInbound(0, pkt)
}

func readFrame(in io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > frameLimit {
		return nil, fmt.Errorf("a frame of %d bytes", size)
	}
	frame := make([]byte, size)
	_, err := io.ReadFull(in, frame)
	return frame, err
}

// takes filters what the stack, which answers for every address, must not answer: whether
// somebody has the machine's own address, and pings of those that aren't here.
func (l *LAN) takes(frame []byte) bool {
	if len(frame) < ethernetHeader {
		return false
	}
	packet := frame[ethernetHeader:]
	const arpTarget, arpLen, ipProtocol, ipDestination, ipLen, icmpProtocol = 24, 28, 9, 16, 20, 1
	switch binary.BigEndian.Uint16(frame[12:]) {
	case uint16(arp.ProtocolNumber):
		return len(packet) >= arpLen && netip.AddrFrom4([4]byte(packet[arpTarget:])) != l.config.Machine.Addr()
	case uint16(ipv4.ProtocolNumber):
		if len(packet) < ipLen || packet[ipProtocol] != icmpProtocol {
			return len(packet) >= ipLen
		}
		to := netip.AddrFrom4([4]byte(packet[ipDestination:]))
		return to == l.gateway || to == metadataAddr || to == resolverAddr
	default:
		return false
	}
}

// send passes frames to the machine until the network is closed, or the machine gone.
func (l *LAN) send() {
	for {
		pkt := l.link.ReadContext(l.ctx)
		if pkt == nil {
			return
		}
		view := pkt.ToView()
		frame := make([]byte, 4, 4+view.Size())
		binary.BigEndian.PutUint32(frame, uint32(view.Size()))
		frame = append(frame, view.AsSlice()...)
		view.Release()
		pkt.DecRef()
		if _, err := l.wire.Write(frame); err != nil {
			return
		}
	}
}
