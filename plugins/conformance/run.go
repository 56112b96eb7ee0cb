package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// secretEnv names the variable of every run that holds a secret of the kit's.
const secretEnv = "GILD_TEST_SECRET"

// maxLog bounds how much of a run's log is kept, in bytes.
const maxLog = 16 << 20

// job is what a step is run on.
type job struct {
	id      string
	step    string
	config  json.RawMessage
	env     map[string]string
	inputs  map[string]step.Input
	image   *step.ImageInfo
	machine step.MachineHandle
	// fixture is set for the runs of a fixture.
	fixture *runFixture
}

// ran is a run that came to its end.
type ran struct {
	job
	log []byte
	// result is the last one; results counts them, and after what came behind the first.
	result         *pluginv1.Result
	results, after int
	// biggest event in bytes.
	biggest int
	// err is how the call ended; nil at the end of the stream.
	err    error
	took   time.Duration
	claims []step.Resource
}

// run runs a step until its stream ends or ctx does, and remembers what it showed.
func (s *session) run(ctx context.Context, p *process, j job) *ran {
	r := s.do(ctx, p, j)
	s.runs = append(s.runs, r)
	return r
}

// do is run for use side by side.
func (s *session) do(ctx context.Context, p *process, j job) *ran {
	if j.id == "" {
		j.id = rand.Text()
	}
	r := &ran{job: j}
	if s.hung.Load() {
		r.err = errHung
		return r
	}
	begin := time.Now()
	target, claims := j.target()
	token, end := s.broker.Open(target)
	request := s.broker.Request(j.step, target, j.config, token)
	request.CallId = j.id
	r.err = r.follow(ctx, p, request)
	end()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		s.hung.Store(true)
	}
	r.took, r.claims = time.Since(begin), claims.all()
	return r
}

// errHung keeps the kit from waiting again, and again, for what doesn't end.
var errHung = errors.New("an earlier run didn't end in its time, and may still go on; no more are started")

// follow reads the events of a run.
func (r *ran) follow(ctx context.Context, p *process, request *pluginv1.RunRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := p.client.Run(ctx, request)
	if err != nil {
		return err
	}
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		r.take(event)
	}
}

func (r *ran) take(event *pluginv1.RunEvent) {
	r.biggest = max(r.biggest, proto.Size(event))
	if r.results > 0 {
		r.after++
	}
	switch e := event.GetEvent().(type) {
	case *pluginv1.RunEvent_Log:
		r.log = append(r.log, e.Log[:min(len(e.Log), max(0, maxLog-len(r.log)))]...)
	case *pluginv1.RunEvent_Result:
		r.result = e.Result
		r.results++
	}
}

var pipeline = step.PipelineInfo{Name: "web", Release: "1.4.0", Arch: buildArch}

// target is the engine's side of a run.
func (j job) target() (*step.Target, *claims) {
	c := &claims{}
	return &step.Target{
		Machine: j.machine, Image: j.image, Inputs: j.inputs, Env: j.env,
		Log: io.Discard, Progress: func(int64, int64, string) {},
		Clock: clock, Pipeline: pipeline, Claim: c.claim, Attempt: 1, Token: "gild-test-" + j.id,
	}, c
}

// claims are what a run claimed. Safe for concurrent use.
type claims struct {
	mu        sync.Mutex
	resources []step.Resource
}

func (c *claims) claim(_ context.Context, r step.Resource) (func(context.Context) error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resources = append(c.resources, r)
	return func(context.Context) error { return nil }, nil
}

func (c *claims) all() []step.Resource {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.resources)
}

// outcome tells how the run ended, with the message of its failure. Empty when it gave no
// result and its call didn't fail.
func (r *ran) outcome() (o outcome, message string) {
	if r.result == nil {
		if r.err == nil {
			return "", ""
		}
		return failed, r.err.Error()
	}
	f := r.result.GetFailure()
	if f == nil {
		return succeeded, ""
	}
	kinds := map[pluginv1.Failure_Kind]outcome{
		pluginv1.Failure_PERMANENT: permanent, pluginv1.Failure_TEST_FAILED: testFailed, pluginv1.Failure_SKIPPED: skipped,
		pluginv1.Failure_CANCELLED: cancelled, pluginv1.Failure_NOT_FOUND: notFound,
	}
	if o = kinds[f.GetKind()]; o == "" {
		o = failed
	}
	message = f.GetMessage()
	for _, c := range f.GetChecks() {
		message += "\n" + c
	}
	if e := f.GetExit(); message == "" && e != nil {
		message = fmt.Sprintf("%q: exit status %d", e.GetArgv(), e.GetStatus())
	}
	return o, message
}

// shown is everything of the run that people may see.
func (r *ran) shown() map[string][]byte {
	_, message := r.outcome()
	return map[string][]byte{"log": r.log, "outputs": r.result.GetOutputs(), "message": []byte(message)}
}

// hasLog reports whether a text is in the run's log.
func (r *ran) hasLog(text string) bool { return bytes.Contains(r.log, []byte(text)) }
