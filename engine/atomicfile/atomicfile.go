// Package atomicfile replaces small files so that a crash leaves the old or the new one.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write gives path the content data and the permissions mode, durably. The new file is
// made in the folder scratch, which must be on the file system of path, and takes the
// name when it is whole. It is locked (flock) until then, so that who clears the folder
// can tell it from one that a dead process left.
func Write(path, scratch string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(scratch, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	if err == nil {
		_, err = f.Write(data)
	}
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return errors.Join(f.Close(), SyncDir(filepath.Dir(path)))
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
