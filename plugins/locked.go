package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	return fmt.Sprintf("plugin %s for %s: %s has the digest %s, and gild.lock says %s; it wasn't installed. "+
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
	// What differs must not get into the store, where its digest alone would let it be used.
	var changed error
	locked := func(item source.Item) (bool, error) {
		got, err := store.Digest(item.Path)
		if err == nil && got != on.Digest {
			changed = &ChangedError{Name: name, Platform: platform, Source: item.Source, Want: on.Digest, Got: got}
		}
		return got == on.Digest, err
	}
	got, err := m.collect(ctx, l, src, ask, req.AllowHTTP, locked)
	if err != nil {
		return false, fmt.Errorf("plugin %s: %w", name, err)
	}
	for _, g := range got {
		if g.content.Digest == on.Digest {
			return false, nil
		}
		changed = &ChangedError{Name: name, Platform: platform, Source: g.source, Want: on.Digest, Got: g.content.Digest}
	}
	return false, changed
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
	got, err := m.collect(ctx, l, src, ask, allowHTTP, nil)
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
