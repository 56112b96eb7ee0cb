// Package store keeps installed plugins, each under the digest of its content.
//
// In goes a program, a folder or a .tar.gz of a folder; out comes a [Content]: a read-only
// folder of the store, its digest and its manifest. What is in the store is never changed,
// only added and removed. Many processes may use one store at once.
//
// A digest in the store says what the content was when it was added. Who runs a plugin
// takes a copy with [Store.CopyTo], which hashes what it copies, so that what was checked is
// what runs. The package never runs anything and never asks the network.
package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/plugins/manifest"
)

// Program is the name that the store gives a plugin that is a single program.
const Program = "plugin"

// Content is one plugin of a store.
type Content struct {
	// Digest is what [Digest] says of the content.
	Digest string
	// Dir is a folder of the store with the plugin's files, which are read-only: mode 0400
	// or 0500, folders 0700. It may go at any time by [Store.Remove].
	Dir string
	// Single says that the plugin is one program, the file [Program] in Dir.
	Single bool
	// Manifest is the folder's plugin.yaml, or what stands for it.
	Manifest manifest.Manifest
}

// Store is a folder of plugins. It is safe for concurrent use.
type Store struct {
	dir    string
	limits limits
}

// The store's folder holds, each under the hex digits of its digest, folders that hold
// either "program" or "folder"; what is being added; and the file that processes lock.
const (
	contentDir  = "content"
	incomingDir = "incoming"
	lockFile    = "lock"
	programDir  = "program"
	folderDir   = "folder"
)

// Open opens the store in a folder, and makes it when it is missing. There is nothing to close.
func Open(dir string) (*Store, error) {
	for _, d := range []string{dir, filepath.Join(dir, contentDir), filepath.Join(dir, incomingDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("open the store of plugins: %w", err)
		}
	}
	return &Store{dir: dir, limits: defaultLimits}, nil
}

// Find returns the content with a digest, and whether the store has it. It doesn't look
// whether the content still has the digest.
func (s *Store) Find(digest string) (Content, bool, error) {
	place, err := s.place(digest)
	if err != nil {
		return Content{}, false, err
	}
	if _, err := os.Lstat(place); errors.Is(err, fs.ErrNotExist) {
		return Content{}, false, nil
	}
	c, err := read(place, digest)
	if err != nil {
		return Content{}, false, fmt.Errorf("plugin %s in the store: %w; remove %s and install it again", digest, err, place)
	}
	return c, true, nil
}

// Verify hashes the content with a digest again. The error is a [*DigestError] when it has
// changed, and wraps fs.ErrNotExist when the store doesn't have it.
func (s *Store) Verify(ctx context.Context, digest string) error {
	place, err := s.place(digest)
	if err != nil {
		return err
	}
	return s.locked(ctx, unix.LOCK_SH, func() error { return s.verify(ctx, place, digest) })
}

func (s *Store) verify(ctx context.Context, place, digest string) error {
	dir, single, err := inside(place)
	if err != nil {
		return err
	}
	got, err := s.transfer(ctx, dir, single, nil, false)
	if err != nil {
		return err
	}
	return differ(dir, digest, got)
}

// Stored is what lies in a store under one digest.
type Stored struct {
	// Content has nothing but its digest when there is a Problem.
	Content
	// Bytes of its files.
	Bytes int64
	// Problem is why the content can't be read; it can be removed all the same.
	Problem error
}

// List returns what is in the store, sorted by digest.
func (s *Store) List() ([]Stored, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, contentDir))
	if err != nil {
		return nil, fmt.Errorf("list the plugins in the store: %w", err)
	}
	var all []Stored
	for _, e := range entries {
		one := Stored{Content: Content{Digest: digestPrefix + e.Name()}}
		c, ok, err := s.Find(one.Digest)
		switch {
		case err != nil:
			one.Problem = err
		case !ok:
			continue // removed meanwhile
		default:
			one.Content = c
		}
		if one.Bytes, err = size(filepath.Join(s.dir, contentDir, e.Name())); err != nil {
			return nil, fmt.Errorf("list the plugins in the store: %w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// size adds up the files in a folder, which may go meanwhile.
func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				n += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return n, err
}

// Remove removes the content with a digest. One that isn't there is no error. Processes
// that run a copy are not disturbed.
func (s *Store) Remove(ctx context.Context, digest string) error {
	place, err := s.place(digest)
	if err != nil {
		return err
	}
	stage, done, err := s.stage(ctx)
	if err != nil {
		return err
	}
	err = s.locked(ctx, unix.LOCK_EX, func() error {
		err := os.Rename(place, filepath.Join(stage, "removed"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, atomicfile.SyncDir(filepath.Dir(place)))
	})
	if err := errors.Join(err, done()); err != nil {
		return fmt.Errorf("remove plugin %s from the store: %w", digest, err)
	}
	return nil
}

// CopyTo copies the content into a folder, which must exist and be empty, and hashes what it
// copies. The error is a [*DigestError] when that isn't what the digest says; the copy must
// not be used then. Files are copied with mode 0400 or 0500, folders with 0700.
func (s *Store) CopyTo(ctx context.Context, c Content, dir string) error {
	place, err := s.place(c.Digest)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	var got string
	err = s.locked(ctx, unix.LOCK_SH, func() (err error) {
		got, err = s.transfer(ctx, c.Dir, c.Single, root, false)
		return err
	})
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("copy plugin %s out of the store: %w", c.Digest, err)
	}
	if err := differ(place, c.Digest, got); err != nil {
		return fmt.Errorf("%w: it was changed after it was installed; \"gild plugin install\" in the folder of gild.lock mends it", err)
	}
	// c.Manifest was read before the content was checked.
	return sameManifest(c, dir)
}

// place is where the content with a digest lies.
func (s *Store) place(digest string) (string, error) {
	digits, ok := strings.CutPrefix(digest, digestPrefix)
	if raw, err := hex.DecodeString(digits); !ok || err != nil || len(raw) != 32 || digits != strings.ToLower(digits) {
		return "", fmt.Errorf("%q is no digest; one is sha256: and 64 hex digits in lower case", digest)
	}
	return filepath.Join(s.dir, contentDir, digits), nil
}

// inside finds the folder with a plugin's files in its place.
func inside(place string) (dir string, single bool, err error) {
	for _, kind := range []string{programDir, folderDir} {
		dir = filepath.Join(place, kind)
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, kind == programDir, nil
		}
	}
	return "", false, fmt.Errorf("%s holds no plugin: %w", place, fs.ErrNotExist)
}

// locked runs fn while it holds the store's lock: shared (LOCK_SH) keeps contents where they
// are, exclusive (LOCK_EX) lets them come and go.
func (s *Store) locked(ctx context.Context, how int, fn func() error) error {
	f, err := os.OpenFile(filepath.Join(s.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the store of plugins: %w", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), f.Close())
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("lock the store of plugins: %w", err), f.Close())
	}
	return errors.Join(fn(), f.Close())
}
