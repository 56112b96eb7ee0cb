package hostname

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "hostname",
	Version:   "1",
	Summary:   "set the host name",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("hostname"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Name is a host name or a full domain name.
	Name string `json:"name"`
}

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	var hosts bytes.Buffer
	err := t.Machine.Get(ctx, "/etc/hosts", &hosts)
	if errors.Is(err, fs.ErrNotExist) {
		hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	} else if err != nil {
		return struct{}{}, fmt.Errorf("read /etc/hosts: %w", err)
	}
	for _, file := range []struct{ path, text string }{
		{"/etc/hostname", c.Name + "\n"},
		{"/etc/hosts", withName(hosts.String(), c.Name)},
	} {
		if err := t.Machine.Put(ctx, step.PutFile{Path: file.path, ModTime: t.Clock}, strings.NewReader(file.text)); err != nil {
			return struct{}{}, fmt.Errorf("write %s: %w", file.path, err)
		}
	}
	fmt.Fprintf(t.Log, "the host name is %s\n", c.Name)
	return struct{}{}, nil
}

// withName returns the text of a hosts file in which 127.0.1.1, Debian's address for the
// machine's own name, has this name and no other.
func withName(hosts, name string) string {
	entry := "127.0.1.1\t" + name
	if short, _, isFull := strings.Cut(name, "."); isFull {
		entry += " " + short
	}
	var out strings.Builder
	placed := false
	for line := range strings.Lines(hosts) {
		line = strings.TrimSuffix(line, "\n")
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == "127.0.1.1" {
			if placed {
				continue
			}
			line, placed = entry, true
		}
		out.WriteString(line + "\n")
	}
	if !placed {
		out.WriteString(entry + "\n")
	}
	return out.String()
}
