package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

const (
	// maxMessage bounds one message in either direction, in bytes.
	maxMessage = 4 << 20
	// exitTime is how long a process may take to end after it was told to.
	exitTime = 2 * time.Second
)

// process is a plugin that can be called.
type process struct {
	host    *Host
	content store.Content
	prog    *program
	proto   goplugin.ClientProtocol
	rpc     pluginv1.StepPluginClient
	gone    bool   // under the host's lock
	calls   int    // under the host's lock
	retired error  // why it takes no more calls; under the host's lock
	close   func() // asks it to end and closes the connection; waits for the first call of it
	ending  sync.Once
	done    chan struct{} // closed when nothing is left of it
}

// service is what go-plugin calls a plugin: it makes the client for one version of the
// protocol.
type service struct {
	goplugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements goplugin.GRPCPlugin. gild serves no plugin.
func (service) GRPCServer(*goplugin.GRPCBroker, *grpc.Server) error {
	return errors.New("gild is not a plugin")
}

// GRPCClient implements goplugin.GRPCPlugin.
func (service) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, c *grpc.ClientConn) (any, error) {
	return pluginv1.NewStepPluginClient(c), nil
}

// start starts a process of the content and connects to it. Nothing is left of one that
// can't be called.
func (h *Host) start(ctx context.Context, c store.Content) (*process, error) {
	folder, err := h.place()
	if err != nil {
		return nil, err
	}
	seat, err := folder.seat()
	if err != nil {
		return nil, err
	}
	err = h.cfg.Store.CopyTo(ctx, c, seat.content)
	var p *process
	if err == nil {
		p, err = h.startIn(ctx, c, seat)
	}
	if err != nil {
		return nil, errors.Join(err, seat.remove())
	}
	return p, nil
}

// startIn starts the copy of the content that lies in the seat.
func (h *Host) startIn(ctx context.Context, c store.Content, seat seat) (*process, error) {
	argv, err := commandOf(c.Manifest, h.cfg.Self, seat.content)
	if err != nil {
		return nil, err
	}
	p := &process{host: h, content: c, done: make(chan struct{})}
	p.close = sync.OnceFunc(func() {
		// Its errors are that the process is gone already.
		_ = p.proto.Close()
	})
	p.prog = &program{
		argv: argv, seat: seat, limits: c.Manifest.Limits, allow: h.passed(c.Manifest.Environment), tick: h.memoryTick,
		said:   &output{name: func() string { return h.name(c) }, log: h.log},
		exited: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { p.prog.kill(context.Cause(ctx)) })
	defer stop()
	if err := p.connect(); err != nil {
		p.prog.abandon()
		return nil, err
	}
	go p.bury()
	return p, nil
}

// connect starts the program and connects to it.
func (p *process) connect() (err error) {
	h, out := p.host, p.prog.said
	stderr := out.stream()
	config := &goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			MagicCookieKey: pluginv1.CookieKey, MagicCookieValue: pluginv1.CookieValue,
		},
		VersionedPlugins: h.versions,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         p.content.Manifest.TLS != manifest.TLSNone,
		SkipHostEnv:      true,
		StartTimeout:     h.cfg.StartTimeout,
		Logger:           hclog.NewNullLogger(),
		Stderr:           stderr,
		// What a Go plugin prints once it serves arrives here.
		SyncStdout:       out.stream(),
		SyncStderr:       out.stream(),
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: p.prog.seat.sockets},
		RunnerFunc:       p.runner,
	}
	conn := &connection{}
	config.GRPCDialOptions = []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithChainStreamInterceptor(conn.note),
	}
	client := goplugin.NewClient(config)
	if _, err := client.Start(); err != nil {
		return p.notStarted(err)
	}
	if config.AutoMTLS && config.TLSConfig.RootCAs == nil {
		return errors.New("it speaks plain text, and its manifest doesn't say so: put `tls: none` into its plugin.yaml")
	}
	defer conn.closeWhenDead(p.prog)()
	if p.proto, err = client.Client(); err != nil {
		conn.close()
		return p.notStarted(err)
	}
	service, err := p.proto.Dispense(pluginv1.PluginName)
	if err != nil {
		conn.close()
		return err
	}
	p.rpc = service.(pluginv1.StepPluginClient)
	return nil
}

// runner is what go-plugin starts instead of cmd.
func (p *process) runner(_ hclog.Logger, cmd *exec.Cmd, _ string) (runner.Runner, error) {
	p.prog.env = cmd.Env
	return p.prog, nil
}

// connection notes the connection that go-plugin makes, because go-plugin doesn't close it
// when the plugin dies before go-plugin's first call got through; it doesn't even notice the
// death then, but waits for 20 s.
type connection struct {
	mu     sync.Mutex
	cc     *grpc.ClientConn
	closed bool
}

func (c *connection) note(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.mu.Lock()
	c.cc = cc
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, errors.Join(errNotStarted, cc.Close())
	}
	return streamer(ctx, desc, cc, method, opts...)
}

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.cc != nil {
		// The error is that it is closed already.
		_ = c.cc.Close()
	}
}

// closeWhenDead closes the connection when the process ends, until the function that it
// returns is called.
func (c *connection) closeWhenDead(p *program) (release func()) {
	released := make(chan struct{})
	go func() {
		select {
		case <-p.dead:
			c.close()
		case <-released:
		}
	}()
	return func() { close(released) }
}

// stop ends the process and waits until nothing is left of it. It is asked to end first.
func (p *process) stop(why error) {
	p.ending.Do(func() {
		go p.close()
		select {
		case <-p.prog.dead:
		case <-time.After(exitTime):
			p.prog.kill(why)
		}
	})
	<-p.done
}

// bury removes what is left of the process when it has ended.
func (p *process) bury() {
	<-p.prog.exited
	p.host.forget(p)
	p.close()
	if err := p.prog.seat.remove(); err != nil {
		// Close tries again, and reports it.
		p.host.log.line(p.prog.said.name(), fmt.Sprintf("gild can't remove what it left behind: %v", err))
	}
	close(p.done)
}

// notStarted makes the error of a start that failed in go-plugin.
func (p *process) notStarted(err error) error {
	prog := p.prog
	prog.abandon()
	switch {
	case !prog.begun:
		return err
	case prog.pid == 0:
		return notExecuted(prog.err)
	}
	line, fault := prog.handshake.get()
	var version error
	if line != "" {
		version = p.host.checkVersion(line)
	}
	switch {
	case version != nil:
		err = version
	case !prog.killedFor(errNotStarted) && line != "":
		err = fmt.Errorf("%s before its first call", prog.ended())
	case !prog.killedFor(errNotStarted):
		err = fmt.Errorf("%s before the handshake", prog.ended())
	case fault != nil:
		err = fault
	case line == "":
		err = fmt.Errorf("it sent no handshake within %v", p.host.cfg.StartTimeout)
	}
	return fmt.Errorf("%w%s", err, prog.said.last())
}

// notExecuted explains why the kernel can't run a program.
func notExecuted(err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: its program is not one for %s/%s, and its first line names no interpreter", err, runtime.GOOS, runtime.GOARCH)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: its program, or the interpreter that its first line names, is not there", err)
	}
	return err
}
