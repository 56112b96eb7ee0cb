package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// calls makes n calls as fast as the bucket lets them and tells how long that took.
func calls(t *testing.T, b *bucket, n int) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := b.take(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func TestCallsArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPacer(false, slog.New(slog.DiscardHandler)).bucket("eu-west-1", kindChange)
		c := ceilings[kindChange]
		if took := calls(t, b, int(c.burst)); took != 0 {
			t.Errorf("a burst waited %s", took)
		}
		want := time.Duration(50 / c.rate * float64(time.Second))
		if took := calls(t, b, 50); took < want-time.Second || took > want+time.Second {
			t.Errorf("50 more calls took %s, want %s", took, want)
		}
	})
}

func TestThrottlesSlowDownAndRecover(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPacer(false, slog.New(slog.DiscardHandler)).bucket("eu-west-1", kindRead)
		calls(t, b, 3)
		// Three calls in a second were too many: others use the account too.
		rate, slower := b.throttled(time.Now())
		if !slower || rate > 2 {
			t.Errorf("after a throttle at 3 calls a second the rate is %v", rate)
		}
		if _, again := b.throttled(time.Now()); again {
			t.Error("a second throttle in the same moment slowed it again")
		}
		for range 20 {
			time.Sleep(time.Second)
			rate, _ = b.throttled(time.Now())
		}
		if rate < slowest {
			t.Errorf("the rate fell to %v", rate)
		}
		time.Sleep(recovery)
		calls(t, b, 1)
		if b.rate != ceilings[kindRead].rate {
			t.Errorf("after %s without throttles the rate is %v", recovery, b.rate)
		}
	})
}

func TestBucketsAreSharedPerRegionAndKind(t *testing.T) {
	t.Parallel()
	p := newPacer(false, slog.New(slog.DiscardHandler))
	if p.bucket("a", kindOf("EC2", "DescribeImages")) != p.bucket("a", kindOf("EC2", "GetConsoleOutput")) {
		t.Error("two reads have two buckets")
	}
	seen := map[*bucket]bool{}
	for _, b := range []*bucket{
		p.bucket("a", kindOf("EC2", "DescribeImages")), p.bucket("b", kindOf("EC2", "DescribeImages")),
		p.bucket("a", kindOf("EC2", "CreateTags")), p.bucket("a", kindOf("EC2", "RunInstances")), p.bucket("a", kindOf("SSM", "SendCommand")),
	} {
		if seen[b] {
			t.Error("two kinds or regions share a bucket")
		}
		seen[b] = true
	}
}

func TestAWaitingCallCanBeCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newPacer(false, slog.New(slog.DiscardHandler)).bucket("a", kindRun)
		calls(t, b, int(ceilings[kindRun].burst))
		before := b.tokens
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := b.take(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if b.tokens < before {
			t.Error("a cancelled call kept its token")
		}
	})
}

// TestSandboxOfTheEnvironment finds that an endpoint is on this machine where the SDK does.
func TestSandboxOfTheEnvironment(t *testing.T) {
	for endpoint, want := range map[string]float64{"http://127.0.0.1:4566": localScale, "https://aws.example.com": 1} {
		t.Setenv("AWS_ENDPOINT_URL", endpoint)
		c, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Region(t.Context(), "eu-west-1"); err != nil {
			t.Fatal(err)
		}
		if c.pacer.scale != want {
			t.Errorf("calls of %s go %v times as fast as those of AWS, want %v", endpoint, c.pacer.scale, want)
		}
	}
}
