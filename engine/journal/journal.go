// Package journal is gild's memory of its runs: what was asked, how far each node came,
// which resources are about to be made or not yet removed, what happened, and what nodes
// without an artefact of their own gave.
//
// Everything goes into one SQLite file that many gild processes share. One goroutine per
// [Journal] writes: it puts all that is queued into one transaction and tells those who wait
// once it is on the disk, so that a thousand node states cost one sync. Durable calls
// ([Journal.Intent], [Journal.Settle], [Journal.SaveResult], those about runs) return after
// the sync; the others return at once, and a record that was lost is reported by the next of
// them, by [Journal.Intent], [Journal.Flush] and [Journal.Close].
//
// The journal never acts on what it holds, never stores a log line, and takes texts as they
// are: callers keep secrets out of them.
package journal

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gildhq/gild/engine/sqlite"
)

//go:embed schema.sql
var schemaV1 string

// queueLength is how many records may wait for the disk before callers do.
const queueLength = 8192

// Journal is an open journal. Safe for concurrent use.
type Journal struct {
	db      *sqlite.DB
	queue   chan record
	pending atomic.Int64
	stopped chan struct{}
	crash   *crashPoint

	// closing is held for reading while a record is queued, so that Close can't overtake it.
	closing sync.RWMutex
	closed  bool

	mu   sync.Mutex
	lost error
}

// Open opens the journal in the state database at path, making the file when there is none.
// Its folder must exist. The error is a [*sqlite.Error] when the file can't be used.
func Open(ctx context.Context, path string) (*Journal, error) {
	db, err := sqlite.Open(ctx, path, sqlite.Schema{Part: "journal", Migrations: []string{schemaV1}})
	if err != nil {
		return nil, err
	}
	crash, err := newCrashPoint()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	j := &Journal{
		db:      db,
		queue:   make(chan record, queueLength),
		stopped: make(chan struct{}),
		crash:   crash,
	}
	go j.write()
	return j, nil
}

// Close writes what is queued and closes the file. It returns the first write error that was
// not a durable call's own. Calling it again does nothing.
func (j *Journal) Close() error {
	j.closing.Lock()
	already := j.closed
	j.closed = true
	j.closing.Unlock()
	if already {
		return nil
	}
	close(j.queue)
	<-j.stopped
	return errors.Join(j.lostError(), j.crash.report(), j.db.Close())
}

// Flush waits until everything queued before it is on the disk, and returns the first write
// error that no caller has been told of by its own call.
func (j *Journal) Flush(ctx context.Context) error {
	if err := j.settleQueue(ctx); err != nil {
		return err
	}
	return j.lostError()
}

// settleQueue waits until everything queued before it was written or lost.
func (j *Journal) settleQueue(ctx context.Context) error {
	if j.pending.Load() == 0 {
		return nil
	}
	return j.durable(ctx, nil)
}

// lostError is the error that made an asynchronous record get lost, or nil.
func (j *Journal) lostError() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost == nil {
		return nil
	}
	return fmt.Errorf("the journal is incomplete: %w", j.lost)
}
