// Package plugins is where the parts of gild that know plugins come together: what gild.lock
// names, what is installed in the state folder, and the processes that run it.
//
// In go lock files and, to install something, where it comes from; out come steps for the
// engine and answers for the command line. A plugin is used only with the digest that the
// lock file names. The package never prints, and never asks the network but to install.
package plugins

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/host"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// Config says how a [Manager] works.
type Config struct {
	// State is gild's state folder; plugins are kept in its folder "plugins".
	State string
	// Version of gild, told to plugins.
	Version string
	// Self is the command of gild's adapter for plugins of kind exec.
	Self []string
	// Log takes what plugins write outside of steps. Nil discards it.
	Log io.Writer
	// Progress is told of downloads: bytes done and in all, 0 when unknown. May be nil.
	Progress func(source string, done, total int64)
	// DockerConfig is the file with the credentials of registries; empty means docker's.
	DockerConfig string
}

// Manager installs plugins and gives out their steps. It is safe for concurrent use, except
// that one lock file must not be worked on twice at once.
type Manager struct {
	cfg   Config
	store *store.Store
	host  *host.Host
}

// Open opens the plugins of a state folder. It starts nothing. Close it.
func Open(cfg Config) (*Manager, error) {
	dir := filepath.Join(cfg.State, "plugins")
	s, err := store.Open(dir)
	if err != nil {
		return nil, err
	}
	h, err := host.New(host.Config{Dir: dir, Store: s, Version: cfg.Version, Self: cfg.Self, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return &Manager{cfg: cfg, store: s, host: h}, nil
}

// Close ends every process of a plugin.
func (m *Manager) Close() error { return m.host.Close() }

// Withhold names variables of gild's environment that no plugin that is started afterwards
// may see, whatever its manifest says.
func (m *Manager) Withhold(names []string) { m.host.Withhold(names) }

// Here is the platform that plugins run on, such as "linux/amd64".
func Here() string { return runtime.GOOS + "/" + runtime.GOARCH }

// NotInstalledError says that a plugin is locked but its content isn't in the state folder.
type NotInstalledError struct{ Name, Version, Digest string }

// Error tells what to do.
func (e *NotInstalledError) Error() string {
	name := e.Name
	if e.Version != "" {
		name += " " + e.Version
	}
	return fmt.Sprintf("plugin %s (%s) isn't installed; run \"gild plugin install\" in the folder of its gild.lock", name, e.Digest)
}

// Steps returns the steps of a locked plugin. The error is a [*NotInstalledError] when it
// must be installed first.
func (m *Manager) Steps(ctx context.Context, name string, p lock.Plugin) ([]step.Step, error) {
	c, _, err := m.described(ctx, name, p)
	if err != nil {
		return nil, err
	}
	return m.host.Steps(ctx, c)
}

// Description is what a plugin says of itself.
type Description struct {
	*pluginv1.DescribeResponse
	// Environment names the variables of gild's environment that the plugin's manifest asks
	// for: it sees them, unless they are withheld.
	Environment []string
}

// Describe returns what a locked plugin says it has.
func (m *Manager) Describe(ctx context.Context, name string, p lock.Plugin) (Description, error) {
	c, d, err := m.described(ctx, name, p)
	return Description{d, c.Manifest.Environment}, err
}

// DescribePath returns what the plugin at a path says it has. It is added to the store.
func (m *Manager) DescribePath(ctx context.Context, path string) (Description, error) {
	path, err := programIn(path)
	if err != nil {
		return Description{}, err
	}
	c, err := m.store.Add(ctx, path)
	if err != nil {
		return Description{}, fmt.Errorf("read plugin %s: %w", path, err)
	}
	d, err := m.host.Describe(ctx, c)
	return Description{d, c.Manifest.Environment}, err
}

// described finds a locked plugin and checks that it is what the lock says.
func (m *Manager) described(ctx context.Context, name string, p lock.Plugin) (store.Content, *pluginv1.DescribeResponse, error) {
	on, err := here(name, p)
	if err != nil {
		return store.Content{}, nil, err
	}
	c, ok, err := m.store.Find(on.Digest)
	if err == nil && !ok {
		err = &NotInstalledError{Name: name, Version: p.Version, Digest: on.Digest}
	}
	if err != nil {
		return store.Content{}, nil, err
	}
	d, err := m.host.Describe(ctx, c)
	if err != nil {
		return store.Content{}, nil, err
	}
	if d.GetName() != name || d.GetVersion() != p.Version {
		return store.Content{}, nil, fmt.Errorf("gild.lock names plugin %s %s, but %s says that it is %s %s; remove it from gild.lock and install it again",
			name, p.Version, on.Digest, d.GetName(), d.GetVersion())
	}
	return c, d, nil
}

// here is what a lock says of a plugin on this platform.
func here(name string, p lock.Plugin) (lock.Platform, error) {
	on, ok := p.On(runtime.GOOS, runtime.GOARCH)
	if !ok {
		return on, fmt.Errorf("gild.lock has plugin %s for %s, and not for %s; add it with \"gild plugin install SOURCE\", on such a machine or with --platform %s --name %s",
			name, strings.Join(slices.Sorted(maps.Keys(p.Platforms)), ", "), Here(), Here(), name)
	}
	return on, nil
}

// Cleanup removes a resource that a step claimed; plugin is [step.Step.Plugin], such as
// "acme/agent@sha256:...". It works for plugins that no lock file names any more.
func (m *Manager) Cleanup(ctx context.Context, plugin string, r step.Resource) error {
	name, digest, ok := strings.Cut(plugin, "@")
	if !ok {
		return fmt.Errorf("%q names no plugin with its digest", plugin)
	}
	c, found, err := m.store.Find(digest)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("remove %s %q, which the plugin claimed: %w; if no gild.lock names that digest any more, install the version that has it from its source",
			r.Kind, r.ID, &NotInstalledError{Name: name, Digest: digest})
	}
	return m.host.Cleanup(ctx, c, r)
}

// Sweep lists what dead processes of gild left of plugins, and removes it unless dry.
func (m *Manager) Sweep(ctx context.Context, dry bool) ([]step.Resource, error) {
	gone, err := m.host.Sweep(ctx, dry)
	dirs, storeErr := m.store.Sweep(ctx, dry)
	for _, dir := range dirs {
		gone = append(gone, step.Resource{Kind: "plugin files", ID: dir, Note: "of an installation that was killed"})
	}
	return gone, errors.Join(err, storeErr)
}

// UnknownError says that a lock file doesn't name a plugin.
type UnknownError struct {
	Name string
	// Lock is the path of the lock file, Known what it names.
	Lock  string
	Known []string
}

// Error tells what there is.
func (e *UnknownError) Error() string {
	if len(e.Known) == 0 {
		return fmt.Sprintf("%s names no plugin %q, and no other; install one with \"gild plugin install SOURCE\"", e.Lock, e.Name)
	}
	return fmt.Sprintf("%s names no plugin %q; it names %s", e.Lock, e.Name, strings.Join(e.Known, ", "))
}

func unknown(l *lock.File, name string) error {
	return &UnknownError{Name: name, Lock: l.Path(), Known: slices.Sorted(maps.Keys(l.Plugins))}
}

// Locked returns what a lock file says of a plugin, or an [*UnknownError].
func Locked(l *lock.File, name string) (lock.Plugin, error) {
	p, ok := l.Plugins[name]
	if !ok {
		return p, unknown(l, name)
	}
	return p, nil
}
