package journal

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/sqlite"
)

// AddEvent records an event, asynchronously like [Journal.SetNode]. Log lines are in the logs
// and progress is only of the moment, so events of these two kinds are passed over.
func (j *Journal) AddEvent(e event.Event) error {
	if e.Kind == event.NodeLog || e.Kind == event.NodeProgress {
		return j.lostError()
	}
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("record event %d: %w", e.Seq, err)
	}
	return j.async(func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`INSERT INTO events (run, event) VALUES (?, ?)`, e.Run, string(text))
		return err
	})
}

// Events returns the recorded events of a run in the order in which they were added, with all
// that this journal was told before the call.
func (j *Journal) Events(ctx context.Context, run string) ([]event.Event, error) {
	if err := j.settleQueue(ctx); err != nil {
		return nil, err
	}
	var events []event.Event
	err := j.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT event FROM events WHERE run = ? ORDER BY seq`, []any{run},
			func(scan func(...any) error) error {
				var text string
				if err := scan(&text); err != nil {
					return err
				}
				var e event.Event
				events = append(events, e)
				return decode(text, &events[len(events)-1])
			})
	})
	if err != nil {
		return nil, fmt.Errorf("read the events of run %q: %w", run, err)
	}
	return events, nil
}
