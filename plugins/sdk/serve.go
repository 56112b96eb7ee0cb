package sdk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

const (
	// maxRequest is how large a request of gild's can be: a config with long texts in it.
	maxRequest = 16 << 20
	// parentPoll is how often a plugin looks whether gild is still there.
	parentPoll = 500 * time.Millisecond
)

// Serve serves the plugin to the gild that started this process, and is the whole of main.
// It returns when gild ends the plugin, and ends the process when gild is gone. A plugin
// whose declaration is wrong, and one that gild didn't start, end with a message.
func Serve(p Plugin) {
	s, err := NewServer(p, os.Stderr)
	if err != nil {
		fmt.Fprintf(os.Stderr, "plugin %s can't be served:\n%v\n", p.Name, err)
		os.Exit(2)
	}
	if os.Getenv(pluginv1.CookieKey) != pluginv1.CookieValue {
		fmt.Fprintf(os.Stderr, "%s %s is a plugin of gild, which starts it when a pipeline uses it.\nSee what it can do with: gild plugin docs %s\n", p.Name, p.Version, p.Name)
		os.Exit(2)
	}
	ServeService(s)
}

// ServeService is [Serve] for a service of another make than [NewServer].
func ServeService(s pluginv1.StepPluginServer) {
	// Ctrl-C in a terminal reaches every process; it is gild that decides what ends. Asking
	// for the signal, rather than ignoring it, keeps it as it was for programs started here.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	// go-plugin puts a stream to gild in the place of os.Stderr.
	go endWithParent(os.Getenv(pluginv1.ParentEnv), os.Stderr)
	plugin.Serve(serveConfig(s))
}

func serveConfig(s pluginv1.StepPluginServer) *plugin.ServeConfig {
	out := &ownOutput{stderr: os.Stderr}
	return &plugin.ServeConfig{
		HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: pluginv1.CookieKey, MagicCookieValue: pluginv1.CookieValue},
		VersionedPlugins: map[int]plugin.PluginSet{pluginv1.Version: {pluginv1.PluginName: &servedPlugin{service: s}}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxRequest), grpc.ChainUnaryInterceptor(out.unary), grpc.ChainStreamInterceptor(out.stream))...)
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	}
}

// endWithParent ends the process when its parent isn't gild any more. A plugin without
// gild has nobody to report to, and nobody else would end it.
func endWithParent(parent string, stderr io.Writer) {
	pid, err := strconv.Atoi(parent)
	if err != nil {
		return // not started by gild, but by a test
	}
	for range time.Tick(parentPoll) {
		if os.Getppid() != pid {
			fmt.Fprintf(stderr, "the plugin ends: gild isn't its parent: gild (process %d) has ended, or a wrapper started the plugin; a wrapper must exec the plugin\n", pid)
			os.Exit(1)
		}
	}
}

// ownOutput gives the process its standard error back, for which go-plugin puts in a stream
// to gild: what is printed last before an exit would be lost in it. Standard output goes
// the same way; gild reads nothing but the handshake from the real one.
type ownOutput struct {
	stderr *os.File
	once   sync.Once
}

// restore is called before the first call is answered, and so after go-plugin is done.
func (o *ownOutput) restore() {
	o.once.Do(func() { os.Stdout, os.Stderr = o.stderr, o.stderr })
}

func (o *ownOutput) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	o.restore()
	return handle(ctx, req)
}

func (o *ownOutput) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	o.restore()
	return handle(srv, s)
}

// servedPlugin is what go-plugin wants of a plugin: here, the service.
type servedPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	service pluginv1.StepPluginServer
}

// GRPCServer implements plugin.GRPCPlugin.
func (p *servedPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterStepPluginServer(s, p.service)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin.
func (*servedPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return pluginv1.NewStepPluginClient(conn), nil
}
