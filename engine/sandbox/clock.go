package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// How long pending states last on AWS, roughly; [Config.Pace] shortens them.
const (
	instancePending = 12 * time.Second
	instanceStops   = 25 * time.Second
	instanceEnds    = 30 * time.Second
	statusChecks    = 90 * time.Second
	volumeCreating  = 3 * time.Second
	snapshotPending = 60 * time.Second
	imagePending    = 90 * time.Second
	imageCopying    = 4 * time.Minute
	// terminatedFor is how long a terminated instance can still be described.
	terminatedFor = time.Hour
	// interruptNotice is how long before its end a spot instance is told.
	interruptNotice = 2 * time.Minute
)

// now is the sandbox's time. It needs the lock.
func (s *Server) now() time.Time {
	return s.cfg.Now().Add(s.settings.get("").Offset).UTC().Truncate(time.Millisecond)
}

// Now is the sandbox's time: that of Config.Now, turned by what Advance was given.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

// Advance turns the clock: what is pending for less than d is done when it returns, but for
// what waits for work that isn't finished (bytes to copy, a machine to stop).
func (s *Server) Advance(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("turn the sandbox's clock: %v leads back; give a positive duration", d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.settings.get("")
	set.Offset += d
	s.settings.put("", set)
	s.settle(s.now())
	return s.store.commit(s.ctx)
}

// due is when a state that lasts d on AWS ends here.
func (s *Server) due(now time.Time, d time.Duration) time.Time {
	return now.Add(time.Duration(float64(d) * s.cfg.Pace))
}

// settle makes the transitions that are due. Nothing here happens on a timer: a state only
// has to be right when somebody looks.
func (s *Server) settle(now time.Time) {
	for again := true; again; {
		again = false
		for id := range s.moving {
			if s.busy(id) {
				continue
			}
			if s.move(id, now) {
				delete(s.moving, id)
				again = true // an image may wait for this snapshot
			}
		}
	}
}

// move makes the next transition of one object, and tells whether it has come to rest.
func (s *Server) move(id string, now time.Time) bool {
	switch prefix, _, _ := strings.Cut(id, "-"); prefix {
	case "i":
		return s.moveInstance(s.instances.get(id), now)
	case "vol":
		return s.moveVolume(s.volumes.get(id), now)
	case "snap":
		return s.moveSnapshot(s.snapshots.get(id), now)
	default:
		return s.moveImage(s.images.get(id), now)
	}
}

// worker does the slow work on one object, a piece after the other.
type worker struct {
	jobs   int // not ended
	last   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
}

// busy reports whether slow work on an object isn't done.
func (s *Server) busy(id string) bool {
	w := s.workers[id]
	return w != nil && w.jobs > 0
}

// enqueue adds a piece of work to those of some objects; it starts when all their earlier
// ones have ended. Pending states of all of them last until then. It needs the lock; the
// work runs without it. The first id's worker can be cancelled with [Server.cancelWork].
func (s *Server) enqueue(work func(ctx context.Context), ids ...string) {
	done := make(chan struct{})
	var before []chan struct{}
	for _, id := range ids {
		w := s.workers[id]
		if w == nil {
			w = &worker{}
			w.ctx, w.cancel = context.WithCancel(s.ctx)
			s.workers[id] = w
		}
		if w.last != nil {
			before = append(before, w.last)
		}
		w.jobs++
		w.last = done
	}
	ctx := s.workers[ids[0]].ctx
	run := func(context.Context) {
		for _, b := range before {
			<-b
		}
		work(ctx)
		s.finishWork(ids)
		close(done)
	}
	if s.ctx.Err() == nil {
		s.background(run)
		return
	}
	// Closing: nothing new starts, and what waits for it is left for the next start.
	close(done)
}

func (s *Server) finishWork(ids []string) {
	s.record(func() {
		for _, id := range ids {
			w := s.workers[id]
			if w.jobs--; w.jobs == 0 {
				w.cancel()
				delete(s.workers, id)
			}
		}
		s.settle(s.now())
	})
}

// cancelWork ends the slow work on an object as soon as it can be; it needs the lock.
func (s *Server) cancelWork(id string) {
	if w := s.workers[id]; w != nil {
		w.cancel()
		w.ctx, w.cancel = context.WithCancel(s.ctx)
	}
}

// workFailed logs what a caller will only see as a state.
func (s *Server) workFailed(what, id string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Error("sandbox: "+what, "id", id, "error", err)
	}
}
