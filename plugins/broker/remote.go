package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// machine is a machine on gild's side.
type machine struct{ client pluginv1.MachineClient }

// Facts implements step.MachineHandle.
func (m *machine) Facts(ctx context.Context) (step.Facts, error) {
	f, err := m.client.Facts(ctx, &pluginv1.FactsRequest{})
	if err != nil {
		return step.Facts{}, callError(ctx, err)
	}
	return step.Facts{OS: f.GetOs(), Version: f.GetVersion(), Arch: f.GetArch(), PackageManager: f.GetPackageManager()}, nil
}

// Exec implements step.MachineHandle. A Stdin whose Read blocks for ever may still be read
// from after Exec has returned.
func (m *machine) Exec(ctx context.Context, cmd step.Cmd) error {
	if len(cmd.Argv) == 0 {
		return errors.New("run a command: it has no program")
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("run %s: %w", cmd.Argv[0], context.Cause(ctx))
	}
	status, err := m.exec(ctx, cmd)
	if err != nil {
		return err
	}
	if status != 0 {
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return nil
}

func (m *machine) exec(ctx context.Context, cmd step.Cmd) (int, error) {
	// Leaving early, because a writer failed, ends the command.
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := func(err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("run %s: %w", cmd.Argv[0], context.Cause(ctx))
		}
		return callError(ctx, err)
	}
	stream, err := m.client.Exec(callCtx)
	if err != nil {
		return 0, failed(err)
	}
	err = stream.Send(&pluginv1.ExecRequest{Message: &pluginv1.ExecRequest_Start{Start: &pluginv1.ExecStart{
		Argv: cmd.Argv, Env: cmd.Env, Dir: cmd.Dir, Network: cmd.Network,
		MergeOutput: cmd.Stdout != nil && sameWriter(cmd.Stdout, cmd.Stderr), DiscardStdout: cmd.Stdout == nil, DiscardStderr: cmd.Stderr == nil,
	}}})
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, failed(err)
	}
	go sendStdin(stream, cmd.Stdin)
	for {
		resp, err := stream.Recv()
		if err != nil {
			return 0, failed(early(err))
		}
		switch msg := resp.GetMessage().(type) {
		case *pluginv1.ExecResponse_Stdout:
			err = write(cmd.Stdout, msg.Stdout, "stdout")
		case *pluginv1.ExecResponse_Stderr:
			err = write(cmd.Stderr, msg.Stderr, "stderr")
		case *pluginv1.ExecResponse_Status:
			return int(msg.Status), nil
		}
		if err != nil {
			return 0, fmt.Errorf("run %s: %w", cmd.Argv[0], err)
		}
	}
}

// early tells an answer that ended too soon from its good end.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func write(w io.Writer, p []byte, name string) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("copy its %s: %w", name, err)
	}
	return nil
}

// sendStdin ends when the command does. That it doesn't read its input to the end is no
// failure, and why the stream broke is what the receiving side is told.
func sendStdin(stream grpc.BidiStreamingClient[pluginv1.ExecRequest, pluginv1.ExecResponse], stdin io.Reader) {
	if stdin != nil {
		_, _ = io.Copy(&sender{send: func(p []byte) error {
			return stream.Send(&pluginv1.ExecRequest{Message: &pluginv1.ExecRequest_Stdin{Stdin: p}})
		}}, onlyReader{stdin})
	}
	_ = stream.CloseSend()
}

// sameWriter compares writers, of which not every kind can be compared.
func sameWriter(a, b io.Writer) bool {
	if a == nil || b == nil || !reflect.TypeOf(a).Comparable() || !reflect.TypeOf(b).Comparable() {
		return false
	}
	return a == b
}

// Put implements step.MachineHandle.
func (m *machine) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	// Without the end of the content, which cancelling withholds, nothing is written.
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := m.client.Put(callCtx)
	if err != nil {
		return putError(ctx, file, err)
	}
	spec := &pluginv1.PutFile{
		Path: file.Path, Mode: unixBits(file.Mode), Owner: file.Owner, Group: file.Group, Parents: file.Parents,
	}
	if !file.ModTime.IsZero() {
		spec.ModTime = timestamppb.New(file.ModTime)
	}
	err = stream.Send(&pluginv1.PutRequest{Message: &pluginv1.PutRequest_File{File: spec}})
	if err == nil {
		err = sendContent(stream, content)
	}
	var broken *readError
	if errors.As(err, &broken) {
		return fmt.Errorf("put %q: %w", file.Path, broken.err)
	}
	// A stream that broke says why when the answer is asked for.
	if err != nil && !errors.Is(err, io.EOF) {
		return putError(ctx, file, err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return putError(ctx, file, early(err))
	}
	return nil
}

// putError returns the error as the machine worded it, which names the file; others are
// about the way to the machine.
func putError(ctx context.Context, file step.PutFile, err error) error {
	if ctx.Err() == nil && FromStatus(err) != err {
		return FromStatus(err)
	}
	return fmt.Errorf("put %q: %w", file.Path, callError(ctx, err))
}

// readError tells that the content couldn't be read, not that it couldn't be sent.
type readError struct{ err error }

// Error implements error.
func (r *readError) Error() string { return r.err.Error() }

func sendContent(stream grpc.ClientStreamingClient[pluginv1.PutRequest, pluginv1.PutResponse], content io.Reader) error {
	buf := make([]byte, chunkSize)
	for {
		n, err := fill(content, buf)
		if n > 0 {
			if err := stream.Send(&pluginv1.PutRequest{Message: &pluginv1.PutRequest_Data{Data: buf[:n]}}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return &readError{err}
		}
	}
}

// fill reads until buf is full. Unlike io.ReadFull it keeps the reader's error as it is:
// io.ErrUnexpectedEOF is one of a reader whose content is cut short.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Get implements step.MachineHandle.
func (m *machine) Get(ctx context.Context, path string, w io.Writer) error {
	callCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := m.client.Get(callCtx, &pluginv1.GetRequest{Path: path})
	for err == nil {
		var chunk *pluginv1.Chunk
		if chunk, err = stream.Recv(); err == nil {
			if _, err := w.Write(chunk.GetData()); err != nil {
				return fmt.Errorf("get %q: %w", path, err)
			}
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() == nil && FromStatus(err) != err:
		return FromStatus(err)
	default:
		return fmt.Errorf("get %q: %w", path, callError(ctx, err))
	}
}

// guest is a booted guest on gild's side.
type guest struct {
	*machine
	poweredOn time.Time
}

// PoweredOn implements step.Guest.
func (g *guest) PoweredOn() time.Time { return g.poweredOn }
