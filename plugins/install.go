package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/source"
	"github.com/gildhq/gild/plugins/store"
)

// InstallRequest says what to install and lock.
type InstallRequest struct {
	// Source of the plugin; see [source.Source].
	Source string
	// Dir is what a relative path is relative to; empty means the working folder.
	Dir string
	// SHA256 of downloads, by platform or, for the only file, by "".
	SHA256 map[string]string
	// Name that the plugin must have; empty means any.
	Name string
	// Platforms to lock, such as "linux/arm64"; none means all that the source offers.
	Platforms []string
	// AllowHTTP lets the network be asked without TLS.
	AllowHTTP bool
}

// Change is what became of a plugin in a lock file.
type Change struct {
	Name string
	// Old is what the lock said before; its Version is empty when it said nothing.
	Old, New lock.Plugin
	// Dropped are platforms that the lock had, and whose content is now another version's.
	Dropped []string
	// Steps are the names of the plugin's steps; none when the plugin can't be asked here.
	Steps []string
	// Environment is as in [Description].
	Environment []string
}

// Same reports whether nothing changed.
func (c Change) Same() bool {
	return c.Old.Version == c.New.Version && c.Old.Source == c.New.Source && maps.Equal(c.Old.Platforms, c.New.Platforms)
}

// Install fetches a plugin, asks it what it is, and locks it: the lock file is saved.
//
// A plugin that isn't for this platform can't be asked: it is added to what the lock has
// under req.Name.
func (m *Manager) Install(ctx context.Context, l *lock.File, req InstallRequest) (Change, error) {
	src, err := source.Parse(req.Source)
	if err != nil {
		return Change{}, err
	}
	if src, err = m.fromLock(l, src, req.Dir); err != nil {
		return Change{}, err
	}
	got, err := m.collect(ctx, l, src, source.Request{Platforms: req.Platforms, SHA256: req.SHA256}, req.AllowHTTP, nil)
	if err != nil {
		return Change{}, err
	}
	return m.record(ctx, l, src, req.Name, got)
}

// fromLock makes a relative path relative to the lock file's folder, and means the program
// where it is in the folder of its sources.
func (m *Manager) fromLock(l *lock.File, src source.Source, dir string) (source.Source, error) {
	if !src.IsPath() {
		return src, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return src, err
	}
	text := src.String()
	if !src.PerPlatform() {
		if !filepath.IsAbs(text) {
			text = filepath.Join(dir, text)
		}
		if text, err = programIn(text); err != nil {
			return src, fmt.Errorf("install plugin: %w", err)
		}
		if !filepath.IsAbs(src.String()) {
			if text, err = filepath.Rel(dir, text); err != nil {
				return src, err
			}
		}
		if src, err = source.Parse(text); err != nil {
			return src, err
		}
	}
	to, err := lockDir(l)
	if err != nil {
		return src, err
	}
	return src.Relative(dir, to)
}

func lockDir(l *lock.File) (string, error) { return filepath.Abs(filepath.Dir(l.Path())) }

// gotten is content that was fetched for a platform.
type gotten struct {
	source  string
	content store.Content
}

// collect fetches a source into the store, by platform. What wanted, if there is one, says no
// to doesn't get there.
func (m *Manager) collect(ctx context.Context, l *lock.File, src source.Source, req source.Request, allowHTTP bool, wanted func(source.Item) (bool, error)) (_ map[string]gotten, err error) {
	dir, err := lockDir(l)
	if err != nil {
		return nil, err
	}
	scratch, done, err := m.store.Scratch(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	req.Scratch = scratch
	client := &source.Client{Dir: dir, AllowHTTP: allowHTTP, Progress: m.cfg.Progress, DockerConfig: m.cfg.DockerConfig}
	items, err := client.Fetch(ctx, src, req)
	if err != nil {
		return nil, err
	}
	got := map[string]gotten{}
	for _, item := range items {
		if wanted != nil {
			if ok, err := wanted(item); err != nil {
				return nil, err
			} else if !ok {
				continue
			}
		}
		c, err := m.store.Add(ctx, item.Path)
		if err != nil {
			return nil, fmt.Errorf("install plugin from %s: %w", item.Source, err)
		}
		platform, err := platformOf(c)
		if err != nil {
			return nil, err
		}
		switch {
		case item.Platform == "":
			item.Platform = platform
		case platform != lock.AnyPlatform && platform != item.Platform:
			return nil, fmt.Errorf("install plugin from %s: it should be for %s, but holds programs for %s", item.Source, item.Platform, platform)
		}
		got[item.Platform] = gotten{item.Source, c}
		if filepath.Dir(item.Path) == scratch {
			if err := os.Remove(item.Path); err != nil {
				return nil, err
			}
		}
	}
	return got, nil
}

// record checks what was fetched and writes it into the lock.
func (m *Manager) record(ctx context.Context, l *lock.File, src source.Source, name string, got map[string]gotten) (Change, error) {
	own, ok := got[Here()]
	if !ok {
		own, ok = got[lock.AnyPlatform]
	}
	if !ok {
		return m.add(l, src, name, got)
	}
	d, err := m.host.Describe(ctx, own.content)
	if err != nil {
		return Change{}, fmt.Errorf("install plugin from %s: %w", src, err)
	}
	if name != "" && d.GetName() != name {
		return Change{}, fmt.Errorf("install plugin from %s: it says that its name is %s, and not %s", src, d.GetName(), name)
	}
	ch := Change{Name: d.GetName(), Old: l.Plugins[d.GetName()], Steps: stepNames(d), Environment: own.content.Manifest.Environment}
	ch.New = lock.Plugin{Source: src.String(), Version: d.GetVersion(), Platforms: platforms(src, got)}
	before, had := ch.Old.On(splitPlatform(Here()))
	for platform, on := range ch.Old.Platforms {
		switch _, again := ch.New.Platforms[platform]; {
		case again:
		case had && before.Digest == own.content.Digest:
			ch.New.Platforms[platform] = on
		default:
			ch.Dropped = append(ch.Dropped, platform)
		}
	}
	slices.Sort(ch.Dropped)
	l.Plugins[ch.Name] = ch.New
	_, err = l.Save()
	return ch, err
}

// add adds content for other platforms to a plugin that the lock has.
func (m *Manager) add(l *lock.File, src source.Source, name string, got map[string]gotten) (Change, error) {
	have := slices.Sorted(maps.Keys(got))
	if name == "" {
		return Change{}, fmt.Errorf("install plugin from %s: it is for %v, so this machine (%s) can't ask it for its name; give that with --name", src, have, Here())
	}
	old, ok := l.Plugins[name]
	if !ok {
		return Change{}, fmt.Errorf("install plugin from %s: it is for %v, and %s doesn't name %s yet: install it for %s first", src, have, l.Path(), name, Here())
	}
	ch := Change{Name: name, Old: old, New: old}
	ch.New.Platforms = maps.Clone(old.Platforms)
	for platform, on := range platforms(src, got) {
		if on.Source == "" && src.String() != old.Source {
			on.Source = src.For(platform).String()
		}
		ch.New.Platforms[platform] = on
	}
	l.Plugins[name] = ch.New
	_, err := l.Save()
	return ch, err
}

// platforms are the lock's entries for what was fetched. A source that an entry's own
// platform gives again isn't repeated.
func platforms(src source.Source, got map[string]gotten) map[string]lock.Platform {
	all := map[string]lock.Platform{}
	for platform, g := range got {
		on := lock.Platform{Digest: g.content.Digest}
		if g.source != src.For(platform).String() {
			on.Source = g.source
		}
		all[platform] = on
	}
	return all
}

func stepNames(d *pluginv1.DescribeResponse) []string {
	names := []string{}
	for _, s := range d.GetSteps() {
		names = append(names, s.GetName())
	}
	slices.Sort(names)
	return names
}
