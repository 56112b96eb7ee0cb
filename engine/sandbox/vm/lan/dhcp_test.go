package lan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// ask makes a client's message.
func ask(options ...byte) []byte {
	m := make([]byte, dhcpHeader)
	m[0], m[1], m[2] = bootRequest, 1, 6
	binary.BigEndian.PutUint32(m[4:], 0xfeedbeef)
	copy(m[28:], "\x02\x00\x00\x00\x00\x02")
	binary.BigEndian.PutUint32(m[atMagic:], dhcpMagic)
	return append(append(m, options...), optEnd)
}

func TestAnswerDHCP(t *testing.T) {
	t.Parallel()
	l, _ := start(t, Config{})
	lease := map[byte][]byte{
		optServer: {10, 0, 2, 1}, optLease: {0, 1, 0x51, 0x80}, optMask: {255, 255, 255, 0},
		optRouter: {10, 0, 2, 1}, optDNS: {10, 0, 2, 1}, optMTU: {0x05, 0xdc},
	}
	with := func(kind byte) map[byte][]byte {
		options := map[byte][]byte{optType: {kind}}
		for code, value := range lease {
			options[code] = value
		}
		return options
	}
	for _, test := range []struct {
		name    string
		message []byte
		yours   []byte // nil: no answer
		options map[byte][]byte
	}{
		{"discover", ask(optType, 1, dhcpDiscover), []byte{10, 0, 2, 15}, with(dhcpOffer)},
		{"request", ask(optType, 1, dhcpRequest, 50, 4, 10, 0, 2, 15, optServer, 4, 10, 0, 2, 1), []byte{10, 0, 2, 15}, with(dhcpAck)},
		{"another address", ask(optType, 1, dhcpRequest, 50, 4, 192, 168, 1, 1), []byte{0, 0, 0, 0}, map[byte][]byte{optType: {dhcpNak}, optServer: {10, 0, 2, 1}}},
		{"inform", ask(optPad, optPad, optType, 1, dhcpInform), []byte{0, 0, 0, 0}, with(dhcpAck)},
		{"another server's", ask(optType, 1, dhcpRequest, optServer, 4, 10, 0, 2, 9), nil, nil},
		{"release", ask(optType, 1, 7), nil, nil},
		{"no type", ask(), nil, nil},
		{"cut", ask(optType, 200, 1), nil, nil},
		{"an answer", append([]byte{bootReply}, ask(optType, 1, dhcpDiscover)[1:]...), nil, nil},
		{"no magic", make([]byte, 300), nil, nil},
		{"nothing", nil, nil, nil},
	} {
		got := l.answerDHCP(test.message)
		if (got == nil) != (test.yours == nil) {
			t.Errorf("%s: answer %x", test.name, got)
		}
		if got == nil {
			continue
		}
		if got[0] != bootReply || !bytes.Equal(got[4:8], test.message[4:8]) || !bytes.Equal(got[28:34], test.message[28:34]) {
			t.Errorf("%s: the answer isn't one to the message: %x", test.name, got[:44])
		}
		if diff := cmp.Diff(test.yours, got[atYiaddr:atYiaddr+4]); diff != "" {
			t.Errorf("%s: address (-want +got):\n%s", test.name, diff)
		}
		if diff := cmp.Diff(test.options, parseOptions(got[dhcpHeader:])); diff != "" {
			t.Errorf("%s: options (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestDHCP asks over the wire, by broadcast, as a machine without an address does.
func TestDHCP(t *testing.T) {
	t.Parallel()
	_, s := start(t, Config{})
	var queue waiter.Queue
	ep, problem := s.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if problem != nil {
		t.Fatal(problem)
	}
	ep.SocketOptions().SetBroadcast(true)
	if problem := ep.Bind(tcpip.FullAddress{NIC: nic, Port: dhcpClientPort}); problem != nil {
		t.Fatal(problem)
	}
	conn := gonet.NewUDPConn(&queue, ep)
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err := conn.WriteTo(ask(optType, 1, dhcpDiscover), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpServerPort})
	must(t, err)
	buf := make([]byte, mtu)
	n, _, err := conn.ReadFrom(buf)
	must(t, errors.Join(err, conn.Close()))
	if n < dhcpHeader || !bytes.Equal(buf[atYiaddr:atYiaddr+4], []byte{10, 0, 2, 15}) {
		t.Errorf("the answer is %x", buf[:n])
	}
}

func TestTakes(t *testing.T) {
	t.Parallel()
	l, _ := start(t, Config{})
	frame := func(kind uint16, packet []byte) []byte {
		return append(binary.BigEndian.AppendUint16(make([]byte, 12), kind), packet...)
	}
	arpFor := func(last byte) []byte { return append(make([]byte, 24), 10, 0, 2, last) }
	ipTo := func(protocol byte, to ...byte) []byte {
		packet := make([]byte, 20)
		packet[9] = protocol
		copy(packet[16:], to)
		return packet
	}
	for _, test := range []struct {
		name  string
		frame []byte
		want  bool
	}{
		{"who has the gateway", frame(0x0806, arpFor(1)), true},
		{"who has another", frame(0x0806, arpFor(77)), true},
		{"who has me", frame(0x0806, arpFor(15)), false},
		{"half an ARP", frame(0x0806, arpFor(1)[:20]), false},
		{"TCP", frame(0x0800, ipTo(6, 1, 2, 3, 4)), true},
		{"ping the gateway", frame(0x0800, ipTo(1, 10, 0, 2, 1)), true},
		{"ping the metadata service", frame(0x0800, ipTo(1, 169, 254, 169, 254)), true},
		{"ping another", frame(0x0800, ipTo(1, 1, 2, 3, 4)), false},
		{"half a packet", frame(0x0800, ipTo(6)[:19]), false},
		{"IPv6", frame(0x86dd, make([]byte, 40)), false},
		{"half a frame", make([]byte, 13), false},
	} {
		if got := l.takes(test.frame); got != test.want {
			t.Errorf("%s: %t, want %t", test.name, got, test.want)
		}
	}
}

func FuzzAnswerDHCP(f *testing.F) {
	f.Add(ask(optType, 1, dhcpRequest, 50, 4, 10, 0, 2, 15))
	l, _ := start(f, Config{})
	f.Fuzz(func(t *testing.T, message []byte) {
		if got := l.answerDHCP(message); got != nil && (len(got) < dhcpHeader || got[0] != bootReply) {
			t.Errorf("answer %x to %x", got, message)
		}
	})
}

// FuzzFrames sends any bytes as a machine's frame.
func FuzzFrames(f *testing.F) {
	f.Add(append([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x02\x08\x06"), make([]byte, 28)...))
	f.Add(append([]byte("\x02gild\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45"), make([]byte, 40)...))
	l, _ := start(f, Config{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		wire := append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
		got, err := readFrame(bytes.NewReader(wire))
		if len(frame) > frameLimit {
			return
		}
		must(t, err)
		if l.takes(got) {
			l.inject(got)
		}
	})
}
