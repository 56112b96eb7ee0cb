package journal

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gildhq/gild/engine/sqlite"
	"github.com/gildhq/gild/engine/step"
)

// SaveResult records the outputs of the node with this key, durably: a verdict of a test, or
// what a step gave besides its artefact. Nil outputs are a result too.
func (j *Journal) SaveResult(ctx context.Context, key string, out step.Outputs) error {
	outputs, err := encode(out, out == nil)
	if err != nil {
		return fmt.Errorf("save result of key %s: %w", key, err)
	}
	return j.durable(ctx, func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO results (key, outputs) VALUES (?, ?)`, key, outputs)
		return err
	})
}

// Result returns the outputs saved under key; ok is false when there are none.
func (j *Journal) Result(ctx context.Context, key string) (out step.Outputs, ok bool, err error) {
	err = j.db.Read(ctx, func(tx *sqlite.Tx) error {
		var outputs string
		if ok, err = tx.Row(`SELECT outputs FROM results WHERE key = ?`, []any{key}, &outputs); err != nil {
			return err
		}
		return decode(outputs, &out)
	})
	if err != nil {
		return nil, false, fmt.Errorf("read the result of key %s: %w", key, err)
	}
	return out, ok, nil
}

// Results returns the outputs saved under any of the keys, by key. Keys without a result are left out.
func (j *Journal) Results(ctx context.Context, keys []string) (map[string]step.Outputs, error) {
	list, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	found := make(map[string]step.Outputs, len(keys))
	err = j.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT key, outputs FROM results WHERE key IN (SELECT value FROM json_each(?))`, []any{string(list)},
			func(scan func(...any) error) error {
				var key, outputs string
				if err := scan(&key, &outputs); err != nil {
					return err
				}
				var out step.Outputs
				if err := decode(outputs, &out); err != nil {
					return err
				}
				found[key] = out
				return nil
			})
	})
	if err != nil {
		return nil, fmt.Errorf("read %d results: %w", len(keys), err)
	}
	return found, nil
}

// SaveKeyParts records what a node's key was made from, over what was recorded before for the
// node of this scope (such as a pipeline), asynchronously like [Journal.SetNode].
func (j *Journal) SaveKeyParts(scope, node, key string, parts map[string]string) error {
	text, err := encode(parts, parts == nil)
	if err != nil {
		return fmt.Errorf("save key parts of node %q: %w", node, err)
	}
	return j.async(func(tx *sqlite.Tx) error {
		_, err := tx.Exec(`INSERT OR REPLACE INTO key_parts (scope, node, key, parts) VALUES (?, ?, ?, ?)`, scope, node, key, text)
		return err
	})
}

// KeyParts returns what the node's key was made from when it was last recorded, to tell why it
// has another key now; ok is false when it never was.
func (j *Journal) KeyParts(ctx context.Context, scope, node string) (key string, parts map[string]string, ok bool, err error) {
	if err := j.settleQueue(ctx); err != nil {
		return "", nil, false, err
	}
	err = j.db.Read(ctx, func(tx *sqlite.Tx) error {
		var text string
		ok, err = tx.Row(`SELECT key, parts FROM key_parts WHERE scope = ? AND node = ?`, []any{scope, node}, &key, &text)
		if err != nil {
			return err
		}
		return decode(text, &parts)
	})
	if err != nil {
		return "", nil, false, fmt.Errorf("read the key parts of node %q: %w", node, err)
	}
	return key, parts, ok, nil
}
