package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/plugins/manifest"
)

// Add copies a plugin into the store: a program, a folder, or a .tar.gz of a folder. What is
// there already is left alone, unless it has changed: then it is replaced. Errors tell what
// is wrong with it, and leave it to the caller to say where it came from.
func (s *Store) Add(ctx context.Context, path string) (_ Content, err error) {
	kind, err := kindOf(path)
	if err != nil {
		return Content{}, err
	}
	stage, done, err := s.stage(ctx)
	if err != nil {
		return Content{}, err
	}
	defer func() { err = errors.Join(err, done()) }()

	entry := filepath.Join(stage, "entry")
	digest, err := s.fill(ctx, path, kind, entry)
	if err != nil {
		return Content{}, err
	}
	// Mistakes must be looked for where the copy was made from.
	yaml := manifest.Name
	if kind == aFolder {
		yaml = filepath.Join(path, manifest.Name)
	}
	if err := checkManifest(entry, yaml); err != nil {
		return Content{}, err
	}
	place, err := s.place(digest)
	if err != nil {
		return Content{}, err
	}
	err = s.locked(ctx, unix.LOCK_EX, func() error {
		if s.verify(ctx, place, digest) == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := os.Rename(place, filepath.Join(stage, "changed")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return errors.Join(os.Rename(entry, place), atomicfile.SyncDir(filepath.Dir(place)))
	})
	if err != nil {
		return Content{}, err
	}
	return read(place, digest)
}

// fill copies what is at path into a new folder of the form that places have.
func (s *Store) fill(ctx context.Context, path string, kind kind, entry string) (digest string, err error) {
	dir := filepath.Join(entry, folderDir)
	switch kind {
	case aProgram:
		dir = filepath.Join(entry, programDir)
	case anArchive:
		dir = filepath.Join(entry, "unpacked")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	switch kind {
	case aProgram:
		digest, err = s.program(ctx, path, root, true)
	case aFolder:
		digest, err = s.folder(ctx, path, root, true)
	case anArchive:
		var top string
		if digest, top, err = s.archive(ctx, path, root, true); err == nil {
			err = os.Rename(filepath.Join(dir, top), filepath.Join(entry, folderDir))
		}
		if err == nil && top != "" {
			err = os.Remove(dir)
		}
	}
	return digest, errors.Join(err, syncDirs(entry))
}

// Scratch makes a folder of the store for what isn't a plugin yet, such as a download. done
// removes it; if the process dies, the next one that adds does.
func (s *Store) Scratch(ctx context.Context) (dir string, done func() error, err error) {
	return s.stage(ctx)
}

// syncDirs makes the names in a folder and in all below it durable.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return atomicfile.SyncDir(path)
	})
}

// stage makes a folder for what is on its way, and removes those that dead processes left.
// done removes it with all that is in it.
func (s *Store) stage(ctx context.Context) (dir string, done func() error, err error) {
	var held *os.File
	err = s.locked(ctx, unix.LOCK_EX, func() (err error) {
		if _, err := s.sweep(ctx, false); err != nil {
			return err
		}
		if dir, err = os.MkdirTemp(filepath.Join(s.dir, incomingDir), ""); err != nil {
			return err
		}
		held, err = hold(dir)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	return dir, func() error { return errors.Join(os.RemoveAll(dir), held.Close()) }, nil
}

// Sweep removes what processes that died were adding, and returns the folders it was in. A
// dry sweep only lists them. What is being added now is left alone.
func (s *Store) Sweep(ctx context.Context, dry bool) (gone []string, err error) {
	err = s.locked(ctx, unix.LOCK_EX, func() (err error) {
		gone, err = s.sweep(ctx, dry)
		return err
	})
	if err != nil {
		return gone, fmt.Errorf("look for what killed installations of plugins left: %w", err)
	}
	return gone, nil
}

// sweep removes the folders of dead processes. The store must be locked: a folder is
// without its lock for a moment after it was made.
func (s *Store) sweep(ctx context.Context, dry bool) (gone []string, err error) {
	incoming := filepath.Join(s.dir, incomingDir)
	entries, err := os.ReadDir(incoming)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return gone, context.Cause(ctx)
		}
		dir := filepath.Join(incoming, e.Name())
		f, err := hold(dir)
		if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return gone, err
		}
		if !dry {
			err = os.RemoveAll(dir)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return gone, err
		}
		gone = append(gone, dir)
	}
	return gone, nil
}

// hold locks a folder until the file is closed.
func hold(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// What a plugin may come as.
type kind int

const (
	aProgram kind = iota
	aFolder
	anArchive
)

// kindOf tells what is at a path by looking at it.
func kindOf(path string) (kind, error) {
	f, err := openSteady(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return aFolder, nil
	}
	if !info.Mode().IsRegular() {
		return 0, errors.New("it is neither a file nor a folder")
	}
	head, err := bufio.NewReader(f).Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	switch {
	case len(head) > 1 && head[0] == 0x1f && head[1] == 0x8b:
		return anArchive, nil
	case string(head) == "\x7fELF", len(head) > 1 && string(head[:2]) == "#!":
		return aProgram, nil
	}
	return 0, errors.New("it is neither a program (ELF, or a script that begins with #!) nor a .tar.gz")
}

// openSteady opens a file or folder without waiting for who writes to a pipe.
func openSteady(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// read returns the content of a place, its manifest read.
func read(place, digest string) (Content, error) {
	dir, single, err := inside(place)
	if err != nil {
		return Content{}, err
	}
	m, err := readManifest(dir, single, filepath.Join(dir, manifest.Name))
	return Content{Digest: digest, Dir: dir, Single: single, Manifest: m}, err
}

// checkManifest looks for mistakes in the manifest of a place, and calls the file yaml.
func checkManifest(place, yaml string) error {
	dir, single, err := inside(place)
	if err == nil {
		_, err = readManifest(dir, single, yaml)
	}
	return err
}

// readManifest reads plugin.yaml, which mistakes call yaml. A folder without one has a
// single program beside its README and LICENSE.
func readManifest(dir string, single bool, yaml string) (manifest.Manifest, error) {
	if single {
		return manifest.Single(Program), nil
	}
	m, ok, err := manifest.ReadAs(dir, yaml)
	if ok || err != nil {
		return m, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return manifest.Manifest{}, err
	}
	var programs []string
	for _, e := range entries {
		if info, err := e.Info(); err != nil {
			return manifest.Manifest{}, err
		} else if info.Mode().IsRegular() && info.Mode()&0o100 != 0 {
			programs = append(programs, e.Name())
		}
	}
	if len(programs) != 1 {
		return manifest.Manifest{}, fmt.Errorf("it has no plugin.yaml, and %d executable files at its top: without a manifest there must be exactly one", len(programs))
	}
	return manifest.Single(programs[0]), nil
}

// sameManifest checks that a copy has the manifest that a content was found with.
func sameManifest(c Content, dir string) error {
	m, err := readManifest(dir, c.Single, filepath.Join(dir, manifest.Name))
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(m, c.Manifest) {
		return fmt.Errorf("the manifest of plugin %s changed while it was read; verify the installed plugins", c.Digest)
	}
	return nil
}
