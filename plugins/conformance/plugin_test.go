package conformance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// modeEnv makes the test binary a plugin that is at fault in one thing.
const modeEnv = "GILD_CONFORMANCE_MODE"

// The modes of the plugin. It serves gRPC by hand, so that each can go wrong on its own.
const (
	good         = "good"
	silent       = "silent"       // never says where it listens
	banner       = "banner"       // greets before the handshake
	ahead        = "ahead"        // speaks a version that gild doesn't
	plainText    = "plain-text"   // takes no notice of TLS
	unhealthy    = "unhealthy"    // isn't serving, it says
	moody        = "moody"        // describes itself with its process id
	nameless     = "nameless"     // has no semantic version
	vague        = "vague"        // leaves a field undescribed
	open_        = "open"         // allows other fields
	undocumented = "undocumented" // has an example with a mistake
	lenient      = "lenient"      // takes a bad config
	fickle       = "fickle"       // validates differently each time
	careless     = "careless"     // claims, and doesn't say that it cleans up
	hungry       = "hungry"       // holds more memory than its limit
	unkeyed      = "unkeyed"      // adds its process id to the key
	obliging     = "obliging"     // runs any step
	fragile      = "fragile"      // dies of a broken config
	forgetful    = "forgetful"    // doesn't do the work
	chatty       = "chatty"       // goes on after the result
	mute         = "mute"         // gives no result
	undeclared   = "undeclared"   // gives another output than it says
	stubborn     = "stubborn"     // takes no notice of Cancel
	shared       = "shared"       // logs to whoever ran last
	crossed      = "crossed"      // logs its own words to whoever ran last
	once         = "once"         // can't clean up twice
	leaky        = "leaky"        // opens a file in each run
	greedy       = "greedy"       // keeps memory in each run
	nervous      = "nervous"      // dies of Ctrl-C
	immortal     = "immortal"     // doesn't shut down
	clingy       = "clingy"       // lives on without gild
	litterer     = "litterer"     // leaves a process
	messy        = "messy"        // leaves a file
	noisy        = "noisy"        // prints
	gossip       = "gossip"       // logs its env
)

// testPlugin is the plugin that the test binary can be.
type testPlugin struct {
	pluginv1.UnimplementedStepPluginServer
	mode string
	ends chan struct{}

	mu      sync.Mutex
	cancels map[string]context.CancelFunc
	cleaned map[string]bool
	last    *eventSender
	kept    [][]byte
	counter atomic.Int64
}

// servePlugin is the main function of the plugin.
func servePlugin(mode string) error {
	if mode == silent {
		select {}
	}
	if mode == banner {
		fmt.Println("hello")
	}
	if mode != nervous {
		signal.Ignore(os.Interrupt)
	}
	if mode != clingy {
		go func() {
			for range time.Tick(100 * time.Millisecond) {
				if strconv.Itoa(os.Getppid()) != os.Getenv(pluginv1.ParentEnv) {
					os.Exit(1)
				}
			}
		}()
	}
	sockets := os.Getenv("PLUGIN_UNIX_SOCKET_DIR")
	lis, err := net.Listen("unix", filepath.Join(sockets, "s"))
	if err != nil {
		return err
	}
	if mode == messy {
		if err := os.WriteFile(filepath.Join(sockets, "left"), nil, 0o600); err != nil {
			return err
		}
	}
	p := &testPlugin{mode: mode, ends: make(chan struct{}), cancels: map[string]context.CancelFunc{}, cleaned: map[string]bool{}}
	server, cert, err := p.server()
	if err != nil {
		return err
	}
	version := pluginv1.Version
	if mode == ahead {
		version++
	}
	fmt.Printf("1|%d|unix|%s|grpc|%s\n", version, lis.Addr(), cert)
	go func() {
		<-p.ends
		server.Stop()
	}()
	return server.Serve(lis)
}

func (p *testPlugin) server() (server *grpc.Server, cert string, err error) {
	var opts []grpc.ServerOption
	if theirs := os.Getenv("PLUGIN_CLIENT_CERT"); theirs != "" && p.mode != plainText {
		id, err := newIdentity()
		if err != nil {
			return nil, "", err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM([]byte(theirs)) {
			return nil, "", errors.New("bad certificate")
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{id.cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		})))
		cert = base64.RawStdEncoding.EncodeToString(id.cert.Certificate[0])
	}
	server = grpc.NewServer(opts...)
	pluginv1.RegisterStepPluginServer(server, p)
	h := health.NewServer()
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if p.mode == unhealthy {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	h.SetServingStatus("plugin", status)
	grpc_health_v1.RegisterHealthServer(server, h)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "plugin.GRPCController", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Shutdown", Handler: p.shutdown}},
	}, p)
	return server, cert, nil
}

func (p *testPlugin) shutdown(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
	if p.mode != immortal {
		p.mu.Lock()
		defer p.mu.Unlock()
		select {
		case <-p.ends:
		default:
			close(p.ends)
		}
	}
	return &emptypb.Empty{}, nil
}

// Describe implements pluginv1.StepPluginServer.
func (p *testPlugin) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	d := &pluginv1.DescribeResponse{Name: "test/motd", Version: "1.0.0"}
	if p.mode == nameless {
		d.Version = "1"
	}
	description, others, example := "the message", "false", `{text: hello}`
	switch p.mode {
	case vague:
		description = ""
	case open_:
		others = "true"
	case undocumented:
		example = `{txt: hello}`
	}
	doc := "Writes the message of the day.\n\n    customize:\n      - uses: test/motd\n        with: " + example + "\n"
	if p.mode == moody {
		doc += "\nThis is process " + strconv.Itoa(os.Getpid()) + ".\n"
	}
	d.Steps = []*pluginv1.StepType{{
		Name: "test/motd", Summary: "write the message of the day", Doc: doc,
		Schema: []byte(`{"type":"object","additionalProperties":` + others + `,"required":["text"],
			"properties":{"text":{"type":"string","description":"` + description + `"}}}`),
		Outputs:  map[string]string{"bytes": "integer"},
		Sections: []string{"customize"}, Cacheable: true, Validates: true, Keyed: true,
		Cleans: p.mode != careless,
	}}
	return d, nil
}

type testConfig struct {
	Text string `json:"text"`
}

func (p *testPlugin) config(text []byte) (c testConfig, err error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err = dec.Decode(&c)
	if err != nil && p.mode == fragile {
		fmt.Fprintln(os.Stderr, "fatal: config")
		os.Exit(3)
	}
	return c, err
}

// Validate implements pluginv1.StepPluginServer.
func (p *testPlugin) Validate(_ context.Context, r *pluginv1.ValidateRequest) (*pluginv1.ValidateResponse, error) {
	c, err := p.config(r.GetConfig())
	if err != nil {
		return nil, err
	}
	answer := &pluginv1.ValidateResponse{}
	if strings.Contains(c.Text, "\n") && p.mode != lenient {
		answer.Diagnostics = append(answer.Diagnostics, &pluginv1.Diagnostic{Message: "it has several lines", Pointer: "/text"})
	}
	if p.mode == fickle {
		answer.Diagnostics = append(answer.Diagnostics, &pluginv1.Diagnostic{
			Severity: pluginv1.Diagnostic_WARNING, Message: fmt.Sprintf("this is question %d", p.counter.Add(1)),
		})
	}
	return answer, nil
}

// KeyParts implements pluginv1.StepPluginServer.
func (p *testPlugin) KeyParts(_ context.Context, r *pluginv1.KeyPartsRequest) (*pluginv1.KeyPartsResponse, error) {
	c, err := p.config(r.GetConfig())
	if err != nil {
		return nil, err
	}
	parts := map[string]string{"length": strconv.Itoa(len(c.Text))}
	if p.mode == unkeyed {
		parts["pid"] = strconv.Itoa(os.Getpid())
	}
	return &pluginv1.KeyPartsResponse{Parts: parts}, nil
}

// eventSender is a run's stream. Safe for concurrent use.
type eventSender struct {
	mu     sync.Mutex
	stream grpc.ServerStreamingServer[pluginv1.RunEvent]
}

// Write implements io.Writer: it logs.
func (s *eventSender) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(text), s.stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Log{Log: bytes.Clone(text)}})
}

func (s *eventSender) finish(r *pluginv1.Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: r}})
}

// Run implements pluginv1.StepPluginServer.
func (p *testPlugin) Run(r *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.RunEvent]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	out := &eventSender{stream: stream}
	p.mu.Lock()
	p.cancels[r.GetCallId()], p.last = cancel, out
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.cancels, r.GetCallId())
	}()
	if p.mode == hungry {
		held := bytes.Repeat([]byte{1}, 64<<20)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second): // some looks of the host later
		}
		runtime.KeepAlive(held)
	}
	result := &pluginv1.Result{}
	n, err := p.work(ctx, r, out)
	if err != nil {
		result.Failure = broker.ToFailure(err)
	} else {
		result.Outputs = fmt.Appendf(nil, `{"bytes": %d}`, n)
		if p.mode == undeclared {
			result.Outputs = fmt.Appendf(nil, `{"bytes": %d, "octets": %d}`, n, n)
		}
	}
	if p.mode == mute {
		return nil
	}
	err = out.finish(result)
	if p.mode == chatty {
		_, logErr := io.WriteString(out, "by the way\n")
		err = errors.Join(err, logErr)
	}
	return err
}

func (p *testPlugin) work(ctx context.Context, r *pluginv1.RunRequest, out io.Writer) (n int, err error) {
	if r.GetStep() != "test/motd" && p.mode != obliging {
		return 0, fmt.Errorf("there is no step %q", r.GetStep())
	}
	c, err := p.config(r.GetConfig())
	if err != nil {
		return 0, fmt.Errorf("decode the config: %w", err)
	}
	client, err := broker.Dial(r.GetHostAddress(), r.GetHostToken())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := p.misbehave(r, out); err != nil {
		return 0, err
	}
	settle, err := client.Claim(ctx, step.Resource{Kind: "note", ID: "/etc/motd", Note: "the message"})
	if err != nil {
		return 0, err
	}
	machine := client.Machine(r.GetMachine())
	// A command before the file makes the machine the first thing that a run waits for.
	err = machine.Exec(ctx, step.Cmd{Argv: []string{"sync"}, Stdout: p.log(out), Stderr: p.log(out)})
	if err != nil {
		return 0, err
	}
	if p.mode != forgetful {
		err = machine.Put(ctx, step.PutFile{Path: "/etc/motd"}, strings.NewReader(c.Text+"\n"))
		if err != nil {
			return 0, err
		}
	}
	out = p.log(out)
	if p.mode == crossed {
		p.mu.Lock()
		out = p.last
		p.mu.Unlock()
	}
	fmt.Fprintln(out, "wrote the message")
	return len(c.Text) + 1, settle(ctx)
}

// log is where a run's output goes: to its own stream, or in one mode to that of the last.
func (p *testPlugin) log(own io.Writer) io.Writer {
	if p.mode != shared {
		return own
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

func (p *testPlugin) misbehave(r *pluginv1.RunRequest, out io.Writer) error {
	switch p.mode {
	case noisy:
		fmt.Println("working")
	case gossip:
		for name, value := range r.GetEnv() {
			fmt.Fprintf(out, "%s=%s\n", name, value)
		}
	case leaky:
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY, 0)
		if err != nil || fd < 0 {
			return err
		}
	case greedy:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.kept = append(p.kept, bytes.Repeat([]byte("x"), 1<<20))
	case litterer:
		cmd := exec.Command("/bin/sleep", "300")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return cmd.Start()
	}
	return nil
}

// Cancel implements pluginv1.StepPluginServer.
func (p *testPlugin) Cancel(_ context.Context, r *pluginv1.CancelRequest) (*pluginv1.CancelResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.cancels[r.GetCallId()]; cancel != nil && p.mode != stubborn {
		cancel()
	}
	return &pluginv1.CancelResponse{}, nil
}

// Cleanup implements pluginv1.StepPluginServer.
func (p *testPlugin) Cleanup(_ context.Context, r *pluginv1.CleanupRequest) (*pluginv1.CleanupResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := r.GetResource().GetId()
	if p.cleaned[id] && p.mode == once {
		return nil, fmt.Errorf("%s: no such resource", id)
	}
	p.cleaned[id] = true
	return &pluginv1.CleanupResponse{}, nil
}
