package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/sqlite"
)

// ErrNoRun is wrapped by the errors of calls that name a run the journal doesn't have.
var ErrNoRun = errors.New("no such run")

// Run is one invocation of the engine.
type Run struct {
	// ID is unique in the journal.
	ID    string
	State event.State
	// ExitCode is 0 until the run has ended.
	ExitCode int
	// Started and Ended are in UTC with nanoseconds; Ended is zero until the run has ended.
	Started, Ended time.Time
	// PID is the process that works or worked on the run, on Host: for people to look at.
	PID  int
	Host string
	// Request is what was asked, for resume. Nil when none was given.
	Request json.RawMessage
}

// StartRun records a new run, durably. It fails when the id is taken.
func (j *Journal) StartRun(ctx context.Context, r Run) error {
	return j.durable(ctx, func(tx *sqlite.Tx) error {
		n, err := tx.Exec(`INSERT INTO runs (id, state, exit_code, started, ended, pid, host, request)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			r.ID, string(r.State), r.ExitCode, sqlite.FromTime(r.Started), sqlite.FromTime(r.Ended),
			r.PID, r.Host, string(r.Request))
		if err == nil && n == 0 {
			return &refused{fmt.Errorf("start run %q: there is a run with this id", r.ID)}
		}
		return err
	})
}

// EndRun records how a run ended, durably. The error wraps [ErrNoRun] when there is no such run.
func (j *Journal) EndRun(ctx context.Context, id string, state event.State, exit int, at time.Time) error {
	return j.updateRun(ctx, id, `UPDATE runs SET state = ?, exit_code = ?, ended = ? WHERE id = ?`,
		string(state), exit, sqlite.FromTime(at), id)
}

// Adopt records, durably, that another process works on the run from now on: it is
// running again. The error wraps [ErrNoRun] when there is no such run.
func (j *Journal) Adopt(ctx context.Context, id string, pid int, host string) error {
	return j.updateRun(ctx, id, `UPDATE runs SET state = ?, exit_code = 0, ended = 0, pid = ?, host = ? WHERE id = ?`,
		string(event.Running), pid, host, id)
}

func (j *Journal) updateRun(ctx context.Context, id, query string, args ...any) error {
	return j.durable(ctx, func(tx *sqlite.Tx) error {
		n, err := tx.Exec(query, args...)
		if err == nil && n == 0 {
			return &refused{fmt.Errorf("%w: %q", ErrNoRun, id)}
		}
		return err
	})
}

// Runs returns the latest runs, newest first; limit 0 means all of them.
func (j *Journal) Runs(ctx context.Context, limit int) ([]Run, error) {
	if limit <= 0 {
		limit = -1
	}
	runs, err := j.selectRuns(ctx, `ORDER BY started DESC, seq DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("list runs: %w", err)
	}
	return runs, nil
}

// Run returns the run with this id, or the only one whose id begins with it.
// The error wraps [ErrNoRun] when there is none, or more than one.
func (j *Journal) Run(ctx context.Context, id string) (Run, error) {
	const few = 4
	runs, err := j.selectRuns(ctx, `WHERE id = ?1 OR (?1 <> '' AND substr(id, 1, length(?1)) = ?1)
		ORDER BY id = ?1 DESC, started DESC LIMIT ?2`, id, few)
	switch {
	case err != nil:
		return Run{}, fmt.Errorf("find run %q: %w", id, err)
	case len(runs) == 0:
		return Run{}, fmt.Errorf("%w: %q (gild runs lists them)", ErrNoRun, id)
	case len(runs) == 1 || runs[0].ID == id:
		return runs[0], nil
	}
	ids := make([]string, len(runs))
	for i, r := range runs {
		ids[i] = r.ID
	}
	return Run{}, fmt.Errorf("%w: %q could be any of %s", ErrNoRun, id, strings.Join(ids, ", "))
}

func (j *Journal) selectRuns(ctx context.Context, where string, args ...any) ([]Run, error) {
	var runs []Run
	err := j.db.Read(ctx, func(tx *sqlite.Tx) error {
		return tx.Each(`SELECT id, state, exit_code, started, ended, pid, host, request FROM runs `+where, args,
			func(scan func(...any) error) error {
				var r Run
				var started, ended int64
				var request string
				if err := scan(&r.ID, &r.State, &r.ExitCode, &started, &ended, &r.PID, &r.Host, &request); err != nil {
					return err
				}
				r.Started, r.Ended = sqlite.ToTime(started), sqlite.ToTime(ended)
				if request != "" {
					r.Request = json.RawMessage(request)
				}
				runs = append(runs, r)
				return nil
			})
	})
	return runs, err
}
