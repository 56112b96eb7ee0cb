package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Tx is a transaction under way. It is for one goroutine, and not to be kept.
type Tx struct {
	ctx   context.Context
	tx    *sql.Tx
	stmts map[string]*sql.Stmt
}

// Exec runs a statement that returns no rows and tells how many rows it changed.
func (t *Tx) Exec(query string, args ...any) (changed int64, err error) {
	stmt, err := t.prepare(query)
	if err != nil {
		return 0, err
	}
	res, err := stmt.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Row runs a query for one row and scans it into dest; ok is false when there is none.
func (t *Tx) Row(query string, args []any, dest ...any) (ok bool, err error) {
	stmt, err := t.prepare(query)
	if err != nil {
		return false, err
	}
	switch err := stmt.QueryRowContext(t.ctx, args...).Scan(dest...); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// Each runs a query and calls row for each row of the result, with the function that scans it.
func (t *Tx) Each(query string, args []any, row func(scan func(dest ...any) error) error) error {
	rows, err := t.tx.QueryContext(t.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// prepare keeps the statements of the transaction, which may run the same one thousands of times.
func (t *Tx) prepare(query string) (*sql.Stmt, error) {
	if stmt, ok := t.stmts[query]; ok {
		return stmt, nil
	}
	stmt, err := t.tx.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, err
	}
	t.stmts[query] = stmt
	return stmt, nil
}

// Write runs fn in a transaction that no other write, of this or any other process, can
// overlap. When it returns nil what fn wrote is on the disk; else nothing of it is.
// Cancelling ctx ends the wait for other writers; once fn runs it is carried through.
func (d *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	tx, err := d.begin(ctx)
	if err != nil {
		return d.wrap(err)
	}
	t := &Tx{ctx: context.WithoutCancel(ctx), tx: tx, stmts: map[string]*sql.Stmt{}}
	if err := fn(t); err != nil {
		return d.wrap(rollback(tx, err))
	}
	if err := tx.Commit(); err != nil {
		return d.wrap(fmt.Errorf("commit: %w", err))
	}
	return nil
}

// Read runs fn in a transaction that sees one state of the database and can't change it.
func (d *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return d.wrap(err)
	}
	return d.wrap(rollback(tx, fn(&Tx{ctx: ctx, tx: tx, stmts: map[string]*sql.Stmt{}})))
}

// rollback ends tx and returns err, together with what went wrong on the way. SQLite ends
// the transaction by itself on some errors, a full disk among them; that isn't another mistake.
func rollback(tx *sql.Tx, err error) error {
	undo := tx.Rollback()
	if err != nil || errors.Is(undo, sql.ErrTxDone) {
		return err
	}
	return undo
}

// begin waits for the write lock in slices, so that a cancelled caller is let go soon although
// the transaction itself, once begun, can't be cancelled half-way.
func (d *DB) begin(ctx context.Context) (*sql.Tx, error) {
	deadline := time.Now().Add(lockLimit)
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("wait for the state database: %w", context.Cause(ctx))
		}
		tx, err := d.write.BeginTx(context.WithoutCancel(ctx), nil)
		if err == nil {
			return tx, nil
		}
		if kind, ok := kindOf(err); !ok || kind != Busy || time.Now().After(deadline) {
			return nil, err
		}
	}
}
