package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// runTime bounds one run of a fixture in memory, realTime one on a real machine.
const (
	runTime  = 30 * time.Second
	realTime = 10 * time.Minute
)

func checkRuns(ctx context.Context, s *session) verdict {
	var wrong []string
	var missing error
	n := 0
	for _, t := range s.described.GetSteps() {
		for _, f := range s.fixtures.Steps[t.GetName()].Runs {
			if f.RunsUntilCancelled || f.Machine == realMachine && missing != nil {
				continue
			}
			run := s.inMemory
			if f.Machine == realMachine {
				run = s.onReal
			}
			says, err := run(ctx, t, f)
			if err != nil {
				missing = err
				continue
			}
			n++
			for _, text := range says {
				wrong = append(wrong, fmt.Sprintf("step %q, %q: %s", t.GetName(), f.Name, text))
			}
		}
	}
	made := fmt.Sprintf("%d %s", n, plural(n, "run"))
	switch {
	case len(wrong) > 0:
		return fails("%s", strings.Join(wrong, "\n"))
	case missing != nil:
		return verdict{NotRun, fmt.Sprintf("%s; the others need a real machine: %v", made, missing)}
	case n == 0:
		return skips("there are no runs in %s", FixturesName)
	case s.realRuns > 0:
		made += fmt.Sprintf(", %d on a real machine", s.realRuns)
	}
	return saw("%s", made)
}

func (s *session) inMemory(ctx context.Context, t *pluginv1.StepType, f runFixture) (wrong []string, err error) {
	j, _, err := s.job(t, f)
	if err != nil {
		return []string{err.Error()}, nil
	}
	return s.runFixture(ctx, j, f, runTime), nil
}

// onReal runs a fixture on a machine of its own. The error is that there is none.
func (s *session) onReal(ctx context.Context, t *pluginv1.StepType, f runFixture) (wrong []string, err error) {
	j, _, err := s.job(t, f)
	if err != nil {
		return []string{err.Error()}, nil
	}
	if in := section(t, f); in != step.Customize {
		return []string{fmt.Sprintf("only a run of section customize can have a real machine, and this is one of %s", in)}, nil
	}
	if s.options.Machine == nil {
		return nil, errors.New("there is none here")
	}
	m, end, err := s.options.Machine(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := end(); err != nil {
			wrong = append(wrong, err.Error())
		}
	}()
	for _, path := range slices.Sorted(maps.Keys(f.Files)) {
		if err := m.Put(ctx, step.PutFile{Path: path, Parents: true}, strings.NewReader(f.Files[path])); err != nil {
			return []string{fmt.Sprintf("write %s: %v", path, err)}, nil
		}
	}
	s.realRuns++
	j.machine = m
	return s.runFixture(ctx, j, f, realTime), nil
}

// runFixture runs one fixture and says what isn't as expected.
func (s *session) runFixture(ctx context.Context, j job, f runFixture, within time.Duration) []string {
	j.fixture = &f
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("the run doesn't end within %v", within))
	defer cancel()
	r := s.run(ctx, s.p, j)
	if ctx.Err() != nil {
		return []string{context.Cause(ctx).Error()}
	}
	return unexpected(ctx, r, f.Expect)
}

// unexpected compares a run with what its fixture expects.
func unexpected(ctx context.Context, r *ran, want expectation) (wrong []string) {
	how, message := r.outcome()
	if how == "" {
		return nil // no result at all: another check says so
	}
	if how != want.Outcome {
		return []string{fmt.Sprintf("it %s, and should have %s: %s", past(how), past(want.Outcome), cmp.Or(message, lastLines(r.log, 5)))}
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
			if !reflect.DeepEqual(v, got[name]) {
				wrong = append(wrong, fmt.Sprintf("its output %q is %v, not %v", name, got[name], v))
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
	if !slices.ContainsFunc(s.described.GetSteps(), (*pluginv1.StepType).GetCleans) {
		return fails("%s %q is claimed, and no step says that it cleans up (cleans): gild doesn't let it claim", all[0].Kind, all[0].ID)
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
