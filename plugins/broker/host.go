package broker

import (
	"context"
	"io"
	"io/fs"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/plain"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// What a step can have recorded, and what of an input's list goes into one message.
const (
	maxClaims    = 4096
	maxKind      = 256
	maxID        = 4 << 10
	maxNote      = 4 << 10
	listCount    = 512
	listBytes    = 256 << 10
	perFileBytes = 64
)

// hostServer serves the inputs and claims of the session that a call belongs to.
type hostServer struct {
	pluginv1.UnimplementedHostServer
}

// input is an input of the step with its list, read when it is first asked for.
type input struct {
	step.Input
	once   sync.Once
	list   []step.InputFile
	byPath map[string]step.InputFile
}

func (in *input) files() ([]step.InputFile, map[string]step.InputFile) {
	in.once.Do(func() {
		in.list, in.byPath = in.Files(), map[string]step.InputFile{}
		for _, f := range in.list {
			in.byPath[f.Path] = f
		}
	})
	return in.list, in.byPath
}

func (s *session) input(name string) (*input, error) {
	found, ok := s.target.Inputs[name]
	if !ok {
		return nil, ToStatus(&fs.PathError{Op: "input", Path: name, Err: fs.ErrNotExist})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inputs[name] == nil {
		s.inputs[name] = &input{Input: found}
	}
	return s.inputs[name], nil
}

// ListInput implements pluginv1.HostServer.
func (hostServer) ListInput(req *pluginv1.ListInputRequest, stream grpc.ServerStreamingServer[pluginv1.ListInputResponse]) error {
	in, err := from(stream.Context()).input(req.GetInput())
	if err != nil {
		return err
	}
	list, _ := in.files()
	dir := in.IsDir()
	resp, size := &pluginv1.ListInputResponse{Dir: dir}, 0
	for _, f := range list {
		resp.Files = append(resp.Files, &pluginv1.InputFile{Path: f.Path, Mode: uint32(f.Mode), Size: f.Size, Link: f.Link})
		size += len(f.Path) + len(f.Link) + perFileBytes
		if len(resp.Files) < listCount && size < listBytes {
			continue
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		resp, size = &pluginv1.ListInputResponse{Dir: dir}, 0
	}
	return stream.Send(resp)
}

// ReadInput implements pluginv1.HostServer. Only what the list has is opened, so a path
// can't lead out of the input.
func (hostServer) ReadInput(req *pluginv1.ReadInputRequest, stream grpc.ServerStreamingServer[pluginv1.Chunk]) error {
	in, err := from(stream.Context()).input(req.GetInput())
	if err != nil {
		return err
	}
	_, byPath := in.files()
	f, ok := byPath[req.GetPath()]
	if !ok {
		return ToStatus(&fs.PathError{Op: "open", Path: req.GetPath(), Err: fs.ErrNotExist})
	}
	if !f.Mode.IsRegular() {
		return status.Errorf(codes.InvalidArgument, "%q of the input %q is no regular file", req.GetPath(), req.GetInput())
	}
	r, err := in.Open(f.Path)
	if err != nil {
		return from(stream.Context()).status(err)
	}
	_, err = io.Copy(chunks(stream), onlyReader{r})
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return from(stream.Context()).status(err)
}

// onlyReader hides a file's WriteTo, which copies in small pieces.
type onlyReader struct{ io.Reader }

// claim is a resource that the step recorded.
type claim struct {
	mu     sync.Mutex
	settle func(context.Context) error // nil when it is settled
}

// Claim implements pluginv1.HostServer.
func (hostServer) Claim(ctx context.Context, req *pluginv1.ClaimRequest) (*pluginv1.ClaimResponse, error) {
	r := step.Resource{Kind: req.GetResource().GetKind(), ID: req.GetResource().GetId(), Note: req.GetResource().GetNote()}
	if err := checkResource(r); err != nil {
		return nil, err
	}
	s, id, c := from(ctx), randomID(), &claim{}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.addClaim(id, c) {
		return nil, status.Errorf(codes.ResourceExhausted, "the step has made %d claims, the most there can be", maxClaims)
	}
	settle, err := s.target.Claim(ctx, r)
	if err != nil {
		return nil, from(ctx).status(err)
	}
	c.settle = settle
	return &pluginv1.ClaimResponse{Claim: id}, nil
}

func (s *session) addClaim(id string, c *claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.claims) >= maxClaims {
		return false
	}
	s.claims[id] = c
	return true
}

func checkResource(r step.Resource) error {
	for _, field := range []struct {
		name, value string
		min, max    int
	}{{"kind", r.Kind, 1, maxKind}, {"id", r.ID, 1, maxID}, {"note", r.Note, 0, maxNote}} {
		if n := len(field.value); n < field.min || n > field.max {
			return status.Errorf(codes.InvalidArgument, "the %s of a resource has %d bytes, not %d to %d", field.name, n, field.min, field.max)
		}
		// It is written down and shown to people.
		if !plain.Is(field.value, "") {
			return status.Errorf(codes.InvalidArgument, "the %s of a resource, %q, is not plain text in one line", field.name, clip(field.value, maxKind))
		}
	}
	return nil
}

// Settle implements pluginv1.HostServer.
func (hostServer) Settle(ctx context.Context, req *pluginv1.SettleRequest) (*pluginv1.SettleResponse, error) {
	s := from(ctx)
	s.mu.Lock()
	c := s.claims[req.GetClaim()]
	s.mu.Unlock()
	if c == nil {
		return nil, status.Errorf(codes.NotFound, "the step has no claim %q", clip(req.GetClaim(), maxKind))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settle == nil {
		return &pluginv1.SettleResponse{}, nil
	}
	if err := c.settle(ctx); err != nil {
		return nil, from(ctx).status(err)
	}
	c.settle = nil
	return &pluginv1.SettleResponse{}, nil
}
