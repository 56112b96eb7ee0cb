package host

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// cleanupTime is how long a plugin may take to remove a resource.
const cleanupTime = 10 * time.Minute

// lostTime is how long the end of a process may take to be noticed after that of its
// connection.
const lostTime = 2 * time.Second

// call makes a call with one answer. name is that of the call, for errors.
func call[Q, A any](ctx context.Context, h *Host, c store.Content, name string, limit time.Duration, ask func(*process) asker[Q, A], question Q) (A, error) {
	answer, err := attempt(ctx, h, c, limit, ask, question)
	if err != nil {
		err = h.named(c, name, err)
	}
	return answer, err
}

func attempt[Q, A any](ctx context.Context, h *Host, c store.Content, limit time.Duration, ask func(*process) asker[Q, A], question Q) (answer A, err error) {
	p, err := h.acquire(ctx, c)
	if err != nil {
		return answer, err
	}
	defer h.release(p)
	slow := fmt.Errorf("it gave no answer within %v", limit)
	ctx, cancel := bounded(ctx, limit, slow)
	defer cancel()
	if answer, err = ask(p)(ctx, question); err != nil {
		err = p.explain(ctx, err)
		if errors.Is(err, slow) {
			h.retire(p, slow)
		}
	}
	return answer, err
}

// bounded ends with ctx, and after limit with the cause slow. Unlike a context with a
// deadline it is no business of the other side, which would end the call by itself.
func bounded(ctx context.Context, limit time.Duration, slow error) (context.Context, func()) {
	call, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	timer := time.AfterFunc(limit, func() { cancel(slow) })
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	return call, func() {
		timer.Stop()
		stop()
		cancel(nil)
	}
}

// named adds to an error which plugin it is about, and which call.
func (h *Host) named(c store.Content, call string, err error) error {
	return fmt.Errorf("plugin %s: %s: %w", h.name(c), call, err)
}

// name is a plugin's name and version, or what is known of them.
func (h *Host) name(c store.Content) string {
	h.mu.Lock()
	d := h.described[c.Digest]
	h.mu.Unlock()
	name, version := c.Manifest.Name, c.Manifest.Version
	if d != nil {
		name, version = d.GetName(), d.GetVersion()
	}
	switch {
	case name == "":
		return c.Digest
	case version == "":
		return name
	}
	return name + " " + version
}

// explain tells why a call failed: the process has ended, the context has, a message was too
// large; or the plugin says why.
func (p *process) explain(ctx context.Context, err error) error {
	if p.host.ctx.Err() != nil {
		return context.Cause(p.host.ctx)
	}
	if ctx.Err() != nil && !p.prog.over() {
		return context.Cause(ctx)
	}
	if large := tooLarge(err); large != nil {
		p.host.retire(p, large)
		return large
	}
	lost := status.Code(err) == codes.Unavailable
	if lost {
		select {
		case <-p.prog.exited:
		case <-time.After(lostTime):
		}
	}
	switch {
	case p.prog.over():
		<-p.prog.exited
		return fmt.Errorf("%s%s", p.prog.ended(), p.prog.said.last())
	case lost:
		err := fmt.Errorf("the connection was lost, though its process lives: %s%s", status.Convert(err).Message(), p.prog.said.last())
		p.host.retire(p, err)
		return err
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("it doesn't know this call: %s", status.Convert(err).Message())
	}
	said := broker.FromStatus(err)
	if st, ok := status.FromError(said); ok {
		return fmt.Errorf("%s (%s)", st.Message(), st.Code())
	}
	return said
}

// tooLargeText is what gRPC says of a message beyond the bound, in either direction.
var tooLargeText = regexp.MustCompile(`(received|send) message larger than max \((\d+) vs\. (\d+)\)`)

func tooLarge(err error) error {
	if status.Code(err) != codes.ResourceExhausted {
		return nil
	}
	found := tooLargeText.FindStringSubmatch(status.Convert(err).Message())
	if found == nil {
		return nil
	}
	n, parseErr := strconv.ParseInt(found[2], 10, 64)
	if parseErr != nil {
		return nil
	}
	if found[1] == "send" {
		return fmt.Errorf("the call has a message of %s, of at most %s", size(n), size(maxMessage))
	}
	return fmt.Errorf("it sent a message of %s, of at most %s", size(n), size(maxMessage))
}

// cancelRun asks a step to stop.
func (p *process) cancelRun(ctx context.Context, id string) {
	// Whether it heard or not, it gets the same time to stop.
	_, _ = p.rpc.Cancel(ctx, &pluginv1.CancelRequest{CallId: id})
}

// asker is a method of the client that gets one answer.
type asker[Q, A any] = func(ctx context.Context, question Q, opts ...grpc.CallOption) (A, error)
