package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/spec"
)

// addressService is AWS's own answer to "from where do I come": no party is asked that
// doesn't see the caller's address anyway.
const addressService = "https://checkip.amazonaws.com/"

// callerRange finds the only addresses that an SSH rule lets in: this machine's.
//
//   - What builders.aws.connect.from says is taken as it is.
//   - For instances reached at their private address it is the address that this machine
//     uses towards the instance's network.
//   - Behind an endpoint of one's own (a sandbox, another cloud) it is the address that this
//     machine uses towards the endpoint: 127.0.0.1 for one on this machine.
//   - Else AWS is asked. A machine that reaches AWS through a proxy, and its instances in
//     another way, needs `from`.
func (b *Builder) callerRange(ctx context.Context, p *spec.Pipeline, subnet types.Subnet) (netip.Prefix, error) {
	c := p.AWS.Connect
	var addr netip.Addr
	var err error
	switch {
	case c.From != "":
		addr, err = netip.ParseAddr(strings.TrimSuffix(strings.TrimSuffix(c.From, "/32"), "/128"))
	case c.Private:
		addr, err = towardsSubnet(subnet)
	case b.config.Endpoint != "":
		addr, err = towardsEndpoint(b.config.Endpoint)
	default:
		addr, err = askAWS(ctx)
	}
	if err == nil && (addr.IsUnspecified() || addr.IsMulticast()) {
		err = fmt.Errorf("%s is no machine's address", addr)
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("find the address that SSH comes from: %w; set builders.aws.connect.from", err)
	}
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

func towardsSubnet(s types.Subnet) (netip.Addr, error) {
	if s.CidrBlock == nil {
		return netip.Addr{}, errors.New("the subnet has no IPv4 addresses")
	}
	network, err := netip.ParsePrefix(*s.CidrBlock)
	if err != nil {
		return netip.Addr{}, err
	}
	return localAddress(network.Addr().Next().String(), "9")
}

func towardsEndpoint(endpoint string) (netip.Addr, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return netip.Addr{}, err
	}
	return localAddress(u.Hostname(), "9")
}

// localAddress is the address that this machine uses towards another. Nothing is sent:
// connecting a datagram socket only chooses the route.
func localAddress(host, port string) (netip.Addr, error) {
	conn, err := net.Dial("udp", net.JoinHostPort(host, port))
	if err != nil {
		return netip.Addr{}, err
	}
	local := conn.LocalAddr().String()
	if err := conn.Close(); err != nil {
		return netip.Addr{}, err
	}
	addr, err := netip.ParseAddrPort(local)
	return addr.Addr(), err
}

func askAWS(ctx context.Context) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addressService, nil)
	if err != nil {
		return netip.Addr{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return netip.Addr{}, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64))
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return netip.Addr{}, err
	}
	if res.StatusCode != http.StatusOK {
		return netip.Addr{}, fmt.Errorf("%s answered %s", addressService, res.Status)
	}
	return netip.ParseAddr(strings.TrimSpace(string(text)))
}
