package client

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// pacer spreads the calls of all goroutines over time: one bucket per region and kind of
// call, as AWS counts them per account. A throttle slows a bucket to below what it was
// really doing; without throttles it is back at its ceiling in about a minute.
type pacer struct {
	scale float64
	log   *slog.Logger

	mu      sync.Mutex
	buckets map[bucketKey]*bucket
}

type bucketKey struct{ region, kind string }

// ceiling is the rate that a kind of call has without throttles, in calls per second, and
// how many may come at once. They lie at or below the documented defaults of an account.
type ceiling struct{ rate, burst float64 }

// Kinds of calls, as AWS limits them.
const (
	kindRead   = "ec2 reads"
	kindChange = "ec2 changes"
	kindRun    = "ec2 launches"
)

var ceilings = map[string]ceiling{
	kindRead:   {rate: 15, burst: 40},
	kindChange: {rate: 5, burst: 30},
	kindRun:    {rate: 2, burst: 5},
}

// others is the ceiling of every other service.
var others = ceiling{rate: 10, burst: 30}

// slowest is what no bucket falls below, in calls per second, scaled like the ceilings.
const slowest = 0.2

// localScale raises the ceilings of an endpoint on this machine, which nobody else uses and
// which says by itself when it has enough.
const localScale = 100

func newPacer(local bool, log *slog.Logger) *pacer {
	p := &pacer{scale: 1, log: log, buckets: map[bucketKey]*bucket{}}
	if local {
		p.hurry()
	}
	return p
}

// hurry raises the ceilings of buckets that aren't in use yet.
func (p *pacer) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scale = localScale
}

// isLocal tells whether an endpoint is on this machine.
func isLocal(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// kindOf tells which limit a call counts against.
func kindOf(service, operation string) string {
	if service != "EC2" {
		return service
	}
	switch {
	case operation == "RunInstances":
		return kindRun
	case strings.HasPrefix(operation, "Describe"), strings.HasPrefix(operation, "Get"):
		return kindRead
	default:
		return kindChange
	}
}

func (p *pacer) bucket(region, kind string) *bucket {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := bucketKey{region, kind}
	b := p.buckets[key]
	if b == nil {
		c, ok := ceilings[kind]
		if !ok {
			c = others
		}
		c.rate, c.burst = c.rate*p.scale, c.burst*p.scale
		b = &bucket{ceiling: c, slowest: slowest * p.scale, rate: c.rate, tokens: c.burst}
		p.buckets[key] = b
	}
	return b
}

// bucket is a token bucket whose rate follows the throttles.
type bucket struct {
	ceiling ceiling
	slowest float64

	mu      sync.Mutex
	rate    float64 // calls per second now
	tokens  float64 // may be negative: calls that wait have taken theirs
	last    time.Time
	cut     time.Time // when the rate was last lowered
	second  time.Time // the running second, for the measured rate
	current float64   // calls in it
	before  float64   // calls in the one before
}

// take waits for the caller's turn.
func (b *bucket) take(ctx context.Context) error {
	wait := b.reserve(time.Now())
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		b.giveBack()
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// reserve takes a token and tells how long to wait for it.
func (b *bucket) reserve(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refill(now)
	b.measure(now)
	b.tokens--
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

func (b *bucket) giveBack() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens++
}

// recovery is how long a bucket takes from standstill back to its ceiling.
const recovery = time.Minute

func (b *bucket) refill(now time.Time) {
	if b.last.IsZero() {
		b.last = now
	}
	passed := now.Sub(b.last).Seconds()
	b.last = now
	b.tokens = min(b.ceiling.burst, b.tokens+passed*b.rate)
	b.rate = min(b.ceiling.rate, b.rate+b.ceiling.rate*passed/recovery.Seconds())
}

func (b *bucket) measure(now time.Time) {
	switch gone := now.Sub(b.second); {
	case gone >= 2*time.Second:
		b.second, b.before, b.current = now, 0, 0
	case gone >= time.Second:
		b.second, b.before, b.current = b.second.Add(time.Second), b.current, 0
	}
	b.current++
}

// throttled slows the bucket. Calls that were under way together count as one throttle.
func (b *bucket) throttled(now time.Time) (rate float64, slower bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.cut) < time.Second {
		return b.rate, false
	}
	b.refill(now)
	b.cut = now
	// Others use the account too: being far below the ceiling was already too much.
	b.rate = max(b.slowest, min(b.rate, max(b.before, b.current))*0.6)
	b.tokens = min(b.tokens, 0)
	return b.rate, true
}
