package service

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/capture"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "service",
	Version:   "1",
	Summary:   "enable, disable, mask or install a systemd unit",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("service"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Name of the unit; ".service" is added when it has no suffix.
	Name string `json:"name"`
	// Enable and Mask leave things as they are when nil.
	Enable *bool `json:"enable"`
	Mask   *bool `json:"mask"`
	// Unit is the text of the unit file, From the project's file that holds it; at most one.
	Unit string `json:"unit"`
	From string `json:"from"`
	// Dropin is the text of a file that changes the unit's settings.
	Dropin string `json:"dropin"`
}

// folder is where the administrator's units are; the image's author is its administrator.
const folder = "/etc/systemd/system"

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	unit := c.Name
	if !hasSuffix(unit) {
		unit += ".service"
	}
	if err := needSystemd(ctx, t.Machine); err != nil {
		return struct{}{}, err
	}
	if err := putUnit(ctx, t, c, unit); err != nil {
		return struct{}{}, fmt.Errorf("write unit %s: %w", unit, err)
	}
	if c.Dropin != "" {
		if err := put(ctx, t, path.Join(folder, unit+".d", "50-gild.conf"), strings.NewReader(c.Dropin)); err != nil {
			return struct{}{}, fmt.Errorf("write drop-in of %s: %w", unit, err)
		}
	}
	// A masked unit can't be enabled, so that unmasking goes first and masking last.
	for _, change := range []struct {
		verb   string
		wanted bool
	}{
		{"unmask", is(c.Mask, false)},
		{"enable", is(c.Enable, true)},
		{"disable", is(c.Enable, false)},
		{"mask", is(c.Mask, true)},
	} {
		if !change.wanted {
			continue
		}
		if err := systemctl(ctx, t, "--root=/", change.verb, "--", unit); err != nil {
			return struct{}{}, fmt.Errorf("%s %s: %w", change.verb, unit, err)
		}
	}
	return struct{}{}, nil
}

func needSystemd(ctx context.Context, m step.MachineHandle) error {
	err := m.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-c", "command -v systemctl"}})
	var none *step.ExitError
	if errors.As(err, &none) {
		return &step.Permanent{Err: errors.New("there is no systemd on the machine; add it with the step packages")}
	}
	if err != nil {
		return fmt.Errorf("look for systemd: %w", err)
	}
	return nil
}

func is(b *bool, want bool) bool { return b != nil && *b == want }

func hasSuffix(unit string) bool {
	switch path.Ext(unit) {
	case ".service", ".socket", ".timer", ".target", ".mount", ".automount", ".path", ".swap", ".slice", ".device", ".scope":
		return true
	}
	return false
}

// putUnit writes the unit file, when the config has one.
func putUnit(ctx context.Context, t *step.Target, c Config, unit string) error {
	to := path.Join(folder, unit)
	if c.From == "" {
		if c.Unit == "" {
			return nil
		}
		return put(ctx, t, to, strings.NewReader(c.Unit))
	}
	in, ok := t.Inputs[c.From]
	if !ok {
		return fmt.Errorf("%q was not handed to the step", c.From)
	}
	if in.IsDir() {
		return &step.Permanent{Err: fmt.Errorf("%q is a folder", c.From)}
	}
	r, err := in.Open(".")
	if err != nil {
		return fmt.Errorf("open %q: %w", c.From, err)
	}
	defer r.Close()
	return put(ctx, t, to, r)
}

func put(ctx context.Context, t *step.Target, to string, content io.Reader) error {
	return t.Machine.Put(ctx, step.PutFile{Path: to, ModTime: t.Clock, Parents: true}, content)
}

// systemctl adds to a failure what systemctl gave as the reason.
func systemctl(ctx context.Context, t *step.Target, args ...string) error {
	out := capture.New(t.Log, 4<<10)
	err := t.Machine.Exec(ctx, step.Cmd{Argv: append([]string{"systemctl"}, args...), Stdout: out.Stdout(), Stderr: out.Stderr()})
	var failed *step.ExitError
	if text := strings.TrimSpace(out.StderrText()); errors.As(err, &failed) && text != "" {
		return fmt.Errorf("%w: %s", err, text[strings.LastIndexByte(text, '\n')+1:])
	}
	return err
}
