package conformance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
)

// Options say what is tested, and with what.
type Options struct {
	// Path is the plugin: a program, a folder with a plugin.yaml, or a folder in which a
	// program called gild-plugin-NAME was built.
	Path string
	// Fixtures is the path of the fixtures; empty means [FixturesName] beside the plugin,
	// if it is there.
	Fixtures string
	// Version of gild, for plugins to see; empty means "(devel)".
	Version string
	// Self is the command of gild's adapter, to which a plugin's folder is appended. Only
	// plugins of kind exec need it.
	Self []string
	// Within is how long the plugin may take to start and to answer a question; 0 means 10 s.
	Within time.Duration
	// Grace is how long a run may take to end after it was asked to; 0 means 10 s.
	Grace time.Duration
	// Machine makes a throw-away machine for runs that ask for a real one, and what ends
	// it. When it fails, or is nil, these runs are [NotRun].
	Machine func(ctx context.Context) (m step.MachineHandle, end func() error, err error)
	// Done is called after each check, in order; may be nil.
	Done func(Result)
}

// Check holds a plugin against the contract. The error is about the question, such as a
// path that isn't there or fixtures that can't be read, never about what the plugin did.
// Cancelling ctx ends it early, with the cause as the error.
func Check(ctx context.Context, o Options) (Report, error) {
	o.fill()
	s, err := open(ctx, o)
	if err != nil {
		return Report{}, err
	}
	report := Report{Path: o.Path}
	for _, c := range checks() {
		r := s.check(ctx, c)
		if ctx.Err() != nil {
			return Report{}, errors.Join(context.Cause(ctx), s.close())
		}
		report.Checks = append(report.Checks, r)
		if o.Done != nil {
			o.Done(r)
		}
	}
	if s.described != nil {
		report.Plugin, report.Version = s.described.GetName(), s.described.GetVersion()
	}
	report.RealRuns = s.realRuns
	return report, s.close()
}

func (o *Options) fill() {
	if o.Version == "" {
		o.Version = "(devel)"
	}
	if o.Within == 0 {
		o.Within = 10 * time.Second
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
}

// located is a plugin found on disk.
type located struct {
	// path is what gild would install: a program, or a folder with a plugin.yaml.
	path     string
	fixtures string
	exec     bool
}

// locate finds the plugin that a path means.
func locate(path string) (located, error) {
	info, err := os.Stat(path)
	if err != nil {
		return located{}, fmt.Errorf("find the plugin: %w", err)
	}
	if !info.IsDir() {
		return located{path: path, fixtures: filepath.Join(filepath.Dir(path), FixturesName)}, nil
	}
	beside := filepath.Join(path, FixturesName)
	m, ok, err := manifest.Read(path)
	if err != nil || ok {
		return located{path: path, fixtures: beside, exec: m.Exec != nil}, err
	}
	programs, err := filepath.Glob(filepath.Join(path, "gild-plugin-*"))
	if err != nil {
		return located{}, fmt.Errorf("look for a program in %s: %w", path, err)
	}
	var found []string
	for _, p := range programs {
		if filepath.Base(p) == FixturesName {
			continue
		}
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			found = append(found, p)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return located{}, fmt.Errorf("look at %s: %w", p, err)
		}
	}
	switch len(found) {
	case 1:
		return located{path: found[0], fixtures: beside}, nil
	case 0:
		return located{}, fmt.Errorf("%s has neither a %s nor a program called gild-plugin-NAME; build it first, as with go build", path, manifest.Name)
	}
	return located{}, fmt.Errorf("%s has several programs called gild-plugin-NAME; name the one to test", path)
}
