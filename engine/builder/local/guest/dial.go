package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

const netdevID = "net"

// forwards are the ports of the host's loopback that lead to the guest.
type forwards struct {
	qmp *qmp

	mu     sync.Mutex
	byPort map[int]string // the host's address by the guest's port
}

// Dial connects to a TCP port of the guest through a port of the host's loopback, which
// stays reserved for it until the guest is closed.
//
// That it succeeds says nothing about the guest: the host's side of the connection is
// accepted before the guest is asked. When nothing listens there, or the guest has no
// address yet, the connection ends at the first read or never yields anything: read,
// with a deadline, to know.
func (g *Guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("connect to the guest's port %d: ports are 1 to 65535", port)
	}
	select {
	case <-g.ended:
		return nil, fmt.Errorf("connect to the guest's port %d: %w", port, g.endedBy)
	default:
	}
	address, err := g.forwards.open(port)
	if err != nil {
		return nil, fmt.Errorf("connect to the guest's port %d: %w", port, err)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", address)
}

// open returns the host's address that leads to the guest's port.
func (f *forwards) open(port int) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if address, ok := f.byPort[port]; ok {
		return address, nil
	}
	// Port 0 lets the kernel choose, so there is nothing to race for.
	said, err := f.qmp.human(fmt.Sprintf("hostfwd_add %s tcp:127.0.0.1:0-:%d", netdevID, port))
	if err != nil {
		return "", err
	}
	if said = strings.TrimSpace(said); said != "" {
		return "", fmt.Errorf("QEMU: %s", said)
	}
	table, err := f.qmp.human("info usernet")
	if err != nil {
		return "", err
	}
	address, err := findForward(table, port)
	if err != nil {
		return "", err
	}
	f.byPort[port] = address
	return address, nil
}

// findForward looks a forward up in what "info usernet" prints, whose columns are
// protocol[state], descriptor, source address and port, destination address and port.
func findForward(table string, port int) (string, error) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 6 && f[0] == "TCP[HOST_FORWARD]" && f[5] == fmt.Sprint(port) {
			return net.JoinHostPort(f[2], f[3]), nil
		}
	}
	return "", errors.New("QEMU doesn't list the forwarded port")
}
