package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// checkCancel cancels a run of each step that waits for the machine, or that a fixture
// says would never end.
func checkCancel(ctx context.Context, s *session) verdict {
	var saws []string
	n := 0
	for _, t := range s.described.GetSteps() {
		took, waited, err := s.cancelOne(ctx, t)
		switch {
		case err != nil:
			return fails("step %q: %v", t.GetName(), err)
		case waited:
			n++
			saws = append(saws, fmt.Sprintf("step %q ended %v after it was asked to", t.GetName(), took.Round(100*time.Microsecond)))
		default:
			saws = append(saws, fmt.Sprintf("step %q never used the machine; a run with runs-until-cancelled in %s would tell", t.GetName(), FixturesName))
		}
	}
	if n == 0 {
		return skips("%s", strings.Join(saws, "\n"))
	}
	return saw("%s", strings.Join(saws, "\n"))
}

// cancelOne reports how long the step took to end, and whether there was anything to cancel.
func (s *session) cancelOne(ctx context.Context, t *pluginv1.StepType) (took time.Duration, waited bool, err error) {
	for _, f := range s.samples(t) {
		j, m, err := s.job(t, f)
		if err != nil {
			return 0, false, err
		}
		entered := make(chan struct{})
		var once sync.Once
		m.gate = func(ctx context.Context) error {
			once.Do(func() { close(entered) })
			<-ctx.Done()
			return context.Cause(ctx)
		}
		if f.RunsUntilCancelled {
			m.gate = nil
			time.AfterFunc(time.Second, func() { once.Do(func() { close(entered) }) })
		}
		took, waited, err := s.cancelRun(ctx, j, entered)
		if err != nil || waited {
			return took, waited, err
		}
	}
	return 0, false, nil
}

// cancelRun starts a run, asks it to stop once entered is closed, and waits for its end.
func (s *session) cancelRun(ctx context.Context, j job, entered <-chan struct{}) (took time.Duration, waited bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	j.id = "cancelled-" + fmt.Sprint(len(s.runs)) + "-" + j.step
	ended := make(chan *ran, 1)
	go func() { ended <- s.do(ctx, s.p, j) }()
	select {
	case <-ended:
		return 0, false, nil
	case <-entered:
	case <-time.After(runTime):
		stop()
		<-ended
		return 0, false, fmt.Errorf("the run neither uses the machine nor ends within %v", runTime)
	}
	begin := time.Now()
	answered, done := context.WithTimeout(ctx, s.options.Grace)
	defer done()
	if _, err := s.p.client.Cancel(answered, &pluginv1.CancelRequest{CallId: j.id}); err != nil {
		stop()
		<-ended
		return 0, true, fmt.Errorf("ask it to stop: %w", err)
	}
	select {
	case r := <-ended:
		if how, _ := r.outcome(); how == succeeded && !j.endsAnyway() {
			return 0, true, errors.New("the run was cancelled in the middle of its work, and says that it succeeded")
		}
		return time.Since(begin), true, nil
	case <-answered.Done():
		stop()
		<-ended
		return 0, true, fmt.Errorf("the run goes on %v after Cancel; gild would end its process", s.options.Grace)
	}
}

// endsAnyway tells that there is nothing of a machine that a cancelled run missed.
func (j job) endsAnyway() bool { return j.machine == nil }
