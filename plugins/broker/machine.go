package broker

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// maxConsole is how much of a guest's console crosses the wire: its end.
const maxConsole = 1 << 20

// machineServer serves the machine of the session that a call belongs to.
type machineServer struct {
	pluginv1.UnimplementedMachineServer
}

// Facts implements pluginv1.MachineServer.
func (machineServer) Facts(ctx context.Context, _ *pluginv1.FactsRequest) (*pluginv1.FactsResponse, error) {
	m, unlock, err := from(ctx).lockMachine(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	f, err := m.Facts(ctx)
	if err != nil {
		return nil, from(ctx).status(err)
	}
	return &pluginv1.FactsResponse{Os: f.OS, Version: f.Version, Arch: f.Arch, PackageManager: f.PackageManager}, nil
}

// Exec implements pluginv1.MachineServer.
func (machineServer) Exec(stream grpc.BidiStreamingServer[pluginv1.ExecRequest, pluginv1.ExecResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return unsent(err)
	}
	start := first.GetStart()
	if len(start.GetArgv()) == 0 {
		return status.Error(codes.InvalidArgument, "the first message of Exec has no start with a program")
	}
	m, unlock, err := from(stream.Context()).lockMachine(stream.Context())
	if err != nil {
		return err
	}
	defer unlock()
	err = m.Exec(stream.Context(), command(start, stream))
	var exit *step.ExitError
	if errors.As(err, &exit) {
		return stream.Send(&pluginv1.ExecResponse{Message: &pluginv1.ExecResponse_Status{Status: int32(exit.Status)}})
	}
	if err != nil {
		return from(stream.Context()).status(err)
	}
	return stream.Send(&pluginv1.ExecResponse{Message: &pluginv1.ExecResponse_Status{}})
}

func command(start *pluginv1.ExecStart, stream grpc.BidiStreamingServer[pluginv1.ExecRequest, pluginv1.ExecResponse]) step.Cmd {
	cmd := step.Cmd{
		Argv: start.GetArgv(), Env: maps.Clone(start.GetEnv()), Dir: start.GetDir(), Network: start.GetNetwork(),
		Stdin: &receiver{next: func() ([]byte, error) {
			req, err := stream.Recv()
			return req.GetStdin(), err
		}},
	}
	// Both writers may be used at the same time, and a stream takes one message at a time.
	lock := make(chan struct{}, 1)
	send := func(resp *pluginv1.ExecResponse) error {
		lock <- struct{}{}
		defer func() { <-lock }()
		return stream.Send(resp)
	}
	if !start.GetDiscardStdout() {
		cmd.Stdout = &sender{send: func(p []byte) error {
			return send(&pluginv1.ExecResponse{Message: &pluginv1.ExecResponse_Stdout{Stdout: p}})
		}}
	}
	switch {
	case start.GetMergeOutput():
		cmd.Stderr = cmd.Stdout
	case !start.GetDiscardStderr():
		cmd.Stderr = &sender{send: func(p []byte) error {
			return send(&pluginv1.ExecResponse{Message: &pluginv1.ExecResponse_Stderr{Stderr: p}})
		}}
	}
	return cmd
}

// Put implements pluginv1.MachineServer.
func (machineServer) Put(stream grpc.ClientStreamingServer[pluginv1.PutRequest, pluginv1.PutResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return unsent(err)
	}
	file := first.GetFile()
	if file.GetPath() == "" {
		return status.Error(codes.InvalidArgument, "the first message of Put has no file with a path")
	}
	m, unlock, err := from(stream.Context()).lockMachine(stream.Context())
	if err != nil {
		return err
	}
	defer unlock()
	err = m.Put(stream.Context(), putFile(file), &receiver{next: func() ([]byte, error) {
		req, err := stream.Recv()
		return req.GetData(), err
	}})
	if err != nil {
		return from(stream.Context()).status(err)
	}
	return stream.SendAndClose(&pluginv1.PutResponse{})
}

func putFile(f *pluginv1.PutFile) step.PutFile {
	var modTime time.Time
	if f.GetModTime() != nil {
		modTime = f.GetModTime().AsTime()
	}
	return step.PutFile{
		Path: f.GetPath(), Mode: fileMode(f.GetMode()), Owner: f.GetOwner(), Group: f.GetGroup(),
		ModTime: modTime, Parents: f.GetParents(),
	}
}

// Get implements pluginv1.MachineServer.
func (machineServer) Get(req *pluginv1.GetRequest, stream grpc.ServerStreamingServer[pluginv1.Chunk]) error {
	m, unlock, err := from(stream.Context()).lockMachine(stream.Context())
	if err != nil {
		return err
	}
	defer unlock()
	return from(stream.Context()).status(m.Get(stream.Context(), req.GetPath(), chunks(stream)))
}

// Dial implements pluginv1.MachineServer.
func (machineServer) Dial(stream grpc.BidiStreamingServer[pluginv1.DialRequest, pluginv1.Chunk]) error {
	guest, err := guestOf(stream.Context())
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return unsent(err)
	}
	port := first.GetPort()
	if port < 1 || port > 65535 {
		return status.Errorf(codes.InvalidArgument, "the first message of Dial has no port from 1 to 65535 but %d", port)
	}
	conn, err := guest.Dial(stream.Context(), int(port))
	if err != nil {
		return from(stream.Context()).status(err)
	}
	defer conn.Close()
	// A connection knows no context: closing it is what ends its calls.
	defer context.AfterFunc(stream.Context(), func() { conn.Close() })()
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	go send(conn, stream)
	_, err = io.Copy(chunks(stream), conn)
	return from(stream.Context()).status(err)
}

// send writes what the plugin sends to the connection, and ends that direction with it.
func send(conn net.Conn, stream grpc.BidiStreamingServer[pluginv1.DialRequest, pluginv1.Chunk]) {
	_, err := io.Copy(onlyWriter{conn}, &receiver{next: func() ([]byte, error) {
		req, err := stream.Recv()
		return req.GetData(), err
	}})
	half, ok := conn.(interface{ CloseWrite() error })
	if ok && err == nil {
		err = half.CloseWrite()
	}
	if !ok || err != nil {
		conn.Close()
	}
}

// unsent is the answer to a call whose first message didn't come.
func unsent(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the call ended before its first message")
	}
	return ToStatus(err)
}

// onlyWriter keeps io.Copy from taking a path of its own past the receiver.
type onlyWriter struct{ io.Writer }

// Console implements pluginv1.MachineServer.
func (machineServer) Console(ctx context.Context, _ *pluginv1.ConsoleRequest) (*pluginv1.ConsoleResponse, error) {
	guest, err := guestOf(ctx)
	if err != nil {
		return nil, err
	}
	text := guest.Console()
	text = text[max(len(text)-maxConsole, 0):]
	return &pluginv1.ConsoleResponse{Text: strings.ToValidUTF8(text, "\uFFFD")}, nil
}

func guestOf(ctx context.Context) (step.Guest, error) {
	guest, ok := from(ctx).target.Machine.(step.Guest)
	if !ok {
		return nil, status.Error(codes.FailedPrecondition, "this step has no booted guest")
	}
	return guest, nil
}

// modeBits are the bits of chmod above the permissions.
var modeBits = []struct {
	mode fs.FileMode
	bit  uint32
}{{fs.ModeSetuid, 0o4000}, {fs.ModeSetgid, 0o2000}, {fs.ModeSticky, 0o1000}}

func fileMode(bits uint32) fs.FileMode {
	mode := fs.FileMode(bits & 0o777)
	for _, b := range modeBits {
		if bits&b.bit != 0 {
			mode |= b.mode
		}
	}
	return mode
}

func unixBits(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	for _, b := range modeBits {
		if mode&b.mode != 0 {
			bits |= b.bit
		}
	}
	return bits
}
