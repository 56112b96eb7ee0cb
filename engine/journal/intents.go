package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/sqlite"
)

// Intent is a resource that a node is about to make or has made, and that somebody must
// remove, or make a part of the store, before the entry is settled.
type Intent struct {
	// ID is unique in the journal and never used again.
	ID        int64
	Run, Node string
	Resource  builder.Resource
	// Made is when the intent was recorded, in UTC.
	Made time.Time
}

// Intent records that a resource is about to be made. Only after it returned without an error,
// and with that the entry is on the disk, may the resource be made. It also fails when an
// earlier record was lost: nothing new is begun on an incomplete journal.
func (j *Journal) Intent(ctx context.Context, run, node string, r builder.Resource) (int64, error) {
	if err := j.lostError(); err != nil {
		return 0, err
	}
	made := sqlite.FromTime(time.Now())
	var id int64
	err := j.durable(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Row(`INSERT INTO intents (run, node, kind, name, note, made) VALUES (?, ?, ?, ?, ?, ?) RETURNING id`,
			[]any{run, node, r.Kind, r.ID, r.Note, made}, &id)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("record that %s %q will be made: %w", r.Kind, r.ID, err)
	}
	return id, nil
}

// Settle closes an entry, durably. An entry that is settled already is no error.
func (j *Journal) Settle(ctx context.Context, id int64) error {
	err := j.durable(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`DELETE FROM intents WHERE id = ?`, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle intent %d: %w", id, err)
	}
	return nil
}

// OpenIntents returns the entries of a run that aren't settled, or those of all runs when run is
// empty, oldest first.
func (j *Journal) OpenIntents(ctx context.Context, run string) ([]Intent, error) {
	var open []Intent
	err := j.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT id, run, node, kind, name, note, made FROM intents WHERE ?1 = '' OR run = ?1 ORDER BY id`,
			[]any{run}, func(scan func(...any) error) error {
				var i Intent
				var made int64
				if err := scan(&i.ID, &i.Run, &i.Node, &i.Resource.Kind, &i.Resource.ID, &i.Resource.Note, &made); err != nil {
					return err
				}
				i.Made = sqlite.ToTime(made)
				open = append(open, i)
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("read the open intents: %w", err)
	}
	return open, nil
}
