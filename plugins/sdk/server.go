package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// maxOutputs is how large a step's outputs may be, as JSON.
const maxOutputs = 512 << 10

// maxEarly is how many calls to Cancel that overtook their Run are remembered.
const maxEarly = 256

// ErrCancelled is the cause of a step's context that ended because gild asked the step to
// stop; see [context.Cause].
var ErrCancelled = errors.New("gild asked the step to stop")

// server serves the steps of a plugin.
type server struct {
	pluginv1.UnimplementedStepPluginServer
	plugin Plugin
	steps  map[string]Step
	stderr io.Writer

	mu    sync.Mutex
	runs  map[string]context.CancelCauseFunc
	early map[string]bool
}

// NewServer returns the service that answers for the plugin's steps, for programs that
// serve it themselves; others call [Serve]. The stacks of panics are written to stderr.
func NewServer(p Plugin, stderr io.Writer) (pluginv1.StepPluginServer, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	s := &server{
		plugin: p, steps: map[string]Step{}, stderr: stderr,
		runs: map[string]context.CancelCauseFunc{}, early: map[string]bool{},
	}
	for _, st := range p.Steps {
		s.steps[st.Name] = st
	}
	return s, nil
}

// Describe implements pluginv1.StepPluginServer.
func (s *server) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	resp := &pluginv1.DescribeResponse{Name: s.plugin.Name, Version: s.plugin.Version}
	for _, st := range s.plugin.Steps {
		t := &pluginv1.StepType{
			Name: st.Name, Summary: st.Summary, Doc: st.Doc, Schema: st.Schema, Outputs: maps.Clone(st.Outputs),
			Cacheable: st.Cacheable, Validates: st.Validate != nil, Keyed: st.KeyParts != nil, Cleans: st.Cleanup != nil,
		}
		for _, section := range st.Sections {
			t.Sections = append(t.Sections, string(section))
		}
		resp.Steps = append(resp.Steps, t)
	}
	return resp, nil
}

func (s *server) step(name string) (Step, error) {
	st, ok := s.steps[name]
	if !ok {
		return Step{}, status.Errorf(codes.NotFound, "plugin %s has no step %q", s.plugin.Name, name)
	}
	return st, nil
}

// Validate implements pluginv1.StepPluginServer.
func (s *server) Validate(ctx context.Context, req *pluginv1.ValidateRequest) (resp *pluginv1.ValidateResponse, err error) {
	st, err := s.step(req.GetStep())
	if err != nil {
		return nil, err
	}
	resp = &pluginv1.ValidateResponse{}
	if st.Validate == nil {
		return resp, nil
	}
	problems, err := guard(s.stderr, func() ([]Problem, error) { return st.Validate(ctx, req.GetConfig()) })
	if err != nil {
		return nil, broker.ToStatus(err)
	}
	for _, p := range problems {
		d := &pluginv1.Diagnostic{Message: p.Message, Hint: p.Hint, Pointer: p.Pointer}
		if p.Warning {
			d.Severity = pluginv1.Diagnostic_WARNING
		}
		resp.Diagnostics = append(resp.Diagnostics, d)
	}
	return resp, nil
}

// KeyParts implements pluginv1.StepPluginServer.
func (s *server) KeyParts(ctx context.Context, req *pluginv1.KeyPartsRequest) (*pluginv1.KeyPartsResponse, error) {
	st, err := s.step(req.GetStep())
	if err != nil {
		return nil, err
	}
	if st.KeyParts == nil {
		return &pluginv1.KeyPartsResponse{}, nil
	}
	parts, err := guard(s.stderr, func() (map[string]string, error) { return st.KeyParts(ctx, req.GetConfig()) })
	if err != nil {
		return nil, broker.ToStatus(err)
	}
	return &pluginv1.KeyPartsResponse{Parts: parts}, nil
}

// Cleanup implements pluginv1.StepPluginServer. The request doesn't say which step claimed
// the resource, so every step that cleans up is asked, and leaves alone what it doesn't know.
func (s *server) Cleanup(ctx context.Context, req *pluginv1.CleanupRequest) (*pluginv1.CleanupResponse, error) {
	r := Resource{Kind: req.GetResource().GetKind(), ID: req.GetResource().GetId(), Note: req.GetResource().GetNote()}
	var errs []error
	asked := false
	for _, st := range s.plugin.Steps {
		if st.Cleanup == nil {
			continue
		}
		asked = true
		_, err := guard(s.stderr, func() (struct{}, error) { return struct{}{}, st.Cleanup(ctx, r) })
		errs = append(errs, err)
	}
	if !asked {
		errs = append(errs, fmt.Errorf("no step of plugin %s cleans up, so its %s %q stays", s.plugin.Name, r.Kind, r.ID))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, broker.ToStatus(err)
	}
	return &pluginv1.CleanupResponse{}, nil
}

// Cancel implements pluginv1.StepPluginServer.
func (s *server) Cancel(_ context.Context, req *pluginv1.CancelRequest) (*pluginv1.CancelResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel, ok := s.runs[req.GetCallId()]; ok {
		cancel(ErrCancelled)
	} else if len(s.early) < maxEarly {
		s.early[req.GetCallId()] = true
	}
	return &pluginv1.CancelResponse{}, nil
}

// begin makes a run known to Cancel, until the function it returns is called.
func (s *server) begin(ctx context.Context, id string) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.runs[id]; ok {
		return nil, nil, status.Errorf(codes.AlreadyExists, "the run %q is under way", id)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s.runs[id] = cancel
	if s.early[id] {
		delete(s.early, id)
		cancel(ErrCancelled)
	}
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.runs, id)
		cancel(context.Canceled)
	}, nil
}

// Run implements pluginv1.StepPluginServer.
func (s *server) Run(req *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.RunEvent]) error {
	st, err := s.step(req.GetStep())
	if err != nil {
		return err
	}
	ctx, end, err := s.begin(stream.Context(), req.GetCallId())
	if err != nil {
		return err
	}
	defer end()
	events := newEvents(stream.Send)
	outputs, err := s.run(ctx, st, req, events)
	if err != nil && ctx.Err() != nil {
		err = &cancelled{err}
	}
	return events.finish(&pluginv1.Result{Outputs: outputs, Failure: broker.ToFailureOf(err, (&Target{Env: req.GetEnv(), SecretEnv: req.GetSecretEnv()}).Secrets())})
}

func (s *server) run(ctx context.Context, st Step, req *pluginv1.RunRequest, events *events) ([]byte, error) {
	client, err := broker.Dial(req.GetHostAddress(), req.GetHostToken())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	target, err := newTarget(ctx, req, client, events)
	if err != nil {
		return nil, err
	}
	target.Claim = s.claim(client)
	out, err := guard(s.stderr, func() (Outputs, error) { return st.Run(ctx, target, req.GetConfig()) })
	if err != nil {
		return nil, err
	}
	return encode(out)
}

func encode(out Outputs) ([]byte, error) {
	if out == nil {
		out = Outputs{}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, &Permanent{Err: fmt.Errorf("encode outputs: %w", err)}
	}
	if len(data) > maxOutputs {
		return nil, &Permanent{Err: fmt.Errorf("the outputs have %d bytes; the most they can have is %d", len(data), maxOutputs)}
	}
	return data, nil
}

// cancelled makes the error of a step that was asked to stop one that says so.
type cancelled struct{ err error }

// Error implements error.
func (c *cancelled) Error() string { return c.err.Error() }

// Unwrap returns what the step was stopped by and what it said.
func (c *cancelled) Unwrap() []error { return []error{context.Canceled, c.err} }

// claim refuses claims that nobody would clean up: they would stay open for ever.
func (s *server) claim(client *broker.Client) func(context.Context, Resource) (func(context.Context) error, error) {
	for _, st := range s.plugin.Steps {
		if st.Cleanup != nil {
			return client.Claim
		}
	}
	return func(_ context.Context, r Resource) (func(context.Context) error, error) {
		return nil, &Permanent{Err: fmt.Errorf("claim %s %q: no step of plugin %s has a Cleanup, so nothing would remove it", r.Kind, r.ID, s.plugin.Name)}
	}
}

func newTarget(ctx context.Context, req *pluginv1.RunRequest, client *broker.Client, events *events) (*Target, error) {
	inputs, err := client.Inputs(ctx, req.GetInputs())
	if err != nil {
		return nil, err
	}
	t := &Target{
		Image: image(req.GetImage()), Inputs: inputs, Env: req.GetEnv(), SecretEnv: req.GetSecretEnv(),
		Log: events, Progress: events.progress,
		Pipeline: PipelineInfo{Name: req.GetPipeline().GetName(), Release: req.GetPipeline().GetRelease(), Arch: req.GetPipeline().GetArch()},
		Attempt:  int(req.GetAttempt()), Token: req.GetIdempotencyToken(),
	}
	if m := req.GetMachine(); m != nil {
		t.Machine = client.Machine(m)
	}
	if c := req.GetClock(); c != nil {
		t.Clock = c.AsTime().In(time.UTC)
	}
	return t, nil
}

func image(i *pluginv1.Image) *ImageInfo {
	if i == nil {
		return nil
	}
	info := &ImageInfo{Key: i.GetKey(), ID: i.GetId(), Region: i.GetRegion(), Size: i.GetSize()}
	for _, f := range i.GetFiles() {
		info.Files = append(info.Files, ImageFile{Format: f.GetFormat(), Path: f.GetPath(), Size: f.GetSize(), Allocated: f.GetAllocated(), SHA256: f.GetSha256()})
	}
	return info
}
