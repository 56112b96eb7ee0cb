package run

import (
	"errors"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/step"
)

// severity ranks failures: a run with several ends like the first of the gravest kind.
type severity int

const (
	broke severity = iota
	testFailed
	partly
	severities
)

func severityOf(t Task, err error) severity {
	var test *step.TestFailed
	switch {
	case t.Partial:
		return partly
	case t.Test && errors.As(err, &test):
		return testFailed
	default:
		return broke
	}
}

// result sums the run up. Called after the workers have ended.
func (r *runner) result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := Result{State: event.Done, Tasks: make(map[string]TaskResult, len(r.nodes)), Leftovers: r.leftovers}
	for _, n := range r.nodes {
		res.Tasks[n.ID] = n.result
	}
	codes := [severities]int{broke: 1, testFailed: 3, partly: 4}
	if len(r.leftovers) > 0 {
		res.ExitCode = 5
	}
	for s := partly; s >= broke; s-- {
		if r.failures[s] != "" {
			res.State, res.ExitCode, res.First = event.Failed, codes[s], r.failures[s]
		}
	}
	if r.broken != nil {
		res.State, res.ExitCode = event.Failed, codes[broke]
	}
	if r.interrupted {
		res.State, res.ExitCode = event.Cancelled, 130
	}
	return res
}
