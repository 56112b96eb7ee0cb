package kernelargs

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "kernel-args",
	Version:   "1",
	Summary:   "change the kernel's command line",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("kernel-args"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	Add []string `json:"add"`
	// Remove holds arguments, or names of arguments whose value doesn't matter.
	Remove []string `json:"remove"`
}

const (
	cmdline = "/etc/kernel/cmdline"
	grub    = "/etc/default/grub.d/50-gild.cfg"
)

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	var old bytes.Buffer
	if err := t.Machine.Get(ctx, cmdline, &old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return struct{}{}, fmt.Errorf("read %s: %w", cmdline, err)
	}
	args := strings.Join(change(strings.Fields(old.String()), c), " ")
	if err := write(ctx, t, cmdline, args+"\n"); err != nil {
		return struct{}{}, err
	}
	hasGrub, err := usesGrub(ctx, t.Machine)
	if err != nil {
		return struct{}{}, fmt.Errorf("look for GRUB: %w", err)
	}
	if hasGrub {
		// The schema allows no character that the shell, which reads this file, takes for its own.
		if err := write(ctx, t, grub, "GRUB_CMDLINE_LINUX=\""+args+"\"\n"); err != nil {
			return struct{}{}, err
		}
	}
	fmt.Fprintf(t.Log, "kernel arguments: %s\n", args)
	return struct{}{}, nil
}

// change returns the arguments that are left and added, each once.
func change(args []string, c Config) []string {
	args = slices.DeleteFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains(c.Remove, arg) || slices.Contains(c.Remove, name)
	})
	for _, arg := range c.Add {
		if !slices.Contains(args, arg) {
			args = append(args, arg)
		}
	}
	return args
}

func usesGrub(ctx context.Context, m step.MachineHandle) (bool, error) {
	const find = `test -e /etc/default/grub || test -x /usr/sbin/update-grub`
	err := m.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-c", find}})
	var no *step.ExitError
	if errors.As(err, &no) {
		return false, nil
	}
	return err == nil, err
}

func write(ctx context.Context, t *step.Target, path, text string) error {
	file := step.PutFile{Path: path, ModTime: t.Clock, Parents: true}
	if err := t.Machine.Put(ctx, file, strings.NewReader(text)); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
