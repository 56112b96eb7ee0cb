package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// busyWait is how long a call waits for the machine: long enough for a call that was
// cancelled to end, short enough to tell a plugin that waits for itself.
const busyWait = 20 * time.Second

var errEnded = errors.New("the step has ended")

// session is what one token stands for.
type session struct {
	target *step.Target
	sum    [sha256.Size]byte
	ctx    context.Context
	cancel context.CancelCauseFunc
	// machine is held by the one call that the machine is free for, calls by all of them.
	machine, calls chan struct{}

	mu      sync.Mutex
	ended   bool
	running sync.WaitGroup
	claims  map[string]*claim
	inputs  map[string]*input
}

type sessionKey struct{}

// from returns the session of a call. Interceptors put it there, so it is there.
func from(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

// end cancels the calls and waits until none works on the target.
func (s *session) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.cancel(errEnded)
	s.running.Wait()
}

// enter counts a call in. The context it returns ends with the call and with the session.
func (s *session) enter(ctx context.Context) (context.Context, func(), error) {
	select {
	case s.calls <- struct{}{}:
	default:
		return nil, nil, status.Errorf(codes.ResourceExhausted, "the step has %d calls under way, the most there can be", maxCalls)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		<-s.calls
		return nil, nil, status.Error(codes.Unauthenticated, errEnded.Error())
	}
	s.running.Add(1)
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, sessionKey{}, s))
	stop := context.AfterFunc(s.ctx, func() { cancel(errEnded) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
		<-s.calls
		s.running.Done()
	}, nil
}

// lockMachine waits for the machine.
func (s *session) lockMachine(ctx context.Context) (step.MachineHandle, func(), error) {
	m := s.target.Machine
	if m == nil {
		return nil, nil, status.Error(codes.FailedPrecondition, "this step has no machine")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, busyWait, errBusy)
	defer cancel()
	select {
	case s.machine <- struct{}{}:
		return m, func() { <-s.machine }, nil
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), errBusy) {
			return nil, nil, status.Error(codes.ResourceExhausted, errBusy.Error())
		}
		return nil, nil, ToStatus(context.Cause(ctx))
	}
}

var errBusy = fmt.Errorf("the machine takes one call at a time, and another one has had it for %v", busyWait)

// authenticate finds the session of a call's token.
func (s *Server) authenticate(ctx context.Context) (*session, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	tokens := md.Get(pluginv1.TokenMetadata)
	if len(tokens) != 1 {
		return nil, status.Errorf(codes.Unauthenticated, "a call needs the metadata %s once", pluginv1.TokenMetadata)
	}
	sess := s.find(tokens[0])
	if sess == nil {
		return nil, status.Errorf(codes.Unauthenticated, "%s is no token of a running step", pluginv1.TokenMetadata)
	}
	return sess, nil
}

func (s *Server) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	sess, err := s.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	ctx, leave, err := sess.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return handler(ctx, req)
}

// stream runs the handler beside itself: one that waits for the plugin to send or to take
// something is only woken by the end of its stream, which comes when stream returns.
func (s *Server) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	sess, err := s.authenticate(ss.Context())
	if err != nil {
		return err
	}
	ctx, leave, err := sess.enter(ss.Context())
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer leave()
		done <- handler(srv, &stream{ServerStream: ss, ctx: ctx})
	}()
	select {
	case err := <-done:
		return err
	case <-sess.ctx.Done():
		return ToStatus(errEnded)
	}
}

// stream is a server stream whose context ends with its session too.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }
