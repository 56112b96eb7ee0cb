package check

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	Name:      "check",
	Version:   "1",
	Summary:   "check files, services, ports, packages, users, kernel parameters and commands of the booted image",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("check"),
	Sections:  []step.Section{step.Tests},
	Effect:    step.Image,
	Cacheable: true,
}, run)

// Config is the step's `with`: assertions by the name of what they are about.
type Config struct {
	File        map[string]File        `json:"file"`
	Service     map[string]Service     `json:"service"`
	Port        map[string]Port        `json:"port"`
	Package     map[string]Package     `json:"package"`
	User        map[string]User        `json:"user"`
	KernelParam map[string]KernelParam `json:"kernel-param"`
	Command     map[string]Command     `json:"command"`
	// Within is how long to look; zero means once.
	Within step.Duration `json:"within"`
}

// File is what a file must be; what isn't given isn't looked at.
type File struct {
	// Exists is true unless given.
	Exists *bool `json:"exists"`
	// Type is "file", "directory" or "symlink".
	Type string `json:"type"`
	// Mode is octal.
	Mode     string        `json:"mode"`
	Owner    string        `json:"owner"`
	Group    string        `json:"group"`
	LinkedTo string        `json:"linked-to"`
	SHA256   string        `json:"sha256"`
	Content  match.Text    `json:"content"`
	Contains match.Strings `json:"contains"`
}

// Service is what a unit must be.
type Service struct {
	Enabled *bool `json:"enabled"`
	Running *bool `json:"running"`
}

// Port is what a port must be.
type Port struct {
	// Listening is true unless given.
	Listening *bool `json:"listening"`
	// Banner is a regular expression.
	Banner string `json:"banner"`
}

// Package is what a package must be.
type Package struct {
	// Installed is true unless given.
	Installed *bool `json:"installed"`
	// Versions are those it may have; empty means any.
	Versions match.Strings `json:"versions"`
}

// User is what an account must be.
type User struct {
	// Exists is true unless given.
	Exists *bool         `json:"exists"`
	UID    *int          `json:"uid"`
	GID    *int          `json:"gid"`
	Groups match.Strings `json:"groups"`
	Home   string        `json:"home"`
	Shell  string        `json:"shell"`
}

// KernelParam is what a kernel parameter must be.
type KernelParam struct {
	Value string `json:"value"`
}

// Command is what a command must do.
type Command struct {
	ExitStatus int           `json:"exit-status"`
	Stdout     match.Strings `json:"stdout"`
	Stderr     match.Strings `json:"stderr"`
}

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	guest, ok := t.Machine.(step.Guest)
	if !ok {
		return struct{}{}, &step.Permanent{Err: errors.New("the machine is no guest booted from the image")}
	}
	l := look{guest: guest, env: t.Env}
	count := 0
	failed, err := poll.Until(ctx, time.Now().Add(c.Within.Duration), func(ctx context.Context) ([]string, error) {
		failed, n, err := l.all(ctx, c)
		count = n
		return failed, err
	})
	if err != nil {
		return struct{}{}, err
	}
	if len(failed) > 0 {
		return struct{}{}, &step.TestFailed{Checks: failed}
	}
	fmt.Fprintf(t.Log, "%d checked, all as asked\n", count)
	return struct{}{}, nil
}

// all looks at everything that the config names, in order of kind and name, and returns
// what isn't as asked and how many things it looked at.
func (l look) all(ctx context.Context, c Config) (failed []string, count int, err error) {
	for _, kind := range []func() ([]string, int, error){
		func() ([]string, int, error) { return each(ctx, "file", c.File, l.file) },
		func() ([]string, int, error) { return each(ctx, "service", c.Service, l.service) },
		func() ([]string, int, error) { return each(ctx, "port", c.Port, l.port) },
		func() ([]string, int, error) { return each(ctx, "package", c.Package, l.pkg) },
		func() ([]string, int, error) { return each(ctx, "user", c.User, l.user) },
		func() ([]string, int, error) { return each(ctx, "kernel-param", c.KernelParam, l.kernelParam) },
		func() ([]string, int, error) { return each(ctx, "command", c.Command, l.command) },
	} {
		lines, n, err := kind()
		if err != nil {
			return nil, 0, err
		}
		failed, count = append(failed, lines...), count+n
	}
	return failed, count, nil
}

// each looks at every thing of one kind.
func each[T any](ctx context.Context, kind string, things map[string]T, at func(context.Context, string, T) ([]string, error)) (failed []string, count int, err error) {
	for _, name := range slices.Sorted(maps.Keys(things)) {
		lines, err := at(ctx, name, things[name])
		if err != nil {
			return nil, 0, fmt.Errorf("look at %s %s: %w", kind, name, err)
		}
		for _, line := range lines {
			failed = append(failed, fmt.Sprintf("%s %s: %s", kind, name, line))
		}
	}
	return failed, len(things), nil
}
