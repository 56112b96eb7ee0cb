package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/internal/procs"
)

// Sweep ends the processes, and removes the files, of hosts that were killed.
// It returns what it removed, or with dry what it would remove: kind "plugin process" with
// the process id, and kind "plugin files" with the path. Hosts that live are left alone.
func (h *Host) Sweep(ctx context.Context, dry bool) (gone []step.Resource, err error) {
	if !dry {
		if err := sweepDescriptions(filepath.Join(h.cfg.Dir, describedDir)); err != nil {
			return nil, err
		}
	}
	runs := filepath.Join(h.cfg.Dir, runsDir)
	// Nobody makes a folder while this is held, so one that isn't locked is a dead host's.
	all, err := lockDir(runs, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for what plugins left behind: %w", err)
	}
	defer func() { err = errors.Join(err, all.Close()) }()
	entries, err := os.ReadDir(runs)
	if err != nil {
		return nil, fmt.Errorf("look for what plugins left behind: %w", err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return gone, context.Cause(ctx)
		}
		found, sweepErr := sweepRun(filepath.Join(runs, e.Name()), dry)
		gone = append(gone, found...)
		err = errors.Join(err, sweepErr)
	}
	return gone, err
}

func sweepRun(dir string, dry bool) (gone []step.Resource, err error) {
	lock, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at what plugins left behind: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	prefix := filepath.Base(dir) + "."
	ours := func(pid int) bool { return strings.HasPrefix(procs.Variable(pid, procs.RunEnv), prefix) }
	end := procs.Kill
	if dry {
		end = procs.Find
	}
	pids, err := end(ours)
	for _, pid := range pids {
		gone = append(gone, step.Resource{Kind: "plugin process", ID: strconv.Itoa(pid), Note: "of a gild that was killed"})
	}
	if err == nil && !dry {
		err = removeRun(dir)
	}
	if err != nil {
		return gone, fmt.Errorf("remove what plugins left behind: %w", err)
	}
	return append(gone, step.Resource{Kind: "plugin files", ID: dir, Note: "of a gild that was killed"}), nil
}

// sweepDescriptions removes files that were being written when their host was killed. A host
// that writes one has it locked.
func sweepDescriptions(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil {
		return err
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err == nil && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = os.Remove(path)
		}
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what a gild that was killed was writing: %w", err)
		}
	}
	return nil
}
