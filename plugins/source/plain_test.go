package source_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gildhq/gild/plugins/source"
	"github.com/gildhq/gild/plugins/source/registrytest"
)

// guarded is a registry that wants a login, and remembers those it was given.
type guarded struct {
	*httptest.Server
	challenge string

	mu   sync.Mutex
	seen []string // scheme, method and login of each request
}

func newGuarded(t *testing.T, withTLS bool, challenge string) *guarded {
	t.Helper()
	g := &guarded{challenge: challenge}
	start := httptest.NewServer
	if withTLS {
		start = httptest.NewTLSServer
	}
	g.Server = start(http.HandlerFunc(g.serve))
	g.Config.ErrorLog = nil
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) serve(w http.ResponseWriter, r *http.Request) {
	user, _, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		user = r.FormValue("username")
	}
	g.mu.Lock()
	g.seen = append(g.seen, fmt.Sprintf("tls=%v %s user=%s", r.TLS != nil, r.Method, user))
	g.mu.Unlock()
	w.Header().Set("WWW-Authenticate", g.challenge)
	w.WriteHeader(http.StatusUnauthorized)
}

func (g *guarded) requests() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Join(g.seen, "\n")
}

// elsewhere reaches servers of this machine by names of other machines.
func elsewhere(names map[string]*guarded) http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the names aren't in httptest's certificate
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if g, ok := names[address]; ok {
				address = g.Listener.Addr().String()
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		},
	}
}

// Logins go over TLS, whatever --allow-http allows and the registry says.
func TestNoLoginWithoutTLS(t *testing.T) {
	t.Parallel()
	const basic = `Basic realm="test"`
	for name, test := range map[string]struct {
		host       string // empty: the address on this machine
		tls        bool
		challenge  string
		login, err string
	}{
		"registry with TLS":                 {"registry.test:5000", true, basic, "tls=true HEAD user=" + registrytest.User, "log in to registry.test:5000"},
		"registry without TLS":              {"registry.test:5000", false, basic, "", "registry.test:5000 has no TLS, so no login is sent"},
		"registry of this machine":          {"", false, basic, "tls=false HEAD user=" + registrytest.User, "log in to 127.0.0.1"},
		"tokens from elsewhere without TLS": {"", false, `Bearer realm="http://tokens.test:80/token",service="x"`, "", "a login would go to tokens.test:80 without TLS"},
		"registry and tokens without TLS":   {"registry.test:5000", false, `Bearer realm="http://tokens.test:80/token",service="x"`, "", "has no TLS, so no login is sent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := newGuarded(t, test.tls, test.challenge)
			tokens := newGuarded(t, false, basic)
			host := cmp.Or(test.host, registry.Listener.Addr().String())
			c := &source.Client{
				AllowHTTP: true, DockerConfig: registrytest.DockerConfig(t, host),
				Transport: elsewhere(map[string]*guarded{"registry.test:5000": registry, "tokens.test:80": tokens}),
			}
			_, err := c.Fetch(t.Context(), parse(t, "oci://"+host+"/acme/motd:1.0.0"), source.Request{Scratch: t.TempDir()})
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v; want %q", err, test.err)
			}
			seen := registry.requests() + "\n" + tokens.requests()
			if strings.Contains(seen, "user="+registrytest.User) != (test.login != "") || !strings.Contains(seen, test.login) {
				t.Errorf("the login %q is expected among\n%s", test.login, seen)
			}
		})
	}
}
