package http

import (
	"cmp"
	"context"
	"crypto/tls"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/match"
	"github.com/gildhq/gild/steps/internal/poll"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "http",
	Version:   "1",
	Summary:   "ask the booted image for a page and check the answer",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("http"),
	Sections:  []step.Section{step.Tests},
	Effect:    step.Image,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Port of the guest; 0 means the scheme's own.
	Port int `json:"port"`
	// Scheme is "http" or "https"; empty means http.
	Scheme string `json:"scheme"`
	// Path and query; empty means "/".
	Path string `json:"path"`
	// Host to ask for; empty means localhost.
	Host           string            `json:"host"`
	RequestHeaders map[string]string `json:"request-headers"`
	// Status asked for; 0 means 200.
	Status int `json:"status"`
	// Headers the answer must have, and what their values must contain.
	Headers  map[string]string `json:"headers"`
	Contains match.Strings     `json:"contains"`
	// Within is how long to try; nil means 30 s.
	Within *step.Duration `json:"within"`
}

const (
	defaultWithin  = 30 * time.Second
	requestTimeout = 20 * time.Second
	maxBody        = 1 << 20
)

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	guest, ok := t.Machine.(step.Guest)
	if !ok {
		return struct{}{}, &step.Permanent{Err: fmt.Errorf("the machine is no guest booted from the image")}
	}
	address, err := c.url()
	if err != nil {
		return struct{}{}, &step.Permanent{Err: err}
	}
	client := newClient(guest, c.port(), address.Hostname())
	within := defaultWithin
	if c.Within != nil {
		within = c.Within.Duration
	}
	failed, err := poll.Until(ctx, time.Now().Add(within), func(ctx context.Context) ([]string, error) {
		return ask(ctx, client, address, c)
	})
	if err != nil {
		return struct{}{}, err
	}
	if len(failed) > 0 {
		return struct{}{}, &step.TestFailed{Checks: failed}
	}
	fmt.Fprintf(t.Log, "GET %s is as asked\n", address)
	return struct{}{}, nil
}

// port returns the port to connect to.
func (c Config) port() int {
	switch {
	case c.Port != 0:
		return c.Port
	case c.Scheme == "https":
		return 443
	default:
		return 80
	}
}

// url puts the parts of the address together, without a port that the scheme implies.
func (c Config) url() (*url.URL, error) {
	scheme, host, path := cmp.Or(c.Scheme, "http"), cmp.Or(c.Host, "localhost"), cmp.Or(c.Path, "/")
	if implied := (Config{Scheme: c.Scheme}); c.port() != implied.port() {
		host = net.JoinHostPort(host, strconv.Itoa(c.port()))
	}
	return url.Parse(scheme + "://" + host + path)
}

// newClient returns a client whose every connection goes to a port of the guest.
func newClient(guest step.Guest, port int, host string) *http.Client {
	return &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			// Nobody can have issued a certificate that verifies for a guest.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: host},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return guest.Dial(ctx, port)
			},
		},
	}
}

// ask makes one request and returns what of the answer isn't as asked. No answer at all is
// a failed check too: the image is at fault.
func ask(ctx context.Context, client *http.Client, address *url.URL, c Config) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, &step.Permanent{Err: err}
	}
	req.Header.Set("User-Agent", "gild")
	for name, value := range c.RequestHeaders {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return unanswered(ctx, address, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return unanswered(ctx, address, err)
	}
	return compare("GET "+address.String(), c, resp, string(body)), nil
}

// unanswered tells a guest that doesn't answer from a step that was cancelled.
func unanswered(ctx context.Context, address *url.URL, err error) ([]string, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// The client's own error repeats the method and address.
	if wrapped, ok := err.(*url.Error); ok {
		err = wrapped.Err
	}
	return []string{fmt.Sprintf("GET %s: %v", address, err)}, nil
}

func compare(name string, c Config, resp *http.Response, body string) []string {
	var failed []string
	status := cmp.Or(c.Status, http.StatusOK)
	if resp.StatusCode != status {
		failed = append(failed, fmt.Sprintf("%s: status is %s, want %d", name, strings.TrimSpace(resp.Status), status))
	}
	for _, header := range slices.Sorted(maps.Keys(c.Headers)) {
		got := strings.Join(resp.Header.Values(header), ", ")
		failed = append(failed, match.Strings{c.Headers[header]}.Missing(name+": header "+header, got)...)
	}
	return append(failed, c.Contains.Missing(name+": body", body)...)
}
