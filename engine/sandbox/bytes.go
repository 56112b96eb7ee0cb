package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/builder/local/disk"
)

const gib = 1 << 30

// place makes a file under a name of its own by what fill writes, of at least size bytes,
// and gives it its path when it is whole. A file that is there already stays.
func (s *Server) place(path string, size int64, fill func(at string) error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	dir, err := os.MkdirTemp(s.scratch(), "disk-*")
	if err != nil {
		return err
	}
	at := filepath.Join(dir, "disk")
	err = fill(at)
	if err == nil {
		err = growTo(at, size)
	}
	if err == nil {
		err = os.Rename(at, path)
	}
	return errors.Join(err, os.RemoveAll(dir), atomicfile.SyncDir(filepath.Dir(path)))
}

// growTo makes a file longer by a hole. One that is too long for what it is to be is an error.
func growTo(path string, size int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > size {
		return fmt.Errorf("%s has %d bytes, more than the %d of the disk it is for", path, info.Size(), size)
	}
	return os.Truncate(path, size)
}

// empty makes a file without data.
func empty(at string) error {
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// volumeFile makes the file of a volume if it isn't there: a copy of its snapshot, or empty.
func (s *Server) volumeFile(ctx context.Context, id, snapshotID string, sizeGiB int64) (string, error) {
	path := s.volumePath(id)
	fill := empty
	if snapshotID != "" {
		from, err := s.snapshotFile(snapshotID)
		if err != nil {
			return "", fmt.Errorf("make volume %s: %w", id, err)
		}
		fill = func(at string) error { return disk.CopySparse(ctx, from, at) }
	}
	if err := s.place(path, sizeGiB*gib, fill); err != nil {
		return "", fmt.Errorf("make volume %s: %w", id, err)
	}
	return path, nil
}

// snapshotFile returns the raw file of a snapshot, which must only be read. The bytes of a
// seed image are made now if nobody has needed them before, so it can take long, and the
// lock must not be held.
func (s *Server) snapshotFile(id string) (string, error) {
	path := s.snapshotPath(id)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	s.mu.Lock()
	var name string
	var size int64
	if sn := s.snapshots.get(id); sn != nil {
		name, size = sn.Seed, sn.SizeGiB*gib
	}
	s.mu.Unlock()
	if name == "" {
		return "", fmt.Errorf("the bytes of snapshot %s: %w", id, fs.ErrNotExist)
	}
	from, err := s.seedFile(name, size)
	if err != nil {
		return "", err
	}
	if err := os.Link(from, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the bytes of snapshot %s: %w", id, err)
	}
	s.record(func() {
		if sn := s.snapshots.get(id); sn != nil {
			sn.Bytes = dataBytes(path)
			s.snapshots.put(id, sn)
		}
	})
	return path, nil
}

// dataBytes is how much a sparse file takes on the disk, or 0 when it isn't there.
func dataBytes(path string) int64 {
	var st syscall.Stat_t
	if syscall.Stat(path, &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// shareBytes gives a snapshot the bytes of another. Both are immutable, so they share them.
func (s *Server) shareBytes(from, to string) error {
	path, err := s.snapshotFile(from)
	if err != nil {
		return err
	}
	if err := os.Link(path, s.snapshotPath(to)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("copy snapshot %s: %w", from, err)
	}
	return atomicfile.SyncDir(filepath.Join(s.cfg.Dir, "snapshots"))
}

// removeFile removes the bytes of what is gone from the state. A mistake here loses no
// truth, only room, so it is logged.
func (s *Server) removeFile(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("sandbox: bytes left behind", "error", err)
	}
}
