package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// recover brings state and folder together after a process has ended, in whatever way.
func (s *Server) recover(ctx context.Context) error {
	if err := s.reap(ctx); err != nil {
		return err
	}
	for _, dir := range []string{"machines", "scratch"} {
		if err := clearDir(filepath.Join(s.cfg.Dir, dir)); err != nil {
			return err
		}
	}
	err := s.update(func() error {
		for _, i := range s.instances.all {
			s.rest(i)
			if i.State != "running" && i.State != "stopped" || !i.Interrupt.IsZero() {
				s.moving[i.ID] = true
			}
			if i.State == "pending" {
				s.startMachine(i)
			}
		}
		for _, v := range s.volumes.all {
			if v.State == "creating" {
				s.moving[v.ID] = true
				s.fillVolume(v)
			}
		}
		s.recoverSnapshots()
		for _, i := range s.images.all {
			if i.State == "pending" {
				s.moving[i.ID] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(s.clearOrphans("snapshots", func(id string) bool { return s.snapshots.get(id) != nil }),
		s.clearOrphans("volumes", func(id string) bool { return s.volumes.get(id) != nil }))
}

// recoverSnapshots goes on with the snapshots that have their bytes. Those that were being
// copied fail: the moment they were to be of is past.
func (s *Server) recoverSnapshots() {
	for _, sn := range s.snapshots.all {
		if sn.State != "pending" || sn.Direct {
			continue
		}
		s.moving[sn.ID] = true
		if _, err := os.Stat(s.snapshotPath(sn.ID)); err != nil {
			sn.Fail = "The sandbox ended while the snapshot was made"
			s.snapshots.put(sn.ID, sn)
		}
	}
}

// reap ends the machines that the last process left.
func (s *Server) reap(ctx context.Context) error {
	reaper, ok := s.cfg.Machines.(Reaper)
	if !ok {
		return nil
	}
	var ids []string
	for id, i := range s.instances.all {
		if i.Machine {
			ids = append(ids, id)
		}
	}
	if err := reaper.Reap(ctx, ids); err != nil {
		return fmt.Errorf("end the machines of a dead sandbox: %w", err)
	}
	return nil
}

func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// clearOrphans removes files that belong to nothing any more.
func (s *Server) clearOrphans(dir string, known func(id string) bool) error {
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, dir))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".raw"); ok && !known(id) {
			err = errors.Join(err, os.Remove(filepath.Join(s.cfg.Dir, dir, e.Name())))
		}
	}
	return err
}
