package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const digestPrefix = "sha256:"

// folderHeader keeps the digest of a folder apart from that of any program.
const folderHeader = "gild plugin folder 1\n"

// Digest is the digest of what is at a path, "sha256:" and 64 lower-case hex digits.
//
// Of a program it is the SHA-256 of the file, as sha256sum prints it. Of a folder it is the
// SHA-256 of this text: the line "gild plugin folder 1", then a line for each thing in it,
// sorted bytewise by name:
//
//	d - NAME          a folder
//	f SHA256 NAME     a file
//	x SHA256 NAME     a file that its owner may execute
//	l SHA256 NAME     a symbolic link: the SHA-256 of its target's text
//
// NAME is relative to the folder, with forward slashes and without a leading "./"; every
// line ends with a newline. Things named .git or __pycache__, and what is in them, are left
// out. Owners, times and other permissions don't count. Of a .tar.gz it is the digest of the
// folder that it unpacks to; one folder at its top that holds all else is that folder.
func Digest(path string) (string, error) {
	s := &Store{limits: defaultLimits}
	kind, err := kindOf(path)
	if err != nil {
		return "", fmt.Errorf("hash plugin %s: %w", path, err)
	}
	digest := ""
	switch kind {
	case aProgram:
		digest, err = s.program(context.Background(), path, nil, false)
	case aFolder:
		digest, err = s.folder(context.Background(), path, nil, false)
	case anArchive:
		digest, _, err = s.archive(context.Background(), path, nil, false)
	}
	if err != nil {
		return "", fmt.Errorf("hash plugin %s: %w", path, err)
	}
	return digest, nil
}

// DigestError says that a plugin isn't what it should be.
type DigestError struct {
	// What was looked at: a path or an address.
	What string
	// Want is the digest it should have, Got the one it has.
	Want, Got string
}

// Error tells both digests.
func (e *DigestError) Error() string {
	return fmt.Sprintf("%s has the digest %s, and not %s", e.What, e.Got, e.Want)
}

func differ(what, want, got string) error {
	if want == got {
		return nil
	}
	return &DigestError{What: what, Want: want, Got: got}
}

// transfer hashes a plugin's files in a place of the store, and copies them when out isn't nil.
func (s *Store) transfer(ctx context.Context, dir string, single bool, out *os.Root, sync bool) (string, error) {
	if single {
		return s.program(ctx, filepath.Join(dir, Program), out, sync)
	}
	return s.folder(ctx, dir, out, sync)
}

// program hashes one file, and copies it under the name that the store gives it.
func (s *Store) program(ctx context.Context, path string, out *os.Root, sync bool) (string, error) {
	f, err := openSteady(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	t := newTree(s.limits, out, sync)
	if err := t.file(ctx, Program, true, f); err != nil {
		return "", err
	}
	return digestPrefix + t.entries[Program].sum, nil
}

// folder hashes and copies a folder. Names are opened beneath it and links in it are not
// followed, whatever changes meanwhile.
func (s *Store) folder(ctx context.Context, dir string, out *os.Root, sync bool) (_ string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	t := newTree(s.limits, out, sync)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		switch {
		case skipped(name) && d.IsDir():
			return fs.SkipDir
		case skipped(name):
			return nil
		case d.IsDir():
			return t.folder(name)
		case d.Type() == fs.ModeSymlink:
			target, err := root.Readlink(name)
			if err != nil {
				return err
			}
			return t.link(name, target)
		case d.Type().IsRegular():
			return t.fileOf(ctx, root, name)
		}
		return fmt.Errorf("%q is a device, pipe or socket; a plugin has files, folders and links", name)
	})
	if err != nil {
		return "", err
	}
	return t.digest()
}

func (t *tree) fileOf(ctx context.Context, root *os.Root, name string) (err error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q was replaced while it was read", name)
	}
	return t.file(ctx, name, info.Mode()&0o100 != 0, f)
}
