package sdktest

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/gildhq/gild/plugins/sdk"
)

// Guest makes a guest of a machine, for steps of section tests.
type Guest struct {
	sdk.MachineHandle
	// Started is when it was switched on.
	Started time.Time
	// Ports are addresses ("127.0.0.1:1234") behind the guest's ports; others refuse.
	Ports map[int]string
	// Screen is what its console shows.
	Screen string
}

// PoweredOn implements sdk.Guest.
func (g *Guest) PoweredOn() time.Time { return g.Started }

// Dial implements sdk.Guest.
func (g *Guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	addr, ok := g.Ports[port]
	if !ok {
		return nil, fmt.Errorf("dial port %d of the guest: %w", port, syscall.ECONNREFUSED)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// Console implements sdk.Guest.
func (g *Guest) Console() string { return g.Screen }
