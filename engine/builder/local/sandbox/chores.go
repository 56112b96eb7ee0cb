package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// chore is a change to folders that only root of the range may make.
type chore string

const (
	// own gives folders to container root.
	own chore = "own"
	// empty removes all that is in folders.
	empty chore = "empty"
)

// MakeDirs makes folders in parent that belong to container root, mode 0755: the upper
// and work folders of a [Config]. parent is the caller's own and may be closed to others.
// The error wraps fs.ErrExist when one is there already.
func MakeDirs(ctx context.Context, ids IDs, parent string, names ...string) error {
	if err := makeDirs(ctx, ids, parent, names); err != nil {
		return fmt.Errorf("make folders for a sandbox: %w", err)
	}
	return nil
}

func makeDirs(ctx context.Context, ids IDs, parent string, names []string) error {
	if err := ids.check(); err != nil {
		return err
	}
	var made []string
	for _, name := range names {
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		// Neither the umask nor a parent that passes on its group may change the outcome.
		if err := errors.Join(os.Chown(path, -1, os.Getegid()), os.Chmod(path, 0o755)); err != nil {
			return err
		}
		err := os.Chown(path, ids.UIDStart, ids.GIDStart)
		if errors.Is(err, fs.ErrPermission) {
			made = append(made, path)
		} else if err != nil {
			return err
		}
	}
	if len(made) == 0 {
		return nil
	}
	return runChore(ctx, ids, made, own)
}

// Remove removes trees that machines have made, as rm -rf does. Links are never
// followed; what is gone already is no error. It refuses relative paths and "/".
func Remove(ctx context.Context, ids IDs, paths ...string) error {
	for _, path := range paths {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			return fmt.Errorf("remove %q: not an absolute path below the root folder", path)
		}
	}
	for _, path := range paths {
		if err := remove(ctx, ids, filepath.Clean(path)); err != nil {
			return fmt.Errorf("remove %q: %w", path, err)
		}
	}
	return nil
}

func remove(ctx context.Context, ids IDs, path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	// The caller may remove its own folders, but not what is in those of the range.
	shifted, walkErr := shiftedFolders(ids, path)
	if walkErr != nil || len(shifted) == 0 {
		return errors.Join(err, walkErr)
	}
	if err := runChore(ctx, ids, shifted, empty); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// shiftedFolders lists the topmost folders that belong to an id of the range.
func shiftedFolders(ids IDs, root string) ([]string, error) {
	var shifted []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && ids.hasUID(int(stat.Uid)) {
			shifted = append(shifted, path)
			return filepath.SkipDir
		}
		return nil
	})
	return shifted, err
}

// runChore starts a child with the rights of both the range and the caller, for just
// this. Nothing of a tree is ever run with them.
func runChore(ctx context.Context, ids IDs, folders []string, c chore) error {
	ch, err := startChild(ctx, roleChores, ids, childOptions{mapCaller: true})
	if err != nil {
		return err
	}
	err = ch.setUp(ctx, setup{}, treeFolders{}, folders)
	if err == nil {
		_, err = ch.work(ctx, c, nil)
	}
	return errors.Join(err, ch.stop())
}

// runChores is the process that does a chore.
func runChores() error {
	s, folders, err := awaitSetup()
	if err != nil {
		return err
	}
	err = takeIDs()
	if err := errors.Join(err, answerSetup(err)); err != nil {
		return err
	}
	return serveWork(func(_ context.Context, w *wire) error {
		var c chore
		if err := w.receive(&c); err != nil {
			return err
		}
		for i, folder := range folders {
			if err := c.do(int(folder.Fd())); err != nil {
				return fmt.Errorf("%s: %w", s.Writable[i], err)
			}
		}
		return nil
	})
}

func (c chore) do(folder int) error {
	if c == own {
		if err := unix.Fchownat(folder, "", 0, 0, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give to id 0 of the range: %w", err)
		}
		return nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d/", folder)
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(path + entry.Name()); err != nil {
			return err
		}
	}
	return nil
}
