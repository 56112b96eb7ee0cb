package broker

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// Client is the plugin's side of the broker, for one run of a step. It is safe for
// concurrent use and must be closed.
type Client struct {
	conn    *grpc.ClientConn
	machine pluginv1.MachineClient
	host    pluginv1.HostClient
}

// Dial returns a client for the address and the token of a RunRequest. It connects with the
// first call, so an address where nobody listens shows there.
func Dial(address, token string) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///localhost",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", address)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(tokenCredentials(token)),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
	)
	if err != nil {
		return nil, fmt.Errorf("reach gild at %s: %w", address, err)
	}
	return &Client{conn: conn, machine: pluginv1.NewMachineClient(conn), host: pluginv1.NewHostClient(conn)}, nil
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// tokenCredentials adds the token to every call.
type tokenCredentials string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t tokenCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{pluginv1.TokenMetadata: string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. The socket's folder
// is what keeps the token from others.
func (tokenCredentials) RequireTransportSecurity() bool { return false }

// Machine returns the machine that info describes: a step.Guest when it is a guest, nil
// when info is nil. It is safe for one call at a time, as every machine is.
func (c *Client) Machine(info *pluginv1.MachineInfo) step.MachineHandle {
	if info == nil {
		return nil
	}
	m := &machine{client: c.machine}
	if !info.GetGuest() {
		return m
	}
	return &guest{machine: m, poweredOn: info.GetPoweredOn().AsTime()}
}

// Claim records a resource durably with gild: see step.Target.Claim.
func (c *Client) Claim(ctx context.Context, r step.Resource) (settle func(context.Context) error, err error) {
	claim, err := c.OpenClaim(ctx, r)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return c.SettleClaim(ctx, claim) }, nil
}

// callError returns why a call failed: the cause of its context's end, or what the other
// side said.
func callError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	known := FromStatus(err)
	if known != err {
		return known
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	if st.Code() == codes.Unavailable {
		return fmt.Errorf("gild doesn't answer: %w", errors.New(st.Message()))
	}
	return &failure{text: st.Message(), causes: []error{err}}
}
