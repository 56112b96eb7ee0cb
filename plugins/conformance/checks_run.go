package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// runTime bounds one run of a fixture in memory, realTime one on a real machine.
const (
	runTime  = time.Minute
	realTime = 10 * time.Minute
)

func checkRuns(ctx context.Context, s *session) verdict {
	var wrong, left []string
	n := 0
	for _, t := range s.described.GetSteps() {
		for _, f := range s.fixtures.Steps[t.GetName()].Runs {
			if f.RunsUntilCancelled {
				continue
			}
			if f.Machine == realMachine && s.options.Machine == nil {
				left = append(left, fmt.Sprintf("step %q, %q: there is no real machine here", t.GetName(), f.Name))
				continue
			}
			n++
			for _, text := range s.runFixture(ctx, t, f) {
				wrong = append(wrong, fmt.Sprintf("step %q, %q: %s", t.GetName(), f.Name, text))
			}
		}
	}
	switch {
	case len(wrong) > 0:
		return fails("%s", strings.Join(wrong, "\n"))
	case n == 0 && len(left) == 0:
		return skips("there are no runs in %s", FixturesName)
	case n == 0:
		return skips("%s", strings.Join(left, "\n"))
	}
	return saw("%s", strings.Join(append([]string{fmt.Sprintf("%d %s", n, plural(n, "run"))}, left...), "\n"))
}

// runFixture runs one fixture and says what isn't as expected.
func (s *session) runFixture(ctx context.Context, t *pluginv1.StepType, f runFixture) (wrong []string) {
	within := runTime
	j, _, err := s.job(t, f)
	if err != nil {
		return []string{err.Error()}
	}
	if f.Machine == realMachine {
		within = realTime
		end, err := s.real(ctx, &j, f)
		if err != nil {
			return []string{err.Error()}
		}
		defer func() {
			if err := end(); err != nil {
				wrong = append(wrong, err.Error())
			}
		}()
	}
	j.fixture = &f
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("the run doesn't end within %v", within))
	defer cancel()
	r := s.run(ctx, s.p, j)
	if ctx.Err() != nil {
		return []string{context.Cause(ctx).Error()}
	}
	return unexpected(ctx, r, f.Expect)
}

// real puts a real machine in place of the one in memory.
func (s *session) real(ctx context.Context, j *job, f runFixture) (end func() error, err error) {
	m, end, err := s.options.Machine(ctx)
	if err != nil {
		return nil, fmt.Errorf("make a machine: %w", err)
	}
	for path, text := range f.Files {
		if err := m.Put(ctx, step.PutFile{Path: path, Parents: true}, strings.NewReader(text)); err != nil {
			return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), end())
		}
	}
	j.machine = m
	return end, nil
}

// unexpected compares a run with what its fixture expects.
func unexpected(ctx context.Context, r *ran, want expectation) (wrong []string) {
	how, message := r.outcome()
	if how == "" {
		return nil // no result at all: another check says so
	}
	if how != want.Outcome {
		return []string{fmt.Sprintf("it %s, and should have %s: %s", past(how), past(want.Outcome), cmpOr(message, lastLines(r.log, 5)))}
	}
	if !strings.Contains(message, want.Message) {
		wrong = append(wrong, fmt.Sprintf("the message %q doesn't say %q", message, want.Message))
	}
	for _, text := range want.Log {
		if !r.hasLog(text) {
			wrong = append(wrong, fmt.Sprintf("its log doesn't say %q; its last lines are\n%s", text, lastLines(r.log, 5)))
		}
	}
	expected, err := want.expectedOutputs()
	if err != nil {
		return append(wrong, err.Error())
	}
	// What isn't an object is told by another check.
	if got, err := decode(r.result.GetOutputs()); err == nil {
		for name, v := range expected {
			if d := cmp.Diff(v, got[name]); d != "" {
				wrong = append(wrong, fmt.Sprintf("its output %q differs (-want +got):\n%s", name, d))
			}
		}
	}
	if r.machine != nil {
		wrong = append(wrong, readBack(ctx, r.machine, want.Files)...)
	}
	return wrong
}

func past(o outcome) string {
	switch o {
	case succeeded, failed:
		return string(o)
	case permanent:
		return "failed for good"
	case testFailed:
		return "failed a test"
	case skipped:
		return "was skipped"
	}
	return "ended as " + string(o)
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// maxOutputs and maxEvent are the bounds of plugin.proto, in bytes.
const (
	maxOutputs = 512 << 10
	maxEvent   = 1 << 20
)

// checkResult looks at the runs of the fixtures; without any it makes one of each step.
func checkResult(ctx context.Context, s *session) verdict {
	n := 0
	for _, t := range s.described.GetSteps() {
		if !slices.ContainsFunc(s.runs, func(r *ran) bool { return r.step == t.GetName() }) {
			s.runSample(ctx, t)
		}
	}
	for _, r := range s.runs {
		n++
		if wrong := s.wrongInRun(r); wrong != "" {
			return fails("step %q with the config %s: %s", r.step, r.config, wrong)
		}
	}
	if n == 0 {
		return skips("no config to run a step with is known")
	}
	return saw("%d %s", n, plural(n, "run"))
}

// runSample runs the first known config of a step, whatever comes of it.
func (s *session) runSample(ctx context.Context, t *pluginv1.StepType) {
	for _, f := range s.samples(t) {
		if j, _, err := s.job(t, f); err == nil && !f.RunsUntilCancelled {
			ctx, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			s.run(ctx, s.p, j)
			return
		}
	}
}

func (s *session) wrongInRun(r *ran) string {
	switch {
	case r.err != nil:
		return fmt.Sprintf("the call fails instead of ending with a result: %v", r.err)
	case r.results == 0:
		return "the stream ends without a result"
	case r.after > 0:
		return fmt.Sprintf("%d more %s after the result, which must be the last event", r.after, plural(r.after, "event")+" came")
	case r.biggest > maxEvent+4096:
		return fmt.Sprintf("an event has %d bytes, and the most is %d", r.biggest, maxEvent)
	case len(r.result.GetOutputs()) > maxOutputs:
		return fmt.Sprintf("the outputs have %d bytes, and the most is %d", len(r.result.GetOutputs()), maxOutputs)
	}
	outputs, err := decode(r.result.GetOutputs())
	if err != nil {
		return err.Error()
	}
	return wrongOutputs(s.step(r.step).GetOutputs(), outputs, r.result.GetFailure() == nil)
}

// wrongOutputs compares outputs with their declaration.
func wrongOutputs(declared map[string]string, got map[string]any, complete bool) string {
	var wrong []string
	for name, v := range got {
		if t, ok := declared[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("the output %q isn't declared", name))
		} else if !isA(v, t) {
			wrong = append(wrong, fmt.Sprintf("the output %q is %v, not of type %s", name, v, t))
		}
	}
	for name := range declared {
		if _, ok := got[name]; !ok && complete {
			wrong = append(wrong, fmt.Sprintf("the output %q is declared, and missing", name))
		}
	}
	slices.Sort(wrong)
	return strings.Join(wrong, "; ")
}

func isA(v any, t string) bool {
	switch v := v.(type) {
	case string:
		return t == "string"
	case bool:
		return t == "boolean"
	case float64:
		return t == "number" || t == "integer" && v == float64(int64(v))
	case []any:
		return t == "list"
	}
	return false
}

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
			saws = append(saws, fmt.Sprintf("step %q ended %v after it was asked to", t.GetName(), took.Round(time.Millisecond)))
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

// checkSideBySide makes two runs meet at the machine and compares their logs with those of
// runs on their own.
func checkSideBySide(ctx context.Context, s *session) verdict {
	ctx, cancel := context.WithTimeout(ctx, 2*runTime)
	defer cancel()
	n := 0
	for _, t := range s.described.GetSteps() {
		for _, f := range s.samples(t) {
			if f.RunsUntilCancelled {
				continue
			}
			n++
			if v := s.pair(ctx, t, f); v.status != OK {
				return v
			}
			break
		}
	}
	if n == 0 {
		return skips("no config to run a step with is known")
	}
	return holds()
}

// marks are what the machines of two runs print, and tell whose log a line came to.
var marks = [2]string{"mark of the first run's machine\n", "mark of the second run's machine\n"}

func (s *session) pair(ctx context.Context, t *pluginv1.StepType, f runFixture) verdict {
	var alone [2]string
	for i := range alone {
		r, err := s.marked(ctx, t, f, i, nil)
		if err != nil {
			return fails("%v", err)
		}
		alone[i] = r
	}
	meet := newMeeting(2)
	var together [2]string
	var errs [2]error
	var both sync.WaitGroup
	for i := range together {
		both.Go(func() {
			defer meet.leave()
			together[i], errs[i] = s.marked(ctx, t, f, i, meet)
		})
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return fails("step %q: two runs at the same time: %v", t.GetName(), err)
	}
	if strings.Contains(together[0], marks[1]) || strings.Contains(together[1], marks[0]) {
		return fails("step %q: what a command of one run printed came to the log of the other", t.GetName())
	}
	for i, log := range together {
		// Logs with times or numbers in them differ each time, and tell nothing.
		if unmarked(alone[0]) == unmarked(alone[1]) && unmarked(log) != unmarked(alone[i]) {
			return fails("step %q: beside another run, its log is\n%s\nand on its own\n%s", t.GetName(), lastLines([]byte(log), 10), lastLines([]byte(alone[i]), 10))
		}
	}
	return holds()
}

func unmarked(log string) string {
	return strings.NewReplacer(marks[0], "", marks[1], "").Replace(log)
}

// marked returns the log of a run whose machine prints a mark.
func (s *session) marked(ctx context.Context, t *pluginv1.StepType, f runFixture, i int, meet *meeting) (string, error) {
	j, m, err := s.job(t, f)
	if err != nil {
		return "", err
	}
	m.mark = marks[i]
	if meet != nil {
		m.gate = meet.wait()
	}
	r := s.do(ctx, s.p, j)
	if ctx.Err() != nil {
		return "", errors.New("they don't end")
	}
	return string(r.log), nil
}

// meeting is where runs wait for each other, once each.
type meeting struct {
	mu      sync.Mutex
	missing int
	all     chan struct{}
}

func newMeeting(n int) *meeting { return &meeting{missing: n, all: make(chan struct{})} }

// wait returns what makes the first use of one machine wait for that of all others.
func (m *meeting) wait() func(context.Context) error {
	var once sync.Once
	return func(ctx context.Context) error {
		once.Do(m.leave)
		select {
		case <-m.all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave counts one in; a run that ends without having used its machine isn't waited for.
func (m *meeting) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.missing--; m.missing == 0 {
		close(m.all)
	}
}

func checkCleanup(ctx context.Context, s *session) verdict {
	var all []step.Resource
	for _, r := range s.runs {
		all = append(all, r.claims...)
	}
	for _, f := range s.fixtures.Steps {
		for _, r := range f.Cleanup {
			all = append(all, step.Resource{Kind: r.Kind, ID: r.ID, Note: r.Note})
		}
	}
	if len(all) == 0 {
		return skips("no run claims a resource")
	}
	for _, r := range all {
		for _, time := range []string{"first", "second"} {
			if err := s.cleanup(ctx, r); err != nil {
				return fails("the %s Cleanup of %s %q: %v", time, r.Kind, r.ID, err)
			}
		}
	}
	return saw("%d %s", len(all), plural(len(all), "resource"))
}

func (s *session) cleanup(ctx context.Context, r step.Resource) error {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	_, err := s.p.client.Cleanup(ctx, &pluginv1.CleanupRequest{Resource: &pluginv1.Resource{Kind: r.Kind, Id: r.ID, Note: r.Note}})
	return err
}
