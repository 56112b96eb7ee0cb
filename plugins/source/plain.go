package source

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// plain tells whether a registry must be asked without TLS: one that may be, and that
// doesn't speak TLS. It is asked for nothing, and told nothing.
func (c *Client) plain(ctx context.Context, host string) (bool, error) {
	if !c.AllowHTTP && !loopback(hostname(host)) {
		return false, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/v2/", nil)
	if err != nil {
		return false, err
	}
	resp, err := c.client().Do(req)
	if err == nil {
		return false, resp.Body.Close()
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	// Of another failure the requests that follow tell, as they would without the question.
	return withoutTLS(err, host), nil
}

// withoutTLS reports whether what went wrong is that the other side doesn't speak TLS. Where
// no port is named, HTTP has another one, at which somebody may listen.
func withoutTLS(err error, host string) bool {
	var record tls.RecordHeaderError
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &record) {
		return true
	}
	_, _, portErr := net.SplitHostPort(host)
	return portErr != nil && errors.Is(err, syscall.ECONNREFUSED)
}

// hostname is a registry's name without its port.
func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}

// noClearLogins keeps logins and what is got for them from going over a network without TLS,
// such as to the token server that a registry names.
type noClearLogins struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n noClearLogins) RoundTrip(req *http.Request) (*http.Response, error) {
	// Only tokens are asked for by POST, with the login in the body.
	secret := req.Header.Get("Authorization") != "" || req.Method == http.MethodPost
	if !secret || req.URL.Scheme == "https" || loopback(req.URL.Hostname()) {
		return n.next.RoundTrip(req)
	}
	err := fmt.Errorf("a login would go to %s without TLS", req.URL.Host)
	if req.Body != nil {
		err = errors.Join(err, req.Body.Close())
	}
	return nil, err
}
