package lan

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// The parts of a DHCP message (RFC 2131), and its options (RFC 2132), that are used.
const (
	dhcpServerPort, dhcpClientPort = 67, 68

	dhcpHeader               = 240 // up to and with the magic number
	bootRequest, bootReply   = 1, 2
	atCiaddr, atYiaddr       = 12, 16
	atSiaddr, atMagic        = 20, 236
	dhcpMagic                = 0x63825363
	optMask, optRouter       = 1, 3
	optDNS, optMTU, optLease = 6, 26, 51
	optType, optServer       = 53, 54
	optPad, optEnd           = 0, 255

	dhcpDiscover, dhcpOffer, dhcpRequest = 1, 2, 3
	dhcpAck, dhcpNak, dhcpInform         = 5, 6, 8

	leaseSeconds = 86400
)

// serveDHCP answers the machine's requests for an address.
func (l *LAN) serveDHCP() error {
	var queue waiter.Queue
	ep, problem := l.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if problem != nil {
		return fmt.Errorf("make a socket for DHCP: %s", problem)
	}
	ep.SocketOptions().SetBroadcast(true)
	if problem := ep.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpServerPort}); problem != nil {
		ep.Close()
		return fmt.Errorf("bind a socket for DHCP: %s", problem)
	}
	conn := gonet.NewUDPConn(&queue, ep)
	l.keep(conn)
	l.work.Go(func() {
		defer l.end(conn)
		buf := make([]byte, mtu)
		everybody := &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpClientPort}
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := l.answerDHCP(buf[:n]); answer != nil {
				if _, err := conn.WriteTo(answer, everybody); err != nil {
					l.config.Log.Warn("answer DHCP", "err", err)
				}
			}
		}
	})
	return nil
}

// answerDHCP returns the answer to a message, or nil when it deserves none.
func (l *LAN) answerDHCP(message []byte) []byte {
	if len(message) < dhcpHeader || message[0] != bootRequest || binary.BigEndian.Uint32(message[atMagic:]) != dhcpMagic {
		return nil
	}
	options := parseOptions(message[dhcpHeader:])
	own := l.config.Machine.Addr().As4()
	if server := options[optServer]; server != nil && !slices.Equal(server, l.gateway.AsSlice()) {
		return nil
	}
	kind, address := byte(dhcpAck), own
	switch {
	case slices.Equal(options[optType], []byte{dhcpDiscover}):
		kind = dhcpOffer
	case slices.Equal(options[optType], []byte{dhcpRequest}):
		const optWanted = 50
		wanted := options[optWanted]
		if wanted == nil {
			wanted = message[atCiaddr : atCiaddr+4]
		}
		if !slices.Equal(wanted, own[:]) {
			kind, address = dhcpNak, [4]byte{}
		}
	case slices.Equal(options[optType], []byte{dhcpInform}):
		address = [4]byte{}
	default:
		return nil
	}
	// Everything up to the client's hardware address is as in the request.
	answer := slices.Clone(message[:dhcpHeader])
	answer[0] = bootReply
	clear(answer[44:atMagic])
	copy(answer[atYiaddr:], address[:])
	copy(answer[atSiaddr:], l.gateway.AsSlice())
	answer = appendOption(answer, optType, []byte{kind})
	answer = appendOption(answer, optServer, l.gateway.AsSlice())
	if kind != dhcpNak {
		answer = appendOption(answer, optLease, binary.BigEndian.AppendUint32(nil, leaseSeconds))
		answer = appendOption(answer, optMask, net.CIDRMask(l.config.Machine.Bits(), 32))
		answer = appendOption(answer, optRouter, l.gateway.AsSlice())
		answer = appendOption(answer, optDNS, l.gateway.AsSlice())
		answer = appendOption(answer, optMTU, binary.BigEndian.AppendUint16(nil, mtu))
	}
	return append(answer, optEnd)
}

func appendOption(b []byte, code byte, value []byte) []byte {
	return append(append(b, code, byte(len(value))), value...)
}

// parseOptions stops at what it can't make sense of.
func parseOptions(b []byte) map[byte][]byte {
	options := map[byte][]byte{}
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			break
		}
		options[b[0]] = b[2 : 2+int(b[1])]
		b = b[2+int(b[1]):]
	}
	return options
}
