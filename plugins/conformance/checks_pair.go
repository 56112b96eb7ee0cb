package conformance

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// checkSideBySide makes two runs meet at their machines and compares their logs with those
// of runs on their own.
func checkSideBySide(ctx context.Context, s *session) verdict {
	if s.hung.Load() {
		return skips("%v", errHung)
	}
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

// pair compares twice before it blames a difference on the plugin: what a log says may
// differ by chance.
func (s *session) pair(ctx context.Context, t *pluginv1.StepType, f runFixture) verdict {
	v := s.pairOnce(ctx, t, f)
	if v.status == Failed {
		v = s.pairOnce(ctx, t, f)
	}
	return v
}

func (s *session) pairOnce(ctx context.Context, t *pluginv1.StepType, f runFixture) verdict {
	var alone [2]string
	for i := range alone {
		log, err := s.marked(ctx, t, f, i, nil)
		if err != nil {
			return fails("%v", err)
		}
		alone[i] = log
	}
	together, err := s.atOnce(ctx, t, f)
	if err != nil {
		return fails("step %q: two runs at the same time: %v", t.GetName(), err)
	}
	if strings.Contains(together[0], marks[1]) || strings.Contains(together[1], marks[0]) {
		return fails("step %q: what a command of one run printed came to the log of the other", t.GetName())
	}
	usual := gist(alone[0])
	if gist(alone[1]) != usual {
		return holds() // the logs differ each time, and tell nothing
	}
	for i, log := range together {
		if gist(log) != usual {
			return fails("step %q: beside another run, its log is\n%s\nand on its own\n%s", t.GetName(), lastLines([]byte(log), 10), lastLines([]byte(alone[i]), 10))
		}
	}
	return holds()
}

// atOnce returns the logs of two runs that meet at their machines.
func (s *session) atOnce(ctx context.Context, t *pluginv1.StepType, f runFixture) (logs [2]string, err error) {
	meet := newMeeting(len(logs))
	var errs [2]error
	var both sync.WaitGroup
	for i := range logs {
		both.Go(func() {
			defer meet.leave()
			logs[i], errs[i] = s.marked(ctx, t, f, i, meet)
		})
	}
	both.Wait()
	return logs, errors.Join(errs[:]...)
}

var numbers = regexp.MustCompile(`[0-9]+`)

// gist is what stays the same in the logs of the same work: the lines without marks, times
// and other numbers, in any order.
func gist(log string) string {
	log = strings.NewReplacer(marks[0], "", marks[1], "").Replace(log)
	lines := strings.Split(numbers.ReplaceAllString(log, "0"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
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
