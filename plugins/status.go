package plugins

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"runtime"
	"slices"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/store"
)

// The outcomes of [Manager.Verify].
const (
	StatusOK      = "ok"
	StatusChanged = "changed"
	StatusMissing = "missing"
)

// Check is what the content of a locked plugin was found to be.
type Check struct {
	Name, Version, Platform string
	// Digest is the lock's, Got that of the content when it changed.
	Digest, Got string
	Status      string
}

// Verify hashes the installed contents of the plugins of a lock file. Contents for other
// platforms count only when they are here.
func (m *Manager) Verify(ctx context.Context, l *lock.File) ([]Check, error) {
	var all []Check
	for _, name := range slices.Sorted(maps.Keys(l.Plugins)) {
		p := l.Plugins[name]
		if _, ok := p.On(runtime.GOOS, runtime.GOARCH); !ok {
			all = append(all, Check{Name: name, Version: p.Version, Platform: Here(), Status: StatusMissing})
		}
		for _, platform := range slices.Sorted(maps.Keys(p.Platforms)) {
			c := Check{Name: name, Version: p.Version, Platform: platform, Digest: p.Platforms[platform].Digest, Status: StatusOK}
			err := m.store.Verify(ctx, c.Digest)
			var changed *store.DigestError
			switch {
			case errors.As(err, &changed):
				c.Status, c.Got = StatusChanged, changed.Got
			case errors.Is(err, fs.ErrNotExist):
				if platform != platformFor(p) {
					continue
				}
				c.Status = StatusMissing
			case err != nil:
				return nil, err
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// Listed is a locked plugin.
type Listed struct {
	Name string
	lock.Plugin
	// Digest is that for this platform, or empty.
	Digest    string
	Installed bool
	// Steps are the names of its steps, when it is installed.
	Steps []string
	// Environment is as in [Description].
	Environment []string
	// Problem says why an installed plugin can't be used.
	Problem error
}

// List tells of every plugin of a lock file, sorted by name.
func (m *Manager) List(ctx context.Context, l *lock.File) ([]Listed, error) {
	var all []Listed
	for _, name := range slices.Sorted(maps.Keys(l.Plugins)) {
		p := Listed{Name: name, Plugin: l.Plugins[name]}
		if on, ok := p.On(runtime.GOOS, runtime.GOARCH); ok {
			p.Digest = on.Digest
		}
		c, d, err := m.described(ctx, name, p.Plugin)
		var missing *NotInstalledError
		switch {
		case err == nil:
			p.Installed, p.Steps, p.Environment = true, stepNames(d), c.Manifest.Environment
		case p.Digest != "" && !errors.As(err, &missing):
			p.Installed, p.Problem = true, err
		}
		all = append(all, p)
	}
	return all, context.Cause(ctx)
}
