package plugins

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/store"
)

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
	if err != nil {
		return fmt.Errorf("install plugin %s from %s: %w", name, path, err)
	}
	if c.Digest != digest {
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
