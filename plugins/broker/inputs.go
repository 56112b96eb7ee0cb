package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"google.golang.org/grpc"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// Inputs lists the inputs named and returns them by name. What they open is read with
// calls that end with ctx.
func (c *Client) Inputs(ctx context.Context, names []string) (map[string]step.Input, error) {
	inputs := map[string]step.Input{}
	for _, name := range names {
		in, err := c.listInput(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("list the input %q: %w", name, callError(ctx, err))
		}
		inputs[name] = in
	}
	return inputs, nil
}

func (c *Client) listInput(ctx context.Context, name string) (*remoteInput, error) {
	stream, err := c.host.ListInput(ctx, &pluginv1.ListInputRequest{Input: name})
	if err != nil {
		return nil, err
	}
	in := &remoteInput{client: c, ctx: ctx, name: name}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return in, nil
		}
		if err != nil {
			return nil, err
		}
		in.dir = resp.GetDir()
		for _, f := range resp.GetFiles() {
			in.files = append(in.files, step.InputFile{Path: f.GetPath(), Mode: fs.FileMode(f.GetMode()), Size: f.GetSize(), Link: f.GetLink()})
		}
	}
}

// remoteInput is an input on gild's side. step.Input has no context in its methods, so
// the one of the step is kept.
type remoteInput struct {
	client *Client
	ctx    context.Context
	name   string
	dir    bool
	files  []step.InputFile
}

// IsDir implements step.Input.
func (in *remoteInput) IsDir() bool { return in.dir }

// Files implements step.Input.
func (in *remoteInput) Files() []step.InputFile { return in.files }

// Open implements step.Input.
func (in *remoteInput) Open(rel string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(in.ctx)
	stream, err := in.client.host.ReadInput(ctx, &pluginv1.ReadInputRequest{Input: in.name, Path: rel})
	if err != nil {
		cancel()
		return nil, in.failed(rel, err)
	}
	f := &remoteFile{cancel: cancel, receiver: chunkReceiver(stream, func(err error) error { return in.failed(rel, err) })}
	// What can't be opened shows here already, as with a file.
	if f.rest, f.err = f.next(); f.err != nil && f.err != io.EOF {
		cancel()
		return nil, f.err
	}
	return f, nil
}

func (in *remoteInput) failed(rel string, err error) error {
	return fmt.Errorf("read %q of the input %q: %w", rel, in.name, callError(in.ctx, err))
}

// remoteFile is a file that is being read.
type remoteFile struct {
	*receiver
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (f *remoteFile) Close() error {
	f.cancel()
	return nil
}

func chunkReceiver(stream grpc.ServerStreamingClient[pluginv1.Chunk], failed func(error) error) *receiver {
	return &receiver{next: func() ([]byte, error) {
		chunk, err := stream.Recv()
		if err != nil && !errors.Is(err, io.EOF) {
			err = failed(err)
		}
		return chunk.GetData(), err
	}}
}
