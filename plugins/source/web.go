package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/gildhq/gild/plugins/store"
)

const (
	maxRedirects = 5
	defaultMax   = 2 << 30
	defaultStall = time.Minute
)

// checkAddress checks an address of the web before anything is asked.
func checkAddress(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("the source is no address: %w", err)
	case u.Hostname() == "":
		return fmt.Errorf("the address %q names no host", text)
	case u.User != nil:
		return fmt.Errorf("the address of %s holds a user or password, which would end up in gild.lock; use a registry (oci://) for plugins that need one", u.Hostname())
	}
	return nil
}

// client is an HTTP client that tries again what may go better, and follows few redirects.
func (c *Client) client() *http.Client {
	base := c.Transport
	if base == nil {
		base = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			DisableCompression:    true, // the digest is of the file as it lies on the server
			DisableKeepAlives:     true, // a handful of requests, and then nothing is left open
		}
	}
	again := retry.NewTransport(base)
	again.Policy = func() retry.Policy {
		return &retry.GenericPolicy{
			Retryable: retry.DefaultPredicate, Backoff: retry.DefaultBackoff,
			MinWait: 200 * time.Millisecond, MaxWait: 5 * time.Second, MaxRetry: 3,
		}
	}
	return &http.Client{Transport: again, CheckRedirect: c.redirect}
}

func (c *Client) redirect(next *http.Request, before []*http.Request) error {
	if len(before) > maxRedirects {
		return fmt.Errorf("the server sends on more than %d times", maxRedirects)
	}
	if next.URL.Scheme == "http" && before[0].URL.Scheme == "https" {
		return fmt.Errorf("the server sends on from https to %s, which has no TLS", next.URL.Redacted())
	}
	return c.mayAsk(next.URL)
}

// mayAsk tells whether an address may be asked.
func (c *Client) mayAsk(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && (c.AllowHTTP || loopback(u.Hostname())) {
		return nil
	}
	if u.Scheme == "http" {
		return fmt.Errorf("%s has no TLS, so that others see and may change what is fetched; use https, or allow it with --allow-http", u.Redacted())
	}
	return fmt.Errorf("the address %s is neither https nor http", u.Redacted())
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// download fetches a file into the folder and checks its SHA-256, unless want is empty.
func (c *Client) download(ctx context.Context, address, want, dir string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if err := c.mayAsk(u); err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.client().Do(req)
	if err != nil {
		return "", cause(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the server answers %q", resp.Status)
	}
	path, got, err := c.save(ctx, address, resp.Body, resp.ContentLength, dir)
	if err == nil && want != "" && got != want {
		err = errors.Join(&store.DigestError{What: address, Want: want, Got: got}, os.Remove(path))
	}
	return path, err
}

// save writes a stream to a new file of the folder. total below 0 is unknown.
func (c *Client) save(ctx context.Context, name string, r io.ReadCloser, total int64, dir string) (path, digest string, err error) {
	limit := c.MaxBytes
	if limit == 0 {
		limit = defaultMax
	}
	if total > limit {
		return "", "", fmt.Errorf("it has %d bytes, and a plugin may have %d", total, limit)
	}
	f, err := os.CreateTemp(dir, "download-")
	if err != nil {
		return "", "", err
	}
	hash := sha256.New()
	watched := c.watch(name, r, max(total, 0))
	n, err := io.Copy(io.MultiWriter(f, hash), io.LimitReader(watched, limit+1))
	err = errors.Join(watched.end(cause(ctx, err)), f.Close())
	if err == nil && n > limit {
		err = fmt.Errorf("it has more than the %d bytes that a plugin may have", limit)
	}
	if err != nil {
		return "", "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// watched is a stream that is closed when it gives nothing for too long.
type watched struct {
	io.Reader
	timer   *time.Timer
	stall   time.Duration
	stalled chan struct{}
	tell    func(done int64)
	done    int64
}

func (c *Client) watch(name string, r io.ReadCloser, total int64) *watched {
	w := &watched{Reader: r, stall: c.Stall, stalled: make(chan struct{}), tell: func(int64) {}}
	if w.stall == 0 {
		w.stall = defaultStall
	}
	if c.Progress != nil {
		w.tell = func(done int64) { c.Progress(name, done, total) }
	}
	w.timer = time.AfterFunc(w.stall, func() {
		close(w.stalled)
		_ = r.Close() // ends the read, whose error is told
	})
	return w
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.timer.Reset(w.stall)
		w.done += int64(n)
		w.tell(w.done)
	}
	return n, err
}

// end says why reading ended.
func (w *watched) end(err error) error {
	w.timer.Stop()
	select {
	case <-w.stalled:
		return fmt.Errorf("nothing came for %v", w.stall)
	default:
		return err
	}
}

// cause prefers why a context ended over that it did.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// sumOf is the SHA-256 of a file, or the digest of a folder.
func sumOf(path string) (_ string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		if err != nil {
			return "", err
		}
		return store.Digest(path)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}
