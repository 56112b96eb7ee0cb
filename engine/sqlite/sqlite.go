// Package sqlite opens the state database: one SQLite file that several parts of gild
// and many gild processes share.
//
// In go a path and a part's [Schema]; out comes a [DB] whose writes are durable
// transactions that wait for each other, between processes too, and whose reads see one
// consistent state. What goes wrong with the file itself comes back as an [Error] that
// says what to do. The package knows no table but the one with the parts' versions, and
// never repairs, moves or removes a file.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"time"

	modernc "modernc.org/sqlite"
)

const (
	// applicationID marks a file as gild's: "gild" in ASCII.
	applicationID = 0x67696c64
	// lockSlice is how long SQLite itself waits for a lock before we look at the context again.
	lockSlice = 250 * time.Millisecond
	// lockLimit is how long a write waits for other processes in all. Their transactions take
	// milliseconds, so reaching it means that something hangs.
	lockLimit = time.Minute
	// readers bounds the connections that only read.
	readers = 4
)

// Schema is one part's tables. Parts are independent: each has its own version.
type Schema struct {
	// Part names the owner of the tables, such as "journal".
	Part string
	// Migrations hold the SQL that leads from each version to the next. A file at version n has
	// had the first n applied; entries are only ever appended.
	Migrations []string
}

// DB is an open state database. Safe for concurrent use; close it with [DB.Close].
type DB struct {
	path  string
	write *sql.DB
	read  *sql.DB
}

// Open opens the database at path for one part, making the file (not its folder) and
// bringing the part's tables up to date where needed. The file must not be opened by other
// means in this process: closing such a descriptor drops SQLite's locks.
//
// The error is an [*Error] when the file can't be used.
func Open(ctx context.Context, path string, schema Schema) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state database: %w", err)
	}
	d := &DB{path: path}
	if d.write, err = pool(path, lockSlice, 1, false); err != nil {
		return nil, fmt.Errorf("open state database: %w", err)
	}
	if d.read, err = pool(path, lockLimit, readers, true); err != nil {
		return nil, errors.Join(fmt.Errorf("open state database: %w", err), d.write.Close())
	}
	if err := d.prepare(ctx, schema); err != nil {
		return nil, errors.Join(d.wrap(err), d.Close())
	}
	return d, nil
}

// pool makes a set of connections that are all set up the same.
func pool(path string, timeout time.Duration, size int, readOnly bool) (*sql.DB, error) {
	q := url.Values{}
	q.Set("_busy_timeout", fmt.Sprint(timeout.Milliseconds()))
	q.Set("_foreign_keys", "1")
	q.Set("_synchronous", "FULL")
	q.Set("_dqs", "0")
	q.Set("_defensive", "1")
	q.Set("_error_rc", "1")
	q.Set("_txlock", "immediate")
	q.Set("_pragma", "cell_size_check(1)")
	if readOnly {
		q.Set("_txlock", "deferred")
		q.Set("_query_only", "1")
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}
	connector, err := modernc.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

// Path is the absolute path of the file.
func (d *DB) Path() string { return d.path }

// Close ends all connections. Calling it again does nothing.
func (d *DB) Close() error {
	if err := errors.Join(d.read.Close(), d.write.Close()); err != nil {
		return d.wrap(fmt.Errorf("close state database: %w", err))
	}
	return nil
}
