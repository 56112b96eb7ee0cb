package sqlite

import (
	"context"
	"fmt"
	"time"
)

// prepare makes sure that the file is ours, in WAL mode, and has the part's tables.
// A file that is up to date is only read.
func (d *DB) prepare(ctx context.Context, schema Schema) error {
	current := false
	err := d.Read(ctx, func(tx *Tx) error {
		fresh, err := identify(tx)
		if err != nil || fresh {
			return err
		}
		current, err = upToDate(tx, schema, d.path)
		return err
	})
	if err != nil || current {
		return err
	}
	if err := d.enableWAL(ctx); err != nil {
		return err
	}
	return d.Write(ctx, func(tx *Tx) error { return migrate(tx, schema, d.path) })
}

// identify tells whether the file is still empty, or fails when it is somebody else's.
func identify(tx *Tx) (fresh bool, err error) {
	var id, tables int
	if _, err := tx.Row(`PRAGMA application_id`, nil, &id); err != nil {
		return false, err
	}
	if id == applicationID {
		return false, nil
	}
	if _, err := tx.Row(`SELECT count(*) FROM sqlite_schema`, nil, &tables); err != nil {
		return false, err
	}
	if id != 0 || tables != 0 {
		return false, errForeign
	}
	return true, nil
}

// upToDate compares the version of a part in the file with the one this program knows.
func upToDate(tx *Tx, schema Schema, path string) (bool, error) {
	var version int
	if _, err := tx.Row(`SELECT version FROM parts WHERE part = ?`, []any{schema.Part}, &version); err != nil {
		return false, err
	}
	if version > len(schema.Migrations) {
		return false, fmt.Errorf("the state database %s holds version %d of the %s, and this gild knows version %d: "+
			"use the newer gild that wrote it, or another state folder (--state)",
			path, version, schema.Part, len(schema.Migrations))
	}
	return version == len(schema.Migrations), nil
}

// enableWAL switches the file to a write-ahead log, which survives in it. SQLite doesn't wait
// for other processes that do the same just now, so begin waits for them first.
func (d *DB) enableWAL(ctx context.Context) error {
	deadline := time.Now().Add(lockLimit)
	for {
		var mode string
		err := d.write.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
		if err == nil && mode != "wal" {
			return fmt.Errorf("the state database %s can't have a write-ahead log here (mode %q): "+
				"put the state folder on a local file system", d.path, mode)
		}
		if kind, ok := kindOf(err); !ok || kind != Busy || time.Now().After(deadline) {
			return err
		}
		tx, err := d.begin(ctx)
		if err != nil {
			return err
		}
		if err := tx.Rollback(); err != nil {
			return err
		}
	}
}

// migrate brings the part's tables to the newest version. Another process may have done so
// since they were looked at, so it looks again.
func migrate(tx *Tx, schema Schema, path string) error {
	fresh, err := identify(tx)
	if err != nil {
		return err
	}
	if fresh {
		if err := tx.script(fmt.Sprintf(`PRAGMA application_id = %d;
			CREATE TABLE parts (part TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID`, applicationID)); err != nil {
			return err
		}
	}
	if done, err := upToDate(tx, schema, path); err != nil || done {
		return err
	}
	var version int
	if _, err := tx.Row(`SELECT version FROM parts WHERE part = ?`, []any{schema.Part}, &version); err != nil {
		return err
	}
	for i, sql := range schema.Migrations[version:] {
		if err := tx.script(sql); err != nil {
			return fmt.Errorf("bring the %s to version %d: %w", schema.Part, version+i+1, err)
		}
	}
	_, err = tx.Exec(`INSERT INTO parts (part, version) VALUES (?, ?)
		ON CONFLICT (part) DO UPDATE SET version = excluded.version`, schema.Part, len(schema.Migrations))
	return err
}

// script runs several statements.
func (t *Tx) script(sql string) error {
	_, err := t.tx.ExecContext(t.ctx, sql)
	return err
}
