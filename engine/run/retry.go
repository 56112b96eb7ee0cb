package run

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// longestBackoff bounds what doubling leads to.
const longestBackoff = time.Hour

// backoff is the pause after the given failed attempt: base, doubled for each attempt
// before it up to an hour, and up to a quarter more so that runs that failed together
// don't come back together. The same run, task and attempt give the same pause.
func backoff(base time.Duration, run, task string, attempt int) time.Duration {
	if base <= 0 {
		return 0
	}
	limit := max(base, longestBackoff)
	d := base
	for range attempt - 1 {
		if d >= limit/2 {
			d = limit
			break
		}
		d *= 2
	}
	h := fnv.New64a()
	// A hash never returns an error.
	_, _ = fmt.Fprintf(h, "%q %q", run, task)
	random := rand.New(rand.NewPCG(h.Sum64(), uint64(attempt)))
	return d + time.Duration(random.Int64N(int64(d)/4+1))
}

// retryable tells whether another attempt could mend err.
func retryable(err error) bool {
	var permanent *step.Permanent
	var test *step.TestFailed
	var skipped *step.Skipped
	var log *logError
	var panicked *panicError
	return !errors.As(err, &permanent) && !errors.As(err, &test) && !errors.As(err, &skipped) &&
		!errors.As(err, &log) && !errors.As(err, &panicked)
}

// timeoutError is the cause of a context that ended because of a time limit.
type timeoutError time.Duration

// Error names the limit.
func (t timeoutError) Error() string {
	text := time.Duration(t).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return "timed out after " + text
}

// Unwrap makes errors.Is find the standard error.
func (t timeoutError) Unwrap() error { return context.DeadlineExceeded }

// because puts the cause of an ended context before the error that it led to.
func because(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case err == nil || cause == nil || errors.Is(err, cause):
		return err
	case err == context.Canceled || err == context.DeadlineExceeded:
		return cause
	default:
		return fmt.Errorf("%w: %w", cause, err)
	}
}

// panicError is a panic of a task's function.
type panicError struct {
	value any
	stack []byte
}

// Error says that gild is at fault, not the user.
func (p *panicError) Error() string {
	return fmt.Sprintf("panic: %v (this is a bug of gild or of the step)", p.value)
}

// guard calls f and turns its panic into an error, so that other tasks go on.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: v, stack: debug.Stack()}
		}
	}()
	return f()
}
