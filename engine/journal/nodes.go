package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/sqlite"
	"github.com/gildhq/gild/engine/step"
)

// Node is how far one node of a run came.
type Node struct {
	// Run and ID name the node. Key names its result; empty when it has none to reuse.
	Run, ID, Key string
	// Reason says why it was skipped or cancelled, else empty.
	Reason string
	// LogPath is the file with its output, or empty.
	LogPath string
	State   event.State
	// Attempt counts from 1; 0 before the first.
	Attempt int
	// Outputs are JSON values: what is read back has float64 for every number.
	Outputs step.Outputs
	// Started and Ended are in UTC with nanoseconds, zero when not (yet) known.
	Started, Ended time.Time
	// Error is the failure's text, or empty.
	Error string
}

// SetNode records a node's state over the one before. It returns before the state is on the
// disk, and waits only when thousands of records are queued. The error is one of the outputs'
// encoding, or that of a record lost earlier.
func (j *Journal) SetNode(n Node) error {
	outputs, err := encode(n.Outputs, n.Outputs == nil)
	if err != nil {
		return fmt.Errorf("record node %q: %w", n.ID, err)
	}
	return j.async(func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO nodes
			(run, id, key, state, reason, attempt, outputs, started, ended, error, log_path)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			n.Run, n.ID, n.Key, string(n.State), n.Reason, n.Attempt, outputs,
			sqlite.FromTime(n.Started), sqlite.FromTime(n.Ended), n.Error, n.LogPath)
		return err
	})
}

// Nodes returns the nodes of a run in the order of their ids, with all that this journal was
// told before the call.
func (j *Journal) Nodes(ctx context.Context, run string) ([]Node, error) {
	if err := j.settleQueue(ctx); err != nil {
		return nil, err
	}
	var nodes []Node
	err := j.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT run, id, key, state, reason, attempt, outputs, started, ended, error, log_path
			FROM nodes WHERE run = ? ORDER BY id`, []any{run}, func(scan func(...any) error) error {
			var n Node
			var outputs string
			var started, ended int64
			if err := scan(&n.Run, &n.ID, &n.Key, &n.State, &n.Reason, &n.Attempt, &outputs,
				&started, &ended, &n.Error, &n.LogPath); err != nil {
				return err
			}
			n.Started, n.Ended = sqlite.ToTime(started), sqlite.ToTime(ended)
			nodes = append(nodes, n)
			return decode(outputs, &nodes[len(nodes)-1].Outputs)
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the nodes of run %q: %w", run, err)
	}
	return nodes, nil
}

// encode renders v as JSON, or as nothing when there is none.
func encode(v any, none bool) (string, error) {
	if none {
		return "", nil
	}
	data, err := json.Marshal(v)
	return string(data), err
}

// decode is the inverse of encode. We wrote the text, so one that can't be read was overwritten.
func decode(text string, v any) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return sqlite.DamagedRow(err)
	}
	return nil
}
