// Package poll repeats an assertion about a booted guest until it holds or time is up.
package poll

import (
	"context"
	"errors"
	"time"
)

// Every is the pause between two attempts: a guest without hardware support needs a good
// part of it to start one process.
const Every = 500 * time.Millisecond

// Until calls attempt until it reports no failed check or the deadline has passed, at least
// once. It returns the last attempt's failed checks. An error of attempt, or the end of ctx,
// ends it at once. An attempt that is still under way at the deadline is cancelled, but the
// first one is not, so that a deadline in the past means one try.
func Until(ctx context.Context, deadline time.Time, attempt func(context.Context) ([]string, error)) ([]string, error) {
	failed, err := attempt(ctx)
	for len(failed) > 0 && err == nil && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(Every):
		}
		again, tryErr := attemptUntil(ctx, deadline, attempt)
		if errors.Is(tryErr, errTimeUp) {
			return failed, nil
		}
		failed, err = again, tryErr
	}
	return failed, err
}

// errTimeUp is the cause of an attempt that was cut off by the deadline.
var errTimeUp = errors.New("time is up")

func attemptUntil(ctx context.Context, deadline time.Time, attempt func(context.Context) ([]string, error)) ([]string, error) {
	bounded, cancel := context.WithDeadlineCause(ctx, deadline, errTimeUp)
	defer cancel()
	failed, err := attempt(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return nil, errTimeUp
	}
	return failed, err
}
