package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
)

// retryer is the one layer of retries. It counts time, not tries: a call is tried again as
// long as the patience with its kind of failure lasts.
type retryer struct {
	pacer     *pacer
	timing    Timing
	log       *slog.Logger
	throttle  retry.IsErrorThrottles
	retryable retry.IsErrorRetryables
}

var _ aws.RetryerV2 = (*retryer)(nil)

// final are codes that come with HTTP status 500 or count as throttles for the SDK, and
// that no retry mends soon: what is full stays full, and a quota stays a quota.
var final = map[string]bool{
	"InsufficientInstanceCapacity": true, "InsufficientHostCapacity": true, "InsufficientAddressCapacity": true,
	"InsufficientVolumeCapacity": true, "InsufficientReservedInstanceCapacity": true, "InsufficientCapacity": true,
	"InsufficientCapacityOnHost": true, "Unsupported": true, "LimitExceededException": true, "NotImplemented": true,
}

func newRetryer(p *pacer, t Timing, log *slog.Logger) *retryer {
	throttles := maps.Clone(retry.DefaultThrottleErrorCodes)
	maps.DeleteFunc(throttles, func(code string, _ struct{}) bool { return final[code] })
	return &retryer{
		pacer: p, timing: t, log: log,
		throttle: retry.IsErrorThrottles{retry.ThrottleErrorCode{Codes: throttles}},
		retryable: slices.Concat(retry.IsErrorRetryables{retry.IsErrorRetryableFunc(isFinal)},
			retry.DefaultRetryables),
	}
}

func isFinal(err error) aws.Ternary {
	var api smithy.APIError
	if errors.As(err, &api) && final[api.ErrorCode()] {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

// MaxAttempts is 0, no limit: time is what is limited.
func (r *retryer) MaxAttempts() int { return 0 }

// IsErrorRetryable implements [aws.Retryer].
func (r *retryer) IsErrorRetryable(err error) bool { return r.retryable.IsErrorRetryable(err).Bool() }

// maxDoublings bounds the pause between tries: about 20 times the first.
const maxDoublings = 20

// RetryDelay doubles with each try, with jitter so that many callers don't come back together.
func (r *retryer) RetryDelay(attempt int, _ error) (time.Duration, error) {
	pause := r.timing.Backoff
	for range attempt - 1 {
		if pause *= 2; pause >= maxDoublings*r.timing.Backoff {
			pause = maxDoublings * r.timing.Backoff
			break
		}
	}
	return pause/2 + rand.N(pause/2+1), nil
}

// GetInitialToken implements [aws.Retryer]; the SDK uses GetAttemptToken instead.
func (r *retryer) GetInitialToken() func(error) error { return func(error) error { return nil } }

// GetAttemptToken waits for the call's turn, and learns from its answer.
func (r *retryer) GetAttemptToken(ctx context.Context) (func(error) error, error) {
	region, kind := awsmiddleware.GetRegion(ctx), kindOf(awsmiddleware.GetServiceID(ctx), awsmiddleware.GetOperationName(ctx))
	b := r.pacer.bucket(region, kind)
	if err := b.take(ctx); err != nil {
		return nil, err
	}
	return func(err error) error {
		if err == nil || !r.throttle.IsErrorThrottle(err).Bool() {
			return nil
		}
		if rate, slower := b.throttled(time.Now()); slower {
			r.log.Info("AWS throttles calls; going slower", "region", region, "calls", kind, "rate", fmt.Sprintf("%.1f/s", rate))
		}
		return nil
	}, nil
}

// gaveUp is why a call isn't tried again although its error may pass.
type gaveUp struct{ after time.Duration }

func (g *gaveUp) Error() string { return fmt.Sprintf("tried for %s", g.after.Round(time.Second)) }

// GetRetryToken allows another try while there is time for this kind of failure.
func (r *retryer) GetRetryToken(ctx context.Context, err error) (func(error) error, error) {
	started, ok := ctx.Value(startedKey{}).(time.Time)
	if gone := time.Since(started); ok && gone >= r.patience(err) {
		return nil, &gaveUp{after: gone}
	}
	return func(error) error { return nil }, nil
}

func (r *retryer) patience(err error) time.Duration {
	var settling *unsettled
	if errors.As(err, &settling) {
		return r.timing.Settling
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return r.timing.Unreachable
	}
	return r.timing.Patience
}
