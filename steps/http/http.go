package http

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
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
		return struct{}{}, &step.Permanent{Err: errors.New("the machine is no guest booted from the image")}
	}
	address, err := c.url()
	if err != nil {
		return struct{}{}, &step.Permanent{Err: err}
	}
	a := asker{guest: guest, address: address, config: c}
	within := defaultWithin
	if c.Within != nil {
		within = c.Within.Duration
	}
	failed, err := poll.Until(ctx, time.Now().Add(within), a.ask)
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

// asker asks a guest for the same page again and again.
type asker struct {
	guest   step.Guest
	address *url.URL
	config  Config
}

// ask makes one request and returns what of the answer isn't as asked. No answer at all is
// a failed check too: the image is at fault.
func (a asker) ask(ctx context.Context) ([]string, error) {
	bounded, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, body, err := a.request(bounded)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bounded.Err() != nil:
		return []string{fmt.Sprintf("GET %s: no answer in %s", a.address, requestTimeout)}, nil
	case err != nil:
		return []string{fmt.Sprintf("GET %s: %v", a.address, err)}, nil
	}
	return compare("GET "+a.address.String(), a.config, resp, string(body)), nil
}

// request makes one request on a connection of its own. It does without http.Client, which
// keeps a reader on each connection that prints to the process's standard error when a
// server speaks first, and would follow what the environment says of proxies.
func (a asker) request(ctx context.Context) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.address.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Close = true
	req.Header.Set("User-Agent", "gild")
	for name, value := range a.config.RequestHeaders {
		req.Header.Set(name, value)
	}
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := req.Write(conn); err != nil {
		return nil, nil, fmt.Errorf("send the request: %w", err)
	}
	return readAnswer(bufio.NewReader(conn), req)
}

// dial connects to the guest, with TLS when the scheme asks for it.
func (a asker) dial(ctx context.Context) (net.Conn, error) {
	conn, err := a.guest.Dial(ctx, a.config.port())
	if err != nil || a.address.Scheme != "https" {
		return conn, err
	}
	// Nobody can have issued a certificate that verifies for a guest.
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: a.address.Hostname()})
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("agree on TLS: %w", err), conn.Close())
	}
	return secure, nil
}

// readAnswer reads the answer and the part of its body that counts, past those that only
// say that an answer is on its way.
func readAnswer(r *bufio.Reader, req *http.Request) (*http.Response, []byte, error) {
	for {
		resp, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, nil, fmt.Errorf("read the answer: %w", err)
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("read the body: %w", err), resp.Body.Close())
		}
		return resp, body, nil
	}
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
