package download

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/dest"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "download",
	Version:   "1",
	Summary:   "download a file, check its SHA-256 and put it on the machine",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("download"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	dest.File
	// URL is http or https.
	URL string `json:"url"`
	// SHA256 is the hex digest that the content must have.
	SHA256 string `json:"sha256"`
	// AllowPrivate allows addresses that only this machine or its network can reach.
	AllowPrivate bool `json:"allow-private"`
}

func run(ctx context.Context, t *step.Target, c Config) (_ struct{}, err error) {
	if err := c.Check(); err != nil {
		return struct{}{}, &step.Permanent{Err: err}
	}
	file, err := spool()
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := fetch(ctx, t, c, file); err != nil {
		return struct{}{}, err
	}
	put, err := c.Put(0o644, t.Clock)
	if err != nil {
		return struct{}{}, &step.Permanent{Err: err}
	}
	if err := t.Machine.Put(ctx, put, file); err != nil {
		return struct{}{}, fmt.Errorf("write %s: %w", c.To, err)
	}
	fmt.Fprintf(t.Log, "wrote %s, sha256 %s\n", c.To, strings.ToLower(c.SHA256))
	return struct{}{}, nil
}

// spool returns a temporary file that has no name any more, so that nothing is left of it
// however this process ends.
func spool() (*os.File, error) {
	file, err := os.CreateTemp("", "gild-download-")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// fetch fills file with the verified content and sets it back to its beginning.
func fetch(ctx context.Context, t *step.Target, c Config, file *os.File) error {
	client := newClient(c.AllowPrivate)
	defer client.CloseIdleConnections()
	body, err := open(ctx, client, c)
	if err != nil {
		return err
	}
	defer body.Close()
	sum, err := body.copyTo(file, t.Progress)
	if err != nil {
		return fmt.Errorf("download %s: %w", body.name, err)
	}
	if !strings.EqualFold(sum, c.SHA256) {
		return &step.Permanent{Err: fmt.Errorf("download %s: sha256 is %s, want %s", body.name, sum, strings.ToLower(c.SHA256))}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the download again: %w", err)
	}
	return nil
}
