package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"golang.org/x/sys/unix"
)

// store knows where things are in the state folder.
type store struct{ dir string }

func (s store) layers() string  { return filepath.Join(s.dir, "layers") }
func (s store) images() string  { return filepath.Join(s.dir, "images") }
func (s store) regions() string { return filepath.Join(s.dir, "regions") }
func (s store) indexes() string { return filepath.Join(s.dir, "indexes") }
func (s store) temps() string   { return filepath.Join(s.dir, "tmp") }

func (s store) layer(key string) string { return filepath.Join(s.layers(), key) }
func (s store) image(key string) string { return filepath.Join(s.images(), key) }

// lower returns the folders of a stack of layers, bottom first.
func (s store) lower(keys []string) []string {
	var dirs []string
	for _, key := range keys {
		dirs = append(dirs, filepath.Join(s.layer(key), "fs"))
	}
	return dirs
}

// ids returns the range of ids that the store's layers are owned by. It is recorded
// once, because a layer made with one range can't be read with another.
func (s store) ids() (sandbox.IDs, error) {
	var ids sandbox.IDs
	path := filepath.Join(s.dir, "ids.json")
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &ids); err != nil {
			return ids, fmt.Errorf("read %s: %w", path, err)
		}
		return ids, nil
	case !errors.Is(err, fs.ErrNotExist):
		return ids, err
	}
	if ids, err = sandbox.FindIDs(); err != nil {
		return ids, err
	}
	return ids, s.writeJSON(path, ids)
}

// writeJSON writes a small file of the store.
func (s store) writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, s.temps(), append(data, '\n'), 0o644)
}

// tempDir is a folder under tmp/. While its maker lives it holds a lock on it, so that
// a sweep can tell what is in use from what a dead process left.
type tempDir struct {
	path  string
	lock  *os.File
	claim builder.Claim
}

// kindTemp is the resource kind of temporary folders; the id is the folder's name.
const kindTemp = "folder"

// temp records and makes a temporary folder.
func (s store) temp(ctx context.Context, l builder.Ledger, prefix, note string) (*tempDir, error) {
	var random [8]byte
	rand.Read(random[:])
	name := prefix + "-" + hex.EncodeToString(random[:])
	claim, err := l.Intent(ctx, builder.Resource{Kind: kindTemp, ID: name, Note: note})
	if err != nil {
		return nil, err
	}
	t := &tempDir{path: filepath.Join(s.temps(), name), claim: claim}
	making, err := s.temping(unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer making.Close()
	// 0711: the steps' root isn't the caller, and must be able to pass through.
	if err := os.Mkdir(t.path, 0o711); err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", err)
	}
	if t.lock, err = lockDir(t.path); err != nil {
		return nil, err
	}
	return t, nil
}

// temping keeps a folder that is made, and not locked yet, from being taken for debris:
// makers share the lock, and the sweep has it alone while it looks.
func (s store) temping(how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", "temporary"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// remove deletes the folder and settles its claim.
func (t *tempDir) remove(ctx context.Context, ids sandbox.IDs) error {
	if err := sandbox.Remove(ctx, ids, t.path); err != nil {
		return err
	}
	return errors.Join(t.lock.Close(), t.claim.Settle(ctx))
}

// hold keeps layers from being removed while something works on them, until the files
// are closed. A layer that is replaced meanwhile stays whole for those who hold it.
func (s store) hold(keys []string) (held, error) {
	var h held
	for _, key := range keys {
		f, err := os.Open(s.layer(key))
		if err == nil {
			h = append(h, f)
			err = unix.Flock(int(f.Fd()), unix.LOCK_SH)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("layer %.12s is not in the store any more; build again", key)
		}
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

type held []*os.File

func (h held) close() error {
	var errs []error
	for _, f := range h {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// alone runs fn while no other process runs one of the same name on this state folder.
func (s store) alone(ctx context.Context, name string, fn func() error) error {
	f, err := os.OpenFile(filepath.Join(s.dir, "locks", "local-"+name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return fn()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// commit makes a temporary folder permanent under another name, durably. What stood
// there before is replaced; if somebody holds it, a sweep removes it later.
func (s store) commit(ctx context.Context, ids sandbox.IDs, t *tempDir, to string) error {
	if err := unix.Syncfs(int(t.lock.Fd())); err != nil {
		return fmt.Errorf("write %s to disk: %w", filepath.Base(to), explainFull(err, s.dir))
	}
	err := unix.Renameat2(unix.AT_FDCWD, t.path, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		// Another process made the same, or this one was asked to make it anew.
		if err := unix.Renameat2(unix.AT_FDCWD, t.path, unix.AT_FDCWD, to, unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("store %s: %w", filepath.Base(to), err)
		}
		if err := errors.Join(atomicfile.SyncDir(filepath.Dir(to)), t.lock.Close()); err != nil {
			return err
		}
		if t.lock, err = lockDir(t.path); err != nil {
			return t.claim.Settle(ctx)
		}
		return t.remove(ctx, ids)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", filepath.Base(to), err)
	}
	if err := errors.Join(atomicfile.SyncDir(filepath.Dir(to)), t.lock.Close()); err != nil {
		return err
	}
	return t.claim.Settle(ctx)
}

// explainFull adds what to do to the error of a full disk.
func explainFull(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: the file system of %s is full; free some room there, or choose another folder with --state", err, dir)
	}
	return err
}

// Cleanup removes a resource that a dead process or a failed attempt left.
func (b *Builder) Cleanup(ctx context.Context, r builder.Resource) (mine bool, err error) {
	switch r.Kind {
	case kindTemp:
		return true, b.removeTemp(ctx, filepath.Join(b.store.temps(), filepath.Base(r.ID)))
	case kindGuest:
		return true, guest.Kill(r.ID)
	default:
		return false, nil
	}
}

func (b *Builder) removeTemp(ctx context.Context, path string) error {
	if ok, err := exists(path); err != nil || !ok {
		return err
	}
	ids, err := b.findIDs()
	if err != nil {
		return err
	}
	return sandbox.Remove(ctx, ids, path)
}

// Sweep lists the temporary folders and files that no living process holds, such as those
// of a process killed while it asked an archive what it has. It removes them unless dry.
func (b *Builder) Sweep(ctx context.Context, req builder.SweepRequest) (builder.Swept, error) {
	names, locks, err := b.unheld()
	if err != nil {
		return builder.Swept{}, err
	}
	var found builder.Swept
	for _, name := range names {
		r := builder.Resource{Kind: kindTemp, ID: name, Note: "left by a process that is gone"}
		if !req.Dry {
			if err := b.removeTemp(ctx, filepath.Join(b.store.temps(), name)); err != nil {
				found.Left = append(found.Left, builder.Left{Resource: r, Err: err})
				continue
			}
		}
		found.Removed = append(found.Removed, r)
	}
	return found, locks.close()
}

// unheld lists and locks what no living process holds.
func (b *Builder) unheld() (names []string, locks held, err error) {
	alone, err := b.store.temping(unix.LOCK_EX)
	if err != nil {
		return nil, nil, err
	}
	defer alone.Close()
	entries, err := os.ReadDir(b.store.temps())
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		lock, err := lockDir(filepath.Join(b.store.temps(), e.Name()))
		if err != nil {
			continue // in use, or just gone
		}
		names, locks = append(names, e.Name()), append(locks, lock)
	}
	return names, locks, nil
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func hostArch() string { return runtime.GOARCH }

// unclaimed is the ledger of work outside a run: the lock on the folder is then the
// only witness, and Sweep the one that removes it.
type unclaimed struct{}

func (unclaimed) Intent(context.Context, builder.Resource) (builder.Claim, error) {
	return unclaimed{}, nil
}

func (unclaimed) Settle(context.Context) error { return nil }

func (unclaimed) Work() builder.Work { return builder.Work{} }
