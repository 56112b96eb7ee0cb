package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// choreSpec is a change to folders of the caller that only root of the range may make.
type choreSpec struct {
	// Own gives the folders to container root.
	Own bool `json:",omitempty"`
	// Remove are names to be removed, with all they hold, from the folders: one each.
	Remove []string `json:",omitempty"`
}

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
	return runChore(ctx, ids, made, choreSpec{Own: true})
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
	chore := choreSpec{Remove: []string{filepath.Base(path)}}
	if err := runChore(ctx, ids, []string{filepath.Dir(path)}, chore); err != nil {
		return err
	}
	// Only the owner of the folder it is in may be able to remove the last, empty folder.
	return os.RemoveAll(path)
}

// runChore starts a child with the rights of both the range and the caller, for just
// this. Nothing of a tree is ever run with them.
func runChore(ctx context.Context, ids IDs, folders []string, spec choreSpec) error {
	ch, err := startChild(ctx, roleChores, ids, childOptions{mapCaller: true})
	if err != nil {
		return err
	}
	err = ch.setUp(ctx, setup{}, treeFolders{}, folders)
	if err == nil {
		_, err = ch.work(ctx, spec, nil)
	}
	return errors.Join(err, ch.stop())
}

// runChores is the process that does a chore.
func runChores() error {
	s, folders, err := becomeRoot()
	if err != nil {
		return err
	}
	if err := answerSetup(nil); err != nil {
		return err
	}
	return serveWork(func(_ context.Context, w *wire) error {
		var spec choreSpec
		if err := w.receive(&spec); err != nil {
			return err
		}
		for i, folder := range folders {
			if err := doChore(spec, i, int(folder.Fd())); err != nil {
				return fmt.Errorf("%s: %w", s.Writable[i], err)
			}
		}
		return nil
	})
}

func doChore(spec choreSpec, i, folder int) error {
	if spec.Own {
		if err := unix.Fchownat(folder, "", 0, 0, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give to id 0 of the range: %w", err)
		}
		return nil
	}
	// What stays is for the caller to remove, or to report.
	err := os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", folder, spec.Remove[i]))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}
