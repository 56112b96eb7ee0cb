package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	"github.com/gildhq/gild/engine/plain"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/internal/hide"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

const (
	// maxRunLog bounds the log of one step, in bytes.
	maxRunLog = 64 << 20
	// maxResult bounds the outputs of one step as JSON, in bytes.
	maxResult = 512 << 10
	// maxUnit bounds the word for what a step counts, in bytes.
	maxUnit = 64
)

var errUnended = errors.New("it sent a result and didn't end the call")

// run runs a step of a plugin.
func (h *Host) run(ctx context.Context, c store.Content, t *pluginv1.StepType, target *step.Target, config json.RawMessage) (step.Outputs, error) {
	out, err := h.runIn(ctx, c, t, target, config)
	var skipped *step.Skipped
	if err != nil && !errors.As(err, &skipped) {
		err = h.named(c, "run "+t.GetName(), err)
	}
	return out, err
}

func (h *Host) runIn(ctx context.Context, c store.Content, t *pluginv1.StepType, target *step.Target, config json.RawMessage) (step.Outputs, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(target.Env)) {
		if !utf8.ValidString(name) || !utf8.ValidString(target.Env[name]) {
			return nil, fmt.Errorf("the variable %q is not UTF-8 text, and a plugin can't be given other: encode it, in base64 say", name)
		}
	}
	p, err := h.acquire(ctx, c)
	if err != nil {
		return nil, err
	}
	defer h.release(p)
	p.prog.said.secrets.Add(target.Secrets())
	machines, err := h.machines()
	if err != nil {
		return nil, err
	}
	token, end := machines.Open(target)
	defer end()
	req := machines.Request(t.GetName(), target, config, token)

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	r := &running{process: p, id: req.GetCallId(), target: target, stop: stop}
	// The call outlives ctx by the grace that a step gets.
	streamCtx, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	r.cut = cut
	defer p.prog.said.attend(r)()
	defer r.watch(ctx)()
	result, err := r.receive(streamCtx, req)
	if err != nil || r.unwanted != nil {
		return nil, r.reason(err)
	}
	if f := result.GetFailure(); f != nil {
		return nil, broker.FromFailureOf(f, target.Secrets())
	}
	return outputs(t, result.GetOutputs())
}

// running is one run of a step.
type running struct {
	process *process
	id      string
	target  *step.Target
	stop    context.CancelCauseFunc // asks the step to stop
	cut     context.CancelCauseFunc // ends the call
	logged  int

	logMu  sync.Mutex // the log has two writers: the step, and what its process writes
	inLine bool       // the log's last line isn't ended

	// unwanted is why gild gave the step up, if it did. What the step sends until it has
	// stopped is dropped.
	unwanted error
}

// reason is why a step failed that gild may have given up before err came.
func (r *running) reason(err error) error {
	if r.unwanted == nil || errors.Is(err, r.unwanted) {
		return err
	}
	return errors.Join(r.unwanted, err)
}

// giveUp has the step asked to stop. Unlike one that is cut off it is over when its call is,
// and what it claimed can be removed.
func (r *running) giveUp(err error) {
	r.unwanted = err
	r.stop(err)
}

// watch asks the step to stop when ctx ends, and cuts the call if it doesn't. The function
// that it returns ends the watch.
func (r *running) watch(ctx context.Context) (end func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
		grace := r.process.host.cfg.Grace
		asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		go func() {
			<-over
			cancel()
		}()
		r.process.cancelRun(asked, r.id)
		<-asked.Done()
		select {
		case <-over:
		default:
			r.fault(fmt.Errorf("it went on for %v after it was asked to stop; it was cut off: %w", grace, context.Cause(ctx)))
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}

// fault ends the call of a plugin that breaks the rules. Its process isn't used again, as it
// may go on with the step.
func (r *running) fault(err error) error {
	r.process.host.retire(r.process, err)
	r.cut(err)
	return err
}

// receive makes the call and takes its events. It returns when the call has ended.
func (r *running) receive(ctx context.Context, req *pluginv1.RunRequest) (*pluginv1.Result, error) {
	stream, err := r.process.rpc.Run(ctx, req)
	if err != nil {
		return nil, r.process.explain(ctx, err)
	}
	for {
		e, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, r.fault(errors.New("it ended the call without a result"))
		case err != nil:
			return nil, r.process.explain(ctx, err)
		}
		if result := e.GetResult(); result != nil {
			return result, r.finish(ctx, stream)
		}
		if r.unwanted == nil {
			r.event(e)
		}
	}
}

// event takes all but a result. What it doesn't know is of a later version, and may be left out.
func (r *running) event(e *pluginv1.RunEvent) {
	switch e := e.GetEvent().(type) {
	case *pluginv1.RunEvent_Log:
		if r.logged += len(e.Log); r.logged > maxRunLog {
			r.giveUp(fmt.Errorf("its log has more than %s", size(maxRunLog)))
		} else if err := r.log(e.Log); err != nil {
			r.giveUp(err)
		}
	case *pluginv1.RunEvent_Progress:
		r.target.Progress(max(e.Progress.GetDone(), 0), max(e.Progress.GetTotal(), 0), r.unit(e.Progress.GetUnit()))
	}
}

func (r *running) log(text []byte) error {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	if len(text) > 0 {
		r.inLine = text[len(text)-1] != '\n'
	}
	_, err := r.target.Log.Write(text)
	return err
}

// say logs a line that the process wrote by itself. The step's own log, on the same
// writer, tells when it can't be written.
func (r *running) say(line string) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	if r.inLine {
		line = "\n" + line
	}
	r.inLine = false
	_, _ = io.WriteString(r.target.Log, line+"\n")
}

// unit is what a step counts, as a word to be shown.
func (r *running) unit(s string) string {
	s = plain.Text(s)
	if len(s) > maxUnit {
		s = strings.ToValidUTF8(hide.Of(r.target.Secrets()).Slice(s, 0, maxUnit), "")
	}
	return s
}

// finish waits for the end of the call, after which the step does nothing any more.
func (r *running) finish(ctx context.Context, stream grpc.ServerStreamingClient[pluginv1.RunEvent]) error {
	late := time.AfterFunc(r.process.host.cfg.Grace, func() { r.fault(errUnended) })
	defer late.Stop()
	_, err := stream.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		return r.fault(errors.New("it sent more after its result"))
	}
	return r.process.explain(ctx, err)
}

// outputs checks what a step returns against what it declares.
func outputs(t *pluginv1.StepType, raw []byte) (step.Outputs, error) {
	if len(raw) > maxResult {
		return nil, fmt.Errorf("it returned outputs of %s, of at most %s; what is larger belongs into a file", size(int64(len(raw))), size(maxResult))
	}
	out := step.Outputs{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &out); err != nil {
			return nil, fmt.Errorf("it returned outputs that are no JSON object: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if _, ok := t.GetOutputs()[name]; !ok {
			return nil, fmt.Errorf("it returned the output %q, which it doesn't declare", clip(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.GetOutputs())) {
		kind := t.GetOutputs()[name]
		value, ok := out[name]
		if !ok {
			return nil, fmt.Errorf("it returned no output %q, which it declares", name)
		}
		if !isKind(value, kind) {
			return nil, fmt.Errorf("it returned the output %q, which isn't a %s as it declares", name, kind)
		}
	}
	return out, nil
}

func isKind(v any, kind string) bool {
	switch v := v.(type) {
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && v == math.Trunc(v)
	case []any:
		return kind == "list"
	}
	return false
}
