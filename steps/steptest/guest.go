package steptest

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// Guest stands for a booted guest where no real one is needed: a machine that has commands
// and files, the host's network, and addresses that stand for its ports.
type Guest struct {
	step.MachineHandle
	// Started is when the guest was switched on.
	Started time.Time
	// Ports are the addresses behind the guest's ports; others refuse.
	Ports map[int]string
}

// Exec runs the command with a network, as a guest has one.
func (g *Guest) Exec(ctx context.Context, cmd step.Cmd) error {
	cmd.Network = true
	return g.MachineHandle.Exec(ctx, cmd)
}

// PoweredOn implements step.Guest.
func (g *Guest) PoweredOn() time.Time { return g.Started }

// Dial implements step.Guest.
func (g *Guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	addr, ok := g.Ports[port]
	if !ok {
		return nil, fmt.Errorf("port %d: connection refused", port)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// Console implements step.Guest.
func (g *Guest) Console() string { return "debian login:" }
