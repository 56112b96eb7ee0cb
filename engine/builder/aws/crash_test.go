package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/spec"
)

// errKilled ends a process at a call. The SDK must take it for the end, not for a network
// that may come back.
type errKilled struct{}

func (errKilled) Error() string       { return "killed" }
func (errKilled) CanceledError() bool { return true }

// killer kills a process at a call: before the request, or after its effect and before the
// answer. From then on no request gets out, as from a process that is gone.
type killer struct {
	next  http.RoundTripper
	at    int64 // 0: never
	after bool
	kill  context.CancelCauseFunc
	n     atomic.Int64
}

func (k *killer) RoundTrip(r *http.Request) (*http.Response, error) {
	n := k.n.Add(1)
	if k.at == 0 || n < k.at {
		return k.next.RoundTrip(r)
	}
	if n == k.at {
		if k.after {
			// The caller's context must not cut the effect short.
			res, err := k.next.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				err = errors.Join(err, res.Body.Close())
			}
			if err != nil {
				return nil, err
			}
		}
		k.kill(errKilled{})
	}
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, errKilled{}
}

// killed runs a build until it is killed at a call, and returns how it stood then and how
// many calls there were.
func killed(t *testing.T, w *world, p *spec.Pipeline, at int64, after bool) (*flow, int64) {
	t.Helper()
	ctx, kill := context.WithCancelCause(t.Context())
	defer kill(nil)
	k := &killer{at: at, after: after, kill: kill}
	w.transport = func(next http.RoundTripper) http.RoundTripper { k.next = next; return k }
	f := newFlow(w, p)
	w.transport = nil
	err := f.all(ctx)
	if at == 0 && err != nil {
		t.Fatal(err)
	}
	return f, k.n.Load()
}

// TestKilledAtEveryCall kills a build at every call to AWS. Cleaning up and going on must
// end with one image and nothing else; sweeping alone, by tags, must leave nothing but what
// is kept on purpose.
func TestKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"ssm", "ssh"} {
		p := testPipeline()
		p.AWS.Connect.By = by
		_, calls := killed(t, newWorld(t), p, 0, false)
		if calls < 40 {
			t.Fatalf("an unbroken build made only %d calls; the test would prove little", calls)
		}
		t.Run(by, func(t *testing.T) {
			for at := int64(1); at <= calls; at++ {
				for _, after := range []bool{false, true} {
					t.Run(point(at, after), func(t *testing.T) {
						t.Parallel()
						killAndResume(t, p, at, after)
						killAndSweep(t, p, at, after)
					})
				}
			}
		})
		t.Logf("%s: %d points, 0 leaked unless said above", by, 2*calls)
	}
}

func point(at int64, after bool) string {
	if after {
		return fmt.Sprintf("killed after call %d", at)
	}
	return fmt.Sprintf("killed before call %d", at)
}

// later turns the builders' clock: nobody starts gild again within the second in which it
// died, and within one a call can't be told from its repetition.
func (w *world) later() {
	w.now = func() time.Time { return time.Now().Add(time.Minute) }
}

func killAndResume(t *testing.T, p *spec.Pipeline, at int64, after bool) {
	t.Helper()
	w := newWorld(t)
	f, _ := killed(t, w, p, at, after)
	w.later()
	next := w.builder()
	if err := f.cleanUp(t.Context(), next); err != nil {
		t.Fatalf("clean up: %v", err)
	}
	f.b = next
	if err := f.all(t.Context()); err != nil {
		t.Fatalf("resume: %v", err)
	}
	if diff := cmp.Diff(whole, without(w.remains(), whole)); diff != "" {
		t.Errorf("after resume (-want +got):\n%s", diff)
	}
}

// without a checkpoint the build was killed so late that another is not needed.
func without(got, want []string) []string {
	if slices.Contains(got, want[1]) {
		return got
	}
	return slices.Sorted(slices.Values(append(got, want[1])))
}

func killAndSweep(t *testing.T, p *spec.Pipeline, at int64, after bool) {
	t.Helper()
	w := newWorld(t)
	_, _ = killed(t, w, p, at, after)
	found, err := w.builder().Sweep(t.Context(), builder.SweepRequest{
		Regions: []string{home, abroad}, Busy: func(string) (bool, bool, error) { return false, true, nil },
	})
	if err != nil {
		t.Fatalf("sweep: %v", err)
	}
	for _, l := range found.Left {
		if !strings.Contains(l.Err.Error(), "checkpoint is kept") {
			t.Errorf("the sweep left %s: %v", l.Note, l.Err)
		}
	}
	for _, r := range w.remains() {
		if !strings.Contains(r, "image checkpoint available") && !strings.Contains(r, "image published available") {
			t.Errorf("after the sweep there is %s", r)
		}
	}
}

// TestAnotherMachineTakesOver has no ledger of the dead process, only its tags.
func TestAnotherMachineTakesOver(t *testing.T) {
	t.Parallel()
	p := testPipeline()
	_, calls := killed(t, newWorld(t), p, 0, false)
	for at := int64(1); at <= calls; at += 3 {
		t.Run(point(at, true), func(t *testing.T) {
			t.Parallel()
			takeOver(t, p, at)
		})
	}
}

func takeOver(t *testing.T, p *spec.Pipeline, at int64) {
	w := newWorld(t)
	f, _ := killed(t, w, p, at, true)
	w.later()
	b := w.builder()
	found, err := b.Sweep(t.Context(), builder.SweepRequest{Regions: []string{home, abroad}, Run: f.run, Resuming: true})
	if err != nil || len(found.Left) > 0 {
		t.Fatalf("take over: %v, left %v", err, found.Left)
	}
	f.b, f.ledgers = b, nil
	if err := f.all(t.Context()); err != nil {
		t.Fatalf("go on elsewhere: %v", err)
	}
	if diff := cmp.Diff(whole, without(w.remains(), whole)); diff != "" {
		t.Errorf("after taking over (-want +got):\n%s", diff)
	}
}
