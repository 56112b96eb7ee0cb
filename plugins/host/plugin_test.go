package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// servePlugin is the main function of the plugin. The first argument says how it starts.
func servePlugin(args []string) {
	how := "serve"
	if len(args) > 0 {
		how = args[0]
	}
	versions := []int{1}
	switch how {
	case "eat":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			panic(err)
		}
		if _, err := eat(-1, n, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
			panic(err)
		}
		time.Sleep(time.Hour)
	case "crash":
		fmt.Fprintln(os.Stderr, "no such device")
		os.Exit(3)
	case "hang":
		select {}
	case "garbage":
		fmt.Println("Welcome!")
		os.Stdout.Write(bytes.Repeat([]byte("garbage\n"), 100_000))
		select {}
	case "endless":
		for {
			os.Stdout.Write(bytes.Repeat([]byte{0xff}, 1<<20))
		}
	case "silent":
		os.Stdout.Close()
		select {}
	case "greeting":
		fmt.Print("Welcome!\nThis is|not the|hand|shake|\n\n")
	case "bad-certificate":
		fmt.Printf("1|1|unix|%s/s|grpc|%s\n", os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), strings.Repeat("x", 60))
		select {}
	case "crash-plain":
		fmt.Printf("1|1|unix|%s/s|grpc|\n", os.Getenv("PLUGIN_UNIX_SOCKET_DIR"))
		os.Exit(4)
	case "tcp":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc|")
		select {}
	case "elsewhere":
		fmt.Println("1|1|unix|/tmp/elsewhere|grpc|")
		select {}
	case "plaintext":
		os.Unsetenv("PLUGIN_CLIENT_CERT")
	case "old":
		versions = []int{0}
	case "new":
		versions = []int{7}
	case "both":
		versions = []int{1, 2}
	case "bad-description":
	}
	all := map[int]goplugin.PluginSet{}
	for _, v := range versions {
		all[v] = goplugin.PluginSet{pluginv1.PluginName: servedPlugin{version: v, how: how}}
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: pluginv1.CookieKey, MagicCookieValue: pluginv1.CookieValue},
		VersionedPlugins: all,
		GRPCServer:       goplugin.DefaultGRPCServer,
	})
}

// eat maps memory and writes to all of it.
func eat(fd, n, flags int) ([]byte, error) {
	if fd >= 0 {
		if err := unix.Ftruncate(fd, int64(n)); err != nil {
			return nil, err
		}
	}
	held, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, err
	}
	for i := 0; i < n; i += 4096 {
		held[i] = 1
	}
	return held, nil
}

type servedPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	version int
	how     string
}

func (p servedPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterStepPluginServer(s, &stepServer{version: p.version, how: p.how, cancelled: map[string]chan struct{}{}})
	return nil
}

func (servedPlugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a client")
}

// stepServer is a plugin with one step, whose config says what to do.
type stepServer struct {
	pluginv1.UnimplementedStepPluginServer
	version int
	how     string

	mu        sync.Mutex
	cancelled map[string]chan struct{}
}

type doing struct {
	Do   string
	N    int
	Text string
}

const testSchema = `{"type":"object","properties":{"do":{"type":"string"},"n":{"type":"integer"},"text":{"type":"string"}}}`

func (s *stepServer) Describe(context.Context, *pluginv1.DescribeRequest) (*pluginv1.DescribeResponse, error) {
	switch s.how {
	case "bad-description":
		return &pluginv1.DescribeResponse{Name: "Acme", Version: "new", Steps: []*pluginv1.StepType{{Name: "x"}}}, nil
	case "hang-describe":
		select {}
	}
	return &pluginv1.DescribeResponse{Name: "acme/test", Version: "1.2.3", Steps: []*pluginv1.StepType{{
		Cleans: s.how != "no-cleanup",
		Name:   "acme/test", Summary: "does as it is told", Doc: "Help.", Schema: []byte(testSchema),
		Outputs: map[string]string{"text": "string"}, Sections: []string{"customize"},
		Cacheable: true, Validates: true, Keyed: true,
	}}}, nil
}

func (s *stepServer) Validate(ctx context.Context, req *pluginv1.ValidateRequest) (*pluginv1.ValidateResponse, error) {
	var d doing
	if err := json.Unmarshal(req.GetConfig(), &d); err != nil {
		return nil, err
	}
	switch d.Do {
	case "hang":
		select {}
	case "crash":
		fmt.Fprintln(os.Stderr, "validate went wrong")
		syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case "fail":
		return nil, broker.ToStatus(errors.New("the config is odd"))
	case "huge":
		return &pluginv1.ValidateResponse{Diagnostics: []*pluginv1.Diagnostic{{Message: strings.Repeat("x", d.N)}}}, nil
	case "many":
		return &pluginv1.ValidateResponse{Diagnostics: make([]*pluginv1.Diagnostic, d.N)}, nil
	case "bad":
		return &pluginv1.ValidateResponse{Diagnostics: []*pluginv1.Diagnostic{
			{Severity: pluginv1.Diagnostic_WARNING, Message: "this is odd", Hint: "change it", Pointer: "/do"},
		}}, nil
	}
	return &pluginv1.ValidateResponse{}, nil
}

func (s *stepServer) KeyParts(_ context.Context, req *pluginv1.KeyPartsRequest) (*pluginv1.KeyPartsResponse, error) {
	var d doing
	if err := json.Unmarshal(req.GetConfig(), &d); err != nil {
		return nil, err
	}
	return &pluginv1.KeyPartsResponse{Parts: map[string]string{"tool": strings.Repeat("7", d.N)}}, nil
}

// Cleanup takes as long as the resource's id says, and then makes the file of its note.
func (s *stepServer) Cleanup(_ context.Context, req *pluginv1.CleanupRequest) (*pluginv1.CleanupResponse, error) {
	d, err := time.ParseDuration(req.GetResource().GetId())
	if err != nil {
		return nil, broker.ToStatus(err)
	}
	time.Sleep(d)
	return &pluginv1.CleanupResponse{}, os.WriteFile(req.GetResource().GetNote(), nil, 0o600)
}

func (s *stepServer) Cancel(_ context.Context, req *pluginv1.CancelRequest) (*pluginv1.CancelResponse, error) {
	close(s.cancel(req.GetCallId()))
	return &pluginv1.CancelResponse{}, nil
}

func (s *stepServer) cancel(id string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cancelled[id]
	if c == nil {
		c = make(chan struct{})
		s.cancelled[id] = c
	}
	return c
}

func (s *stepServer) Run(req *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.RunEvent]) error {
	var d doing
	if err := json.Unmarshal(req.GetConfig(), &d); err != nil {
		return err
	}
	say := func(text string) error {
		return stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Log{Log: []byte(text)}})
	}
	result := func(text string) error {
		raw, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			return err
		}
		return stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: &pluginv1.Result{Outputs: raw}}})
	}
	rawResult := func(raw string) error {
		return stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: &pluginv1.Result{Outputs: []byte(raw)}}})
	}
	failure := func(f *pluginv1.Failure) error {
		return stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: &pluginv1.Result{Failure: f}}})
	}
	wait := func() error {
		select {
		case <-s.cancel(req.GetCallId()):
			return failure(&pluginv1.Failure{Kind: pluginv1.Failure_CANCELLED, Message: "stopped as asked"})
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	switch d.Do {
	case "echo":
		return errors.Join(say("hello\nworld"), stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Progress{
			Progress: &pluginv1.Progress{Done: 1, Total: 2, Unit: "B"}}}), result(d.Text))
	case "pid":
		return result(fmt.Sprint(os.Getpid()))
	case "version":
		return result(fmt.Sprint(s.version))
	case "env":
		return result(strings.Join(os.Environ(), "\n"))
	case "stdin":
		text, err := io.ReadAll(os.Stdin)
		return errors.Join(err, result(string(text)))
	case "progress":
		return errors.Join(stream.Send(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Progress{
			Progress: &pluginv1.Progress{Done: -1, Total: -2, Unit: d.Text}}}), result(""))
	case "finish":
		// It takes a while to stop, and leaves a mark when it has.
		if err := say("working\n"); err != nil {
			return err
		}
		<-s.cancel(req.GetCallId())
		time.Sleep(300 * time.Millisecond)
		return errors.Join(os.WriteFile(d.Text, nil, 0o600), result(""))
	case "flood-wait":
		line := []byte(strings.Repeat("x", 99) + "\n")
		for range d.N / 50_000 {
			if err := say(string(bytes.Repeat(line, 500))); err != nil {
				return err
			}
		}
		select {}
	case "wait":
		return errors.Join(say("waiting\n"), wait())
	case "ignore":
		if err := say("ignoring\n"); err != nil {
			return err
		}
		select {}
	case "crash":
		if err := say("about to crash\n"); err != nil {
			return err
		}
		// Where a crashing Go program writes to; os.Stderr has become a stream of go-plugin.
		syscall.Write(2, []byte("\x1b[31mout of cheese\nredo from start\n"))
		os.Exit(d.N)
	case "abort":
		syscall.Kill(os.Getpid(), syscall.SIGABRT)
		select {}
	case "print":
		fmt.Println(d.Text)
		fmt.Fprintln(os.Stderr, d.Text)
		return result("")
	case "flood":
		line := strings.Repeat("x", 99) + "\n"
		for sent := 0; sent < d.N; sent += len(line) * 500 {
			if err := say(strings.Repeat(line, 500)); err != nil {
				return err
			}
		}
		return result("")
	case "flood-stderr":
		line := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 500)
		for sent := 0; sent < d.N; sent += len(line) {
			syscall.Write(2, line)
		}
		return result("")
	case "huge":
		return result(strings.Repeat("x", d.N))
	case "raw":
		return rawResult(d.Text)
	case "no-result":
		return nil
	case "more":
		return errors.Join(result(""), say("more\n"), wait())
	case "unended":
		if err := result(""); err != nil {
			return err
		}
		select {}
	case "memory":
		if err := say("eating\n"); err != nil {
			return err
		}
		var held [][]byte
		for i := 0; i < d.N; i += 1 << 20 {
			b := make([]byte, 1<<20)
			for j := 0; j < len(b); j += 4096 {
				b[j] = 1
			}
			held = append(held, b)
			time.Sleep(time.Millisecond)
		}
		defer func() { fmt.Fprint(io.Discard, len(held)) }()
		return wait()
	case "shared-memory":
		// What isn't on a disk is memory, although the kernel counts it as a file's.
		fd, err := unix.MemfdCreate("test", 0)
		if err != nil {
			return err
		}
		held, err := eat(fd, d.N, unix.MAP_SHARED)
		defer func() { fmt.Fprint(io.Discard, len(held)) }()
		return errors.Join(err, wait())
	case "away":
		// Its parent ends at once, so it is no descendant of this process.
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command("/bin/sh", "-c", `"$0" eat "$1" </dev/null >/dev/null 2>&1 &`, self, fmt.Sprint(d.N))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return errors.Join(cmd.Run(), wait())
	case "child":
		// It leaves its process group, and holds the pipes open.
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.Stdout, cmd.Stderr = os.NewFile(1, "out"), os.NewFile(2, "err")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		return result(fmt.Sprint(cmd.Process.Pid))
	case "skip":
		return failure(&pluginv1.Failure{Kind: pluginv1.Failure_SKIPPED, Message: "nothing to do"})
	case "permanent":
		return failure(&pluginv1.Failure{Kind: pluginv1.Failure_PERMANENT, Message: "no such package"})
	case "test-failed":
		return failure(&pluginv1.Failure{Kind: pluginv1.Failure_TEST_FAILED, Checks: []string{"port 80 is closed"}})
	case "exit-error":
		return failure(&pluginv1.Failure{Message: "apt-get: exit status 100", Exit: &pluginv1.ExitStatus{Argv: []string{"apt-get"}, Status: 100}})
	case "status":
		return broker.ToStatus(errors.New("a status with a failure"))
	case "os":
		return s.machineOS(req, result)
	case "request":
		return result(fmt.Sprint(req.GetStep(), req.GetEnv(), req.GetInputs(), req.GetClock().AsTime().Unix(),
			req.GetPipeline().GetName(), req.GetAttempt(), req.GetIdempotencyToken(), req.GetImage().GetFiles()))
	}
	return fmt.Errorf("the plugin can't %q", d.Do)
}

func (s *stepServer) machineOS(req *pluginv1.RunRequest, result func(string) error) error {
	client, err := broker.Dial(req.GetHostAddress(), req.GetHostToken())
	if err != nil {
		return err
	}
	defer client.Close()
	facts, err := client.Machine(req.GetMachine()).Facts(context.Background())
	if err != nil {
		return err
	}
	return result(facts.OS)
}
