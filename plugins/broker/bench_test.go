package broker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// The benchmarks compare with go-plugin's own broker and its mutual TLS. In both cases the
// test's program, started once more, is the plugin, and this process is gild.

const (
	uploadSize = 256 << 20
	bareID     = 1 // of the connection through go-plugin's broker
)

var benchHandshake = plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "GILD_BROKER_BENCH", MagicCookieValue: "1"}

// runBenchPlugin serves the benchmarks' plugin when this process is it.
func runBenchPlugin() {
	if os.Getenv(benchHandshake.MagicCookieKey) == "" {
		return
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: benchHandshake, Plugins: plugin.PluginSet{"bench": &benchPlugin{}},
		GRPCServer: plugin.DefaultGRPCServer, Logger: hclog.NewNullLogger(),
	})
	os.Exit(0)
}

// benchPlugin is both sides of the plugin. Its step is what to do how often.
type benchPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	pluginv1.UnimplementedStepPluginServer
	// bare connects through go-plugin's broker, which brings one connection for each id.
	bare func() (*grpc.ClientConn, error)
}

func (p *benchPlugin) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error {
	p.bare = sync.OnceValues(func() (*grpc.ClientConn, error) { return broker.Dial(bareID) })
	pluginv1.RegisterStepPluginServer(s, p)
	return nil
}

func (p *benchPlugin) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	go broker.AcceptAndServe(bareID, func(opts []grpc.ServerOption) *grpc.Server {
		s := grpc.NewServer(opts...)
		pluginv1.RegisterMachineServer(s, bareMachine{})
		return s
	})
	return pluginv1.NewStepPluginClient(conn), nil
}

// Run implements pluginv1.StepPluginServer.
func (p *benchPlugin) Run(req *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.RunEvent]) error {
	do, err := p.job(req)
	if err != nil {
		return err
	}
	for range req.GetAttempt() {
		if err := do(stream.Context()); err != nil {
			return err
		}
	}
	return stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: &pluginv1.Result{}}})
}

func (p *benchPlugin) job(req *pluginv1.RunRequest) (func(context.Context) error, error) {
	if what, ok := strings.CutPrefix(req.GetStep(), "gild "); ok {
		client, err := Dial(req.GetHostAddress(), req.GetHostToken())
		if err != nil {
			return nil, err
		}
		m := client.Machine(&pluginv1.MachineInfo{})
		return map[string]func(context.Context) error{
			"upload": func(ctx context.Context) error {
				return m.Put(ctx, step.PutFile{Path: "/x"}, io.LimitReader(zeros{}, uploadSize))
			},
			"facts": func(ctx context.Context) error { _, err := m.Facts(ctx); return err },
			"exec": func(ctx context.Context) error {
				return m.Exec(ctx, step.Cmd{Argv: []string{"true"}, Stdout: io.Discard})
			},
		}[what], nil
	}
	conn, err := p.bare()
	if err != nil {
		return nil, err
	}
	m := pluginv1.NewMachineClient(conn)
	return map[string]func(context.Context) error{
		"bare upload": func(ctx context.Context) error { return bareUpload(ctx, m) },
		"bare facts":  func(ctx context.Context) error { _, err := m.Facts(ctx, &pluginv1.FactsRequest{}); return err },
	}[req.GetStep()], nil
}

// zeros is content that costs nothing to read.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func bareUpload(ctx context.Context, c pluginv1.MachineClient) error {
	stream, err := c.Put(ctx)
	if err != nil {
		return err
	}
	chunk := make([]byte, chunkSize)
	for range uploadSize / chunkSize {
		if err := stream.Send(&pluginv1.PutRequest{Message: &pluginv1.PutRequest_Data{Data: chunk}}); err != nil {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// bareMachine is the least a service can do.
type bareMachine struct {
	pluginv1.UnimplementedMachineServer
}

func (bareMachine) Put(stream grpc.ClientStreamingServer[pluginv1.PutRequest, pluginv1.PutResponse]) error {
	for {
		if _, err := stream.Recv(); err == io.EOF {
			return stream.SendAndClose(&pluginv1.PutResponse{})
		} else if err != nil {
			return err
		}
	}
}

func (bareMachine) Facts(context.Context, *pluginv1.FactsRequest) (*pluginv1.FactsResponse, error) {
	return &pluginv1.FactsResponse{}, nil
}

// startBench starts the plugin and returns what runs one of its jobs.
func startBench(b *testing.B) (run func(what string, times int) time.Duration) {
	b.Helper()
	server := serve(b)
	token, end := server.Open(newTarget(&sink{}))
	b.Cleanup(end)
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: benchHandshake, Plugins: plugin.PluginSet{"bench": &benchPlugin{}}, AutoMTLS: true,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Cmd: exec.Command(os.Args[0]), Logger: hclog.NewNullLogger(),
	})
	b.Cleanup(client.Kill)
	protocol, err := client.Client()
	if err != nil {
		b.Fatal(err)
	}
	raw, err := protocol.Dispense("bench")
	if err != nil {
		b.Fatal(err)
	}
	run = func(what string, times int) time.Duration {
		b.Helper()
		begin := time.Now()
		stream, err := raw.(pluginv1.StepPluginClient).Run(b.Context(), &pluginv1.RunRequest{
			Step: what, Attempt: int32(times), HostAddress: server.Address(), HostToken: token,
		})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			b.Fatal(fmt.Errorf("%s: %w", what, err))
		}
		return time.Since(begin)
	}
	return run
}

// BenchmarkUpload puts 256 MiB on a machine that throws it away. "ratio" is gild's throughput
// over that of go-plugin's broker with pieces of the same size.
func BenchmarkUpload(b *testing.B) {
	run := startBench(b)
	run("bare facts", 1)
	var ours, theirs time.Duration
	b.SetBytes(uploadSize)
	for b.Loop() {
		ours += run("gild upload", 1)
		b.StopTimer()
		theirs += run("bare upload", 1)
		b.StartTimer()
	}
	b.ReportMetric(float64(theirs)/float64(ours), "ratio")
	b.ReportMetric(float64(b.N)*uploadSize/theirs.Seconds()/1e6, "bare-MB/s")
}

// BenchmarkFacts makes calls with one answer. "ratio" is the time of one over that of one
// through go-plugin's broker.
func BenchmarkFacts(b *testing.B) {
	run := startBench(b)
	run("bare facts", 1)
	theirs := run("bare facts", 1000) / 1000
	b.ResetTimer()
	ours := run("gild facts", b.N) / time.Duration(b.N)
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

// BenchmarkExec runs commands that end at once, without a machine's own cost.
func BenchmarkExec(b *testing.B) {
	run := startBench(b)
	run("gild exec", 1)
	b.ResetTimer()
	run("gild exec", b.N)
}
