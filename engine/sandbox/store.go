package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/gildhq/gild/engine/sqlite"
)

var schema = sqlite.Schema{Part: "sandbox", Migrations: []string{`
	CREATE TABLE objects (
		kind TEXT NOT NULL,
		id   TEXT NOT NULL,
		body TEXT NOT NULL,
		PRIMARY KEY (kind, id)
	) STRICT, WITHOUT ROWID`}}

// store keeps objects in one file. What was put is on the disk when commit returns. It is
// guarded by [Server.mu].
type store struct {
	db    *sqlite.DB
	dirty map[row]any // what to write; nil removes
}

type row struct{ kind, id string }

func openStore(ctx context.Context, path string) (*store, error) {
	db, err := sqlite.Open(ctx, path, schema)
	if err != nil {
		return nil, err
	}
	return &store{db: db, dirty: map[row]any{}}, nil
}

// commit writes what changed since the last one. What couldn't be written is tried again
// by the next, because memory already has it.
func (s *store) commit(ctx context.Context) error {
	if len(s.dirty) == 0 {
		return nil
	}
	err := s.db.Write(context.WithoutCancel(ctx), func(tx *sqlite.Tx) error {
		for at, value := range s.dirty {
			if err := writeRow(tx, at, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write the sandbox's state: %w", err)
	}
	clear(s.dirty)
	return nil
}

func writeRow(tx *sqlite.Tx, at row, value any) error {
	if value == nil {
		_, err := tx.Exec(`DELETE FROM objects WHERE kind = ? AND id = ?`, at.kind, at.id)
		return err
	}
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s %s: %w", at.kind, at.id, err)
	}
	_, err = tx.Exec(`INSERT INTO objects (kind, id, body) VALUES (?, ?, ?)
		ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body`, at.kind, at.id, string(body))
	return err
}

// table holds the objects of one kind, in memory and on the disk. T is a struct that JSON
// keeps whole. An object may be changed in place under [Server.mu] when put follows.
type table[T any] struct {
	store *store
	kind  string
	rows  map[string]*T
	order []string // sorted ids; nil when it must be made
}

// openTable reads all objects of a kind.
func openTable[T any](ctx context.Context, s *store, kind string) (*table[T], error) {
	t := &table[T]{store: s, kind: kind, rows: map[string]*T{}}
	err := s.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT id, body FROM objects WHERE kind = ?`, []any{kind}, func(scan func(...any) error) error {
			var id, body string
			if err := scan(&id, &body); err != nil {
				return err
			}
			value := new(T)
			if err := json.Unmarshal([]byte(body), value); err != nil {
				return fmt.Errorf("%s %s: %w", kind, id, err)
			}
			t.rows[id] = value
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the sandbox's state: %w", err)
	}
	return t, nil
}

// get returns the object with an id, or nil.
func (t *table[T]) get(id string) *T { return t.rows[id] }

// put adds or changes an object; commit writes it.
func (t *table[T]) put(id string, value *T) {
	if _, ok := t.rows[id]; !ok {
		t.order = nil
	}
	t.rows[id] = value
	t.store.dirty[row{t.kind, id}] = value
}

// remove forgets an object. One that isn't there is no error.
func (t *table[T]) remove(id string) {
	if _, ok := t.rows[id]; !ok {
		return
	}
	delete(t.rows, id)
	t.order = nil
	t.store.dirty[row{t.kind, id}] = nil
}

// all yields the objects in the order of their ids.
func (t *table[T]) all(yield func(string, *T) bool) {
	if t.order == nil {
		t.order = slices.Sorted(maps.Keys(t.rows))
	}
	for _, id := range t.order {
		if value, ok := t.rows[id]; ok && !yield(id, value) {
			return
		}
	}
}
