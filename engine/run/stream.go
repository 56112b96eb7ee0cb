package run

import (
	"sync"
	"time"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
)

// stream numbers the events of a run and hands them on one at a time. A slow sink slows
// the tasks that emit; the mutex hands over in turn, so none of them waits for ever.
// No other lock of the package is taken while it is held.
type stream struct {
	run     string
	sink    event.Sink
	journal *journal.Journal
	now     func() time.Time
	// broken is told when the journal can't be written.
	broken func(error)

	mu  sync.Mutex
	seq uint64
}

func (s *stream) emit(e event.Event) {
	if err := s.hand(&e); err != nil {
		s.broken(err)
	}
}

func (s *stream) hand(e *event.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	e.V, e.Seq, e.Time, e.Run = event.Version, s.seq, s.now(), s.run
	if s.sink != nil {
		s.sink.Emit(*e)
	}
	// Lines are in the task's log file, and progress is of no use afterwards.
	if e.Kind == event.NodeLog || e.Kind == event.NodeProgress {
		return nil
	}
	return s.journal.AddEvent(*e)
}
