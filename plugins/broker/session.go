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
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

var errEnded = errors.New("the step has ended")

// session is what one token stands for.
type session struct {
	target *step.Target
	sum    [sha256.Size]byte
	ctx    context.Context
	cancel context.CancelCauseFunc
	// machine is held by the one call that the machine is free for, calls by all of them.
	machine, calls chan struct{}
	busyWait       time.Duration

	mu      sync.Mutex
	ended   bool
	running sync.WaitGroup
	claims  map[string]*claim
	inputs  map[string]*input
}

type sessionKey struct{}

// from returns the session of a call. Admitting the call put it there.
func from(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

// status is [ToStatus] of an error with the step's secrets in it.
func (s *session) status(err error) error { return toStatusOf(err, s.target.Env) }

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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, nil, ToStatus(errEnded)
	}
	s.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(errEnded) })
	return ctx, func() {
		stop()
		cancel(context.Canceled)
		s.running.Done()
	}, nil
}

// lockMachine waits for the machine.
func (s *session) lockMachine(ctx context.Context) (step.MachineHandle, func(), error) {
	m := s.target.Machine
	if m == nil {
		return nil, nil, status.Error(codes.FailedPrecondition, "this step has no machine")
	}
	errBusy := fmt.Errorf("the machine takes one call at a time, and another one has had it for %v", s.busyWait)
	ctx, cancel := context.WithTimeoutCause(ctx, s.busyWait, errBusy)
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

// admit looks at each call before anything of it is read: a plugin can make gild hold no
// more than maxCalls messages for each of its steps, and nothing without a token.
func (s *Server) admit(ctx context.Context, info *tap.Info) (context.Context, error) {
	tokens := info.Header.Get(pluginv1.TokenMetadata)
	if len(tokens) != 1 {
		return nil, status.Errorf(codes.Unauthenticated, "a call needs the metadata %s once", pluginv1.TokenMetadata)
	}
	sess := s.find(tokens[0])
	if sess == nil {
		return nil, status.Errorf(codes.Unauthenticated, "%s is no token of a running step", pluginv1.TokenMetadata)
	}
	select {
	case sess.calls <- struct{}{}:
	default:
		return nil, status.Errorf(codes.ResourceExhausted, "the step has %d calls under way, the most there can be", maxCalls)
	}
	context.AfterFunc(ctx, func() { <-sess.calls })
	return context.WithValue(ctx, sessionKey{}, sess), nil
}

func unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, leave, err := from(ctx).enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return handler(ctx, req)
}

// streaming runs the handler beside itself: one that waits for the plugin to send or to
// take something is only woken by the end of its stream, which comes when streaming returns.
func streaming(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	sess := from(ss.Context())
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
