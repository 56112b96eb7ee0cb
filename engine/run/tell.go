package run

import (
	"errors"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/step"
)

// begin makes known that an attempt starts.
func (j *job) begin() {
	j.r.record(journal.Node{Run: j.r.o.Run, ID: j.ID, Key: j.Key, State: event.Running, Attempt: j.attempt, Started: j.started})
	j.r.out.emit(event.Event{Kind: event.NodeState, Node: j.ID, State: event.Running, Attempt: j.attempt})
}

// tell makes known how a node ended.
func (r *runner) tell(n *node, res ending) {
	rec := journal.Node{Run: r.o.Run, ID: n.ID, Key: n.Key, State: res.State, Reason: res.Reason, Attempt: res.attempt,
		Outputs: r.cleanOutputs(res.Outputs), Started: res.started, Ended: r.now(), LogPath: res.LogPath}
	e := event.Event{Kind: event.NodeState, Node: n.ID, State: res.State, Reason: res.Reason, Attempt: res.attempt, ElapsedMS: res.Elapsed.Milliseconds()}
	if res.State == event.Failed {
		e.Failure = r.failure(res)
		rec.Error = e.Failure.Error
	}
	r.record(rec)
	r.out.emit(e)
}

func (r *runner) record(n journal.Node) {
	if err := r.o.Journal.SetNode(n); err != nil {
		r.fail(err)
	}
}

func (r *runner) failure(res ending) *event.Failure {
	f := &event.Failure{Error: res.Err.Error(), Tail: res.tail, LogPath: res.LogPath}
	var exit *step.ExitError
	if errors.As(res.Err, &exit) {
		f.ExitStatus = exit.Status
		for _, arg := range exit.Argv {
			f.Command = append(f.Command, r.clean(arg))
		}
	}
	return f
}

// cleanOutputs hides secrets in what goes into the journal. The tasks of this run get
// the outputs as they are.
func (r *runner) cleanOutputs(out step.Outputs) step.Outputs {
	if r.o.Mask.empty() || out == nil {
		return out
	}
	clean := make(step.Outputs, len(out))
	for k, v := range out {
		clean[k] = r.cleanValue(v)
	}
	return clean
}

func (r *runner) cleanValue(v any) any {
	switch v := v.(type) {
	case string:
		return r.o.Mask.String(v)
	case []any:
		clean := make([]any, len(v))
		for i := range v {
			clean[i] = r.cleanValue(v[i])
		}
		return clean
	case map[string]any:
		clean := make(map[string]any, len(v))
		for k := range v {
			clean[k] = r.cleanValue(v[k])
		}
		return clean
	default:
		return v
	}
}
