package run

import (
	"context"
	"io"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/step"
)

// Task is one node of the graph, ready to be executed. It is a value; run changes nothing in it.
type Task struct {
	// ID is unique in the run, such as "web/packages" or "web[arch=arm64]/disk".
	ID    string
	Title string
	// Needs are ids of tasks that must end first.
	Needs []string
	// Key names the result. Empty means the task has no reusable result.
	Key string
	// Place is file:line in the pipeline file, or empty.
	Place string
	// Skip, when not empty, is why the task isn't run at all. Its dependents run.
	Skip string
	// Timeout of one attempt; 0 means Options.Timeout.
	Timeout time.Duration
	// Attempts in all, at least 1; Backoff is the pause before the second, doubled for each further one.
	Attempts int
	Backoff  time.Duration
	// ContinueOnError lets dependents run, and the run succeed, when the task fails.
	ContinueOnError bool
	// Test says that a step.TestFailed of this task makes the run end with the tests' exit code.
	Test bool
	// Partial says that a failure of this task (a region's copy) leaves the run partly
	// published instead of failed. It stops its dependents like any failure, and no other task.
	Partial bool
	// Holds names resources that are shared between tasks, such as a booted guest.
	// Options.Release is called for each once no task that holds it can run any more.
	Holds []string
	// Exclusive is a name locked between processes while Cached is asked and Do runs, so that
	// two gild processes do the same work once. Empty means Key; tasks without a key aren't locked.
	Exclusive string
	// Cached returns the outputs of an earlier run of the same key. Nil means never cached.
	Cached func(ctx context.Context) (out step.Outputs, ok bool, err error)
	// Do does the work. Nil is a task that only joins others. It must return soon after
	// ctx ends: an attempt that goes on can't be undone, so Run waits for it.
	Do func(ctx context.Context, a *Attempt) (step.Outputs, error)
}

// Options are what a run needs from outside.
type Options struct {
	// Run is the run's id.
	Run string
	// Workers is how many tasks run at once; 0 means the number of CPUs.
	Workers int
	// KeepGoing starts tasks that don't depend on a failed one; without it a failure
	// stops new tasks from starting, while running ones finish.
	KeepGoing bool
	// Timeout of an attempt of a task that names none; 0 means no limit.
	Timeout time.Duration
	// UndoTimeout bounds the removal of what one attempt left, and the release of one
	// shared resource; 0 means one minute.
	UndoTimeout time.Duration
	Journal     *journal.Journal
	// LogDir is where per-task logs are written.
	LogDir string
	// MaxLog is the size in bytes a task's log may reach before the task fails; 0 means
	// 128 MiB. A line counts as at least 64 bytes, whatever its length.
	MaxLog int64
	// Sink takes the events.
	Sink event.Sink
	// Mask hides secrets in everything that is logged; nil hides nothing.
	Mask *Mask
	// Cleanup removes a resource whose claim was still open when its attempt ended.
	Cleanup func(ctx context.Context, r builder.Resource) error
	// Release ends a shared resource (see Task.Holds), which may never have been made.
	Release func(ctx context.Context, name string) error
	// LockDir holds the lock files of Task.Exclusive, shared by all processes of one state folder.
	LockDir string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Attempt is what a task's Do works with. It implements builder.Ledger: every claim still
// open when Do returns is cleaned up, the latest first, whether Do succeeded or not.
type Attempt struct {
	// Number counts from 1.
	Number int
	// Log takes output: whole lines become log events and go to the task's log file.
	// It is safe for concurrent use, and fails once the log has reached Options.MaxLog.
	Log io.Writer
	// Progress reports work done; total 0 means unknown. It may be called as often as
	// is handy: calls less than a tenth of a second apart are left out.
	Progress func(done, total int64, unit string)
	// Outputs of the tasks done so far, by task id. Nil for a task that isn't done.
	Outputs func(task string) step.Outputs

	ledger builder.Ledger
	shared func(name string) builder.Ledger
}

// Intent implements [builder.Ledger]: r is in the journal, durably, when it returns.
func (a *Attempt) Intent(ctx context.Context, r builder.Resource) (builder.Claim, error) {
	return a.ledger.Intent(ctx, r)
}

// Work implements [builder.Ledger].
func (a *Attempt) Work() builder.Work { return a.ledger.Work() }

// Shared returns the ledger of one of Task.Holds. Its claims outlive the attempt; those
// still open after Options.Release are cleaned up then. Asking for a name that the task
// doesn't hold is a bug and panics.
func (a *Attempt) Shared(name string) builder.Ledger { return a.shared(name) }

// Result is how a run ended.
type Result struct {
	// State is Done, Failed (partly published included) or Cancelled.
	State event.State
	// Tasks holds the end state of each task, by id.
	Tasks map[string]TaskResult
	// First is the id of the task that failed first among those whose failure decided
	// ExitCode, or empty. Failures with ContinueOnError don't count.
	First string
	// Leftovers are resources that could not be removed.
	Leftovers []Leftover
	// ExitCode is as in the command line's help: 0 ok, 1 failed, 3 tests failed,
	// 4 partly published, 5 something could not be cleaned up, 130 interrupted. Of several
	// that apply it is the first of 130, 1, 3, 4, 5.
	ExitCode int
}

// TaskResult is how one task ended.
type TaskResult struct {
	State event.State
	// Reason says why the task was skipped or cancelled. Secrets are hidden in it.
	Reason string
	// Outputs are set when the task is Done or Cached. They are as the task gave them.
	Outputs step.Outputs
	// Err is why it failed or was cancelled while it ran. Secrets are hidden in its text.
	Err error
	// Elapsed is the wall time of all attempts, the pauses between them and the undo
	// included; the wait for another process is not.
	Elapsed time.Duration
	// LogPath is the task's log file, or empty when it printed nothing.
	LogPath string
}

// Leftover is a resource that could not be removed, and why. Its claim is open in the
// journal, so that a later cleanup finds it.
type Leftover struct {
	Resource builder.Resource
	// Task is the id of the task that made it; empty for a shared resource whose release failed.
	Task string
	Err  error
}
