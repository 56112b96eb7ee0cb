package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gildhq/gild/engine/step"
)

const (
	// maxSize in bytes of a download.
	maxSize = 8 << 30
	// stall is how long a server may send nothing.
	stall = time.Minute
)

var (
	errStalled = fmt.Errorf("the server sent nothing for %s", stall)
	errTooBig  = fmt.Errorf("it has more than %d GiB", maxSize>>30)
)

// body is a download under way. It must be closed.
type body struct {
	// name is the address without its query, which may hold a signature.
	name   string
	resp   *http.Response
	alive  *time.Timer
	cancel context.CancelCauseFunc
	ctx    context.Context
}

// open asks for the file. An answer of the kind 4xx, which means that the address is
// wrong, is permanent.
func open(ctx context.Context, client *http.Client, c Config) (*body, error) {
	address, err := url.Parse(c.URL)
	if err == nil {
		err = checkURL(address, c.AllowPrivate)
	}
	if err != nil {
		return nil, &step.Permanent{Err: fmt.Errorf("download: %w", withoutAddress(err))}
	}
	b := &body{name: shown(address)}
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.alive = time.AfterFunc(stall, func() { b.cancel(errStalled) })
	req, err := http.NewRequestWithContext(b.ctx, http.MethodGet, address.String(), nil)
	if err == nil {
		req.Header.Set("User-Agent", "gild")
		b.resp, err = client.Do(req)
	}
	if err != nil {
		err = b.reason(err)
		b.Close()
		return nil, fmt.Errorf("download %s: %w", b.name, err)
	}
	if b.resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("download %s: the server answers %s", b.name, b.resp.Status)
		if b.resp.StatusCode/100 == 4 {
			err = &step.Permanent{Err: err}
		}
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// copyTo writes the content to w and returns its SHA-256 in hex.
func (b *body) copyTo(w io.Writer, progress func(done, total int64, unit string)) (string, error) {
	total := max(b.resp.ContentLength, 0)
	if total > maxSize {
		return "", &step.Permanent{Err: errTooBig}
	}
	sum := sha256.New()
	buf := make([]byte, 128<<10)
	for done := int64(0); ; {
		n, err := b.resp.Body.Read(buf)
		b.alive.Reset(stall)
		if done += int64(n); done > maxSize {
			return "", &step.Permanent{Err: errTooBig}
		}
		sum.Write(buf[:n])
		if _, err := w.Write(buf[:n]); err != nil {
			return "", fmt.Errorf("keep it in a temporary file: %w", err)
		}
		progress(done, total, "bytes")
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(sum.Sum(nil)), nil
		}
		if err != nil {
			return "", b.reason(err)
		}
	}
}

// reason returns why the request was cut off, when it was, instead of what the client
// makes of that, which repeats the address.
func (b *body) reason(err error) error {
	if cause := context.Cause(b.ctx); cause != nil {
		return cause
	}
	return withoutAddress(err)
}

// Close ends the download.
func (b *body) Close() error {
	b.alive.Stop()
	b.cancel(context.Canceled)
	if b.resp == nil {
		return nil
	}
	return b.resp.Body.Close()
}

func withoutAddress(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
