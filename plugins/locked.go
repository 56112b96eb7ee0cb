package plugins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/source"
	"github.com/gildhq/gild/plugins/store"
)

// LockedRequest says where the content of locked plugins may come from.
type LockedRequest struct {
	// Vendor is a folder that [Manager.Vendor] made, in place of the plugins' sources; empty
	// means the sources.
	Vendor string
	// AllowHTTP lets the network be asked without TLS.
	AllowHTTP bool
}

// Installed is a locked plugin that is ready to be used.
type Installed struct {
	Name, Version, Digest string
	// Already says that nothing had to be fetched.
	Already bool
}

// ChangedError says that what a source gives isn't what the lock names.
type ChangedError struct {
	Name, Platform, Source string
	// Want is the lock's digest, Got that of the source.
	Want, Got string
}

// Error tells both digests and what to do.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("plugin %s for %s: %s has the digest %s, and gild.lock says %s; nothing was installed. "+
		"If the change is wanted, lock it with \"gild plugin update %s\"; if not, find out who made it",
		e.Name, e.Platform, e.Source, e.Got, e.Want, e.Name)
}

// InstallLocked installs every plugin of a lock file for this platform, with exactly the
// digests it names. All are tried; the error tells of each that failed.
func (m *Manager) InstallLocked(ctx context.Context, l *lock.File, req LockedRequest) ([]Installed, error) {
	var all []Installed
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(l.Plugins)) {
		p := l.Plugins[name]
		on, err := here(name, p)
		var already bool
		if err == nil {
			already, err = m.provide(ctx, l, name, platformFor(p), req)
		}
		if err == nil {
			_, _, err = m.described(ctx, name, p)
		}
		if ctx.Err() != nil {
			return all, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, Installed{Name: name, Version: p.Version, Digest: on.Digest, Already: already})
	}
	return all, errors.Join(errs...)
}

// platformFor is the platform of a lock's entry for this machine.
func platformFor(p lock.Plugin) string {
	if _, ok := p.Platforms[Here()]; ok {
		return Here()
	}
	return lock.AnyPlatform
}

func splitPlatform(platform string) (os, arch string) {
	os, arch, _ = strings.Cut(platform, "/")
	return os, arch
}

// provide puts the content of a locked plugin for a platform into the store, unless it is
// there and unchanged.
func (m *Manager) provide(ctx context.Context, l *lock.File, name, platform string, req LockedRequest) (already bool, err error) {
	p := l.Plugins[name]
	on := p.Platforms[platform]
	if m.store.Verify(ctx, on.Digest) == nil {
		return true, nil
	}
	if req.Vendor != "" {
		return false, m.fromVendor(ctx, name, platform, on.Digest, req.Vendor)
	}
	text := on.Source
	if text == "" {
		text = p.Source
	}
	src, err := source.Parse(text)
	if err != nil {
		return false, fmt.Errorf("plugin %s in %s: %w", name, l.Path(), err)
	}
	ask := source.Request{Checked: true}
	if platform != lock.AnyPlatform {
		src = src.For(platform)
		ask.Platforms = []string{platform}
	}
	got, err := m.collect(ctx, l, src, ask, req.AllowHTTP)
	if err != nil {
		return false, fmt.Errorf("plugin %s: %w", name, err)
	}
	for _, g := range got {
		if g.content.Digest == on.Digest {
			return false, nil
		}
	}
	for _, g := range got {
		err = &ChangedError{Name: name, Platform: platform, Source: g.source, Want: on.Digest, Got: g.content.Digest}
	}
	return false, err
}

// vendored is the name of a content in a vendored folder.
func vendored(dir, digest string) string {
	return filepath.Join(dir, strings.Replace(digest, ":", "-", 1))
}

func (m *Manager) fromVendor(ctx context.Context, name, platform, digest, dir string) error {
	path := vendored(dir, digest)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("plugin %s: the folder %s has no %s; bring it up to date with \"gild plugin vendor %s\" where the plugins' sources can be reached", name, dir, filepath.Base(path), dir)
	}
	got, err := store.Digest(path)
	if err == nil && got != digest {
		err = &ChangedError{Name: name, Platform: platform, Source: path, Want: digest, Got: got}
	}
	if err != nil {
		return err
	}
	c, err := m.store.Add(ctx, path)
	if err == nil && c.Digest != digest {
		err = &ChangedError{Name: name, Platform: platform, Source: path, Want: digest, Got: c.Digest}
	}
	return err
}

// Vendor makes a folder from which every plugin of a lock file can be installed without a
// network, on every platform that the lock names. Each content is a file or folder named
// after its digest, "sha256-" and 64 hex digits. It returns their paths.
func (m *Manager) Vendor(ctx context.Context, l *lock.File, dir string, allowHTTP bool) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of plugins: %w", err)
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(l.Plugins)) {
		p := l.Plugins[name]
		for _, platform := range slices.Sorted(maps.Keys(p.Platforms)) {
			if _, err := m.provide(ctx, l, name, platform, LockedRequest{AllowHTTP: allowHTTP}); err != nil {
				return paths, err
			}
			path := vendored(dir, p.Platforms[platform].Digest)
			if err := m.export(ctx, p.Platforms[platform].Digest, path); err != nil {
				return paths, fmt.Errorf("put plugin %s for %s into %s: %w", name, platform, dir, err)
			}
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// export copies a content out of the store, unless it is there.
func (m *Manager) export(ctx context.Context, digest, path string) error {
	if got, err := store.Digest(path); err == nil && got == digest {
		return nil
	}
	c, ok, err := m.store.Find(digest)
	if err != nil || !ok {
		return errors.Join(err, fs.ErrNotExist)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(fresh) }() // gone when it was renamed
	if err := m.store.CopyTo(ctx, c, fresh); err != nil {
		return err
	}
	if err := relax(fresh); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	if c.Single {
		return os.Rename(filepath.Join(fresh, store.Program), path)
	}
	return os.Rename(fresh, path)
}

// relax gives files the permissions that they have in a repository.
func relax(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if info.Mode()&0o100 != 0 {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
}

// Update fetches a locked plugin again from its source and locks what it finds. sums are
// as in [InstallRequest]; an address whose content changed needs them.
func (m *Manager) Update(ctx context.Context, l *lock.File, name string, sums map[string]string, allowHTTP bool) (Change, error) {
	p, err := Locked(l, name)
	if err != nil {
		return Change{}, err
	}
	src, err := source.Parse(p.Source)
	if err != nil {
		return Change{}, fmt.Errorf("plugin %s in %s: %w", name, l.Path(), err)
	}
	ask := source.Request{SHA256: sums, Checked: len(sums) == 0}
	if src.IsWeb() && src.PerPlatform() {
		ask.Platforms = slices.DeleteFunc(slices.Sorted(maps.Keys(p.Platforms)), func(s string) bool {
			return s == lock.AnyPlatform || p.Platforms[s].Source != ""
		})
	}
	got, err := m.collect(ctx, l, src, ask, allowHTTP)
	if err != nil {
		return Change{}, fmt.Errorf("plugin %s: %w", name, err)
	}
	if src.IsWeb() && len(sums) == 0 {
		for platform, g := range got {
			if want := p.Platforms[platform].Digest; g.content.Digest != want {
				return Change{}, fmt.Errorf("plugin %s for %s: %s has the digest %s, and gild.lock says %s; an address needs the SHA-256 that the new file was published with: give it with --sha256",
					name, platform, g.source, g.content.Digest, want)
			}
		}
	}
	return m.record(ctx, l, src, name, got)
}

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
		_, d, err := m.described(ctx, name, p.Plugin)
		var missing *NotInstalledError
		switch {
		case err == nil:
			p.Installed, p.Steps = true, stepNames(d)
		case p.Digest != "" && !errors.As(err, &missing):
			p.Installed, p.Problem = true, err
		}
		all = append(all, p)
	}
	return all, context.Cause(ctx)
}
