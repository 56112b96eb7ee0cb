package download

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// maxRedirects is how many redirects are followed.
const maxRedirects = 10

// newClient returns a client that connects to public addresses only, unless private ones
// are allowed, and to the proxy of the environment wherever that is.
func newClient(allowPrivate bool) *http.Client {
	dial := &dialer{allowPrivate: allowPrivate, proxies: map[string]bool{}}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 dial.proxy,
			DialContext:           dial.dial,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: stall,
			// The digest is of what the server has, not of a packed form of it.
			DisableCompression: true,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return &step.Permanent{Err: fmt.Errorf("more than %d redirects", maxRedirects)}
			}
			if err := checkURL(req.URL, allowPrivate); err != nil {
				return &step.Permanent{Err: fmt.Errorf("redirected to a wrong address: %w", err)}
			}
			return nil
		},
	}
}

// checkURL refuses what can be seen to be wrong before anything is looked up.
func checkURL(u *url.URL, allowPrivate bool) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: only http and https are known", shown(u))
	case u.Hostname() == "":
		return fmt.Errorf("%q names no host", shown(u))
	case u.User != nil:
		return fmt.Errorf("%q holds a user or password, which would be in the file and the logs", shown(u))
	}
	// A proxy would connect to it without the dialer's check.
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !allowPrivate {
		return checkIP(ip)
	}
	return nil
}

// shown is an address for people, without what may be secret in it.
func shown(u *url.URL) string {
	plain := *u
	plain.User, plain.RawQuery, plain.Fragment = nil, "", ""
	return plain.String()
}

// dialer makes connections and looks where they really go.
type dialer struct {
	allowPrivate bool

	mu      sync.Mutex
	proxies map[string]bool // host:port of those the environment names
}

// proxy returns the environment's proxy for a request and remembers it: it may be private.
func (d *dialer) proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if u == nil || err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.proxies[net.JoinHostPort(u.Hostname(), port)] = true
	return u, nil
}

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	free := d.allowPrivate || d.proxies[addr]
	d.mu.Unlock()
	nd := &net.Dialer{Timeout: 30 * time.Second}
	if !free {
		// Called with the address after the look-up, so that a name can't hide it.
		nd.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return checkIP(ap.Addr())
		}
	}
	return nd.DialContext(ctx, network, addr)
}

// special are networks that are neither public nor known to netip as private.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),  // carrier's NAT
	netip.MustParsePrefix("192.0.0.0/24"),   // protocol assignments
	netip.MustParsePrefix("198.18.0.0/15"),  // benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, broadcast
	netip.MustParsePrefix("64:ff9b::/96"),   // IPv4 in IPv6, which may hide a private one
	netip.MustParsePrefix("64:ff9b:1::/48"), // the same
	netip.MustParsePrefix("2002::/16"),      // the same
	netip.MustParsePrefix("fec0::/10"),      // site-local
}

// checkIP refuses addresses that only this machine or its network can reach.
func checkIP(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	private := ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified()
	for _, network := range special {
		private = private || network.Contains(ip)
	}
	if !private {
		return nil
	}
	return &step.Permanent{Err: errors.New(ip.String() + " is an address of this machine or of a private network; set allow-private: true if that is meant")}
}
