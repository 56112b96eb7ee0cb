package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/gildhq/gild/engine/sqlite"
)

// record is one change, waiting to be written.
type record struct {
	// apply makes the change; nil is a mark in the queue that only wants to be reached.
	apply func(*sqlite.Tx) error
	// done is told the outcome once it is durable; nil when nobody waits.
	done chan<- error
}

// refused is the error of a change that can't be made to what is stored. Nothing was changed,
// so the records beside it in the transaction are fine.
type refused struct{ err error }

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

var errClosed = errors.New("the journal is closed")

// durable queues a change and waits for its outcome. Once queued it is not given up, even when
// ctx ends: a nil error means written, any other not written.
func (j *Journal) durable(ctx context.Context, apply func(*sqlite.Tx) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	if err := j.enqueue(record{apply: apply, done: done}); err != nil {
		return err
	}
	return <-done
}

// async queues a change for which nobody waits.
func (j *Journal) async(apply func(*sqlite.Tx) error) error {
	if err := j.lostError(); err != nil {
		return err
	}
	return j.enqueue(record{apply: apply})
}

func (j *Journal) enqueue(r record) error {
	j.closing.RLock()
	defer j.closing.RUnlock()
	if j.closed {
		return errClosed
	}
	j.pending.Add(1)
	j.queue <- r
	return nil
}

// write is the one goroutine that changes the database.
func (j *Journal) write() {
	defer close(j.stopped)
	batch := make([]record, 0, queueLength)
	for first := range j.queue {
		batch = j.gather(append(batch[:0], first))
		j.commit(batch)
		j.pending.Add(-int64(len(batch)))
	}
}

// gather adds what else is queued to the batch, without waiting for more.
func (j *Journal) gather(batch []record) []record {
	for len(batch) < j.crash.batch(queueLength) {
		select {
		case r, ok := <-j.queue:
			if !ok {
				return batch
			}
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit writes a batch in one transaction and tells everyone how it went.
func (j *Journal) commit(batch []record) {
	outcomes := make([]error, len(batch))
	if err := j.apply(batch, outcomes); err != nil {
		for i := range outcomes {
			outcomes[i] = err
		}
	}
	for i, r := range batch {
		switch {
		case r.done != nil:
			r.done <- outcomes[i]
		case outcomes[i] != nil:
			j.lose(outcomes[i])
		}
	}
}

// apply makes the changes of a batch. An error means that none of them was made; one that
// was refused has its error in outcomes.
func (j *Journal) apply(batch []record, outcomes []error) error {
	writes := 0
	for _, r := range batch {
		if r.apply != nil {
			writes++
		}
	}
	if writes == 0 {
		return nil
	}
	err := j.db.Write(context.Background(), func(tx *sqlite.Tx) error {
		for i, r := range batch {
			if r.apply == nil {
				continue
			}
			err := r.apply(tx)
			if no := (*refused)(nil); errors.As(err, &no) {
				outcomes[i] = no.err
			} else if err != nil {
				return err
			}
		}
		return j.crash.before(writes)
	})
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return j.crash.after()
}

// lose keeps the first error of a record for which nobody waited.
func (j *Journal) lose(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.lost == nil {
		j.lost = err
	}
}
