package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gildhq/gild/plugins/internal/procs"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

var errEnded = errors.New("there was none")

// launch says how a plugin is started.
type launch struct {
	// argv is the program, absolute, with its arguments.
	argv []string
	dir  string
	// env is what the plugin may see of this process's environment, as NAME=value.
	env []string
	// tls makes the plugin prove itself by AutoMTLS.
	tls bool
	// within bounds the start.
	within time.Duration
}

// process is a running plugin.
type process struct {
	pid    int
	token  string
	stdout *stream
	stderr *stream
	// handshake is the line by which the plugin said where it listens.
	handshake string
	// seat is its folder, and sockets the one in it that it was given for them.
	seat, sockets string
	started       time.Duration

	conn   *grpc.ClientConn
	client pluginv1.StepPluginClient
	done   chan struct{}
	state  *os.ProcessState // set when done is closed
}

// start runs a plugin up to its handshake. adopt starts it as the child of a shell, which
// can be killed to see what the plugin does without its parent. The error is that of the
// plugin; then nothing of it is left.
func (l launch) start(ctx context.Context, adopt bool) (*process, error) {
	seat, err := newSeat()
	if err != nil {
		return nil, err
	}
	p := &process{
		token: rand.Text(), stdout: newStream(), stderr: newStream(),
		seat: seat, sockets: filepath.Join(seat, "sockets"), done: make(chan struct{}),
	}
	var id identity
	if l.tls {
		if id, err = newIdentity(); err != nil {
			return nil, errors.Join(err, os.RemoveAll(seat))
		}
	}
	begin := time.Now()
	cmd, dead, err := procs.Start(func() *exec.Cmd { return l.command(p, id, adopt) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", l.argv[0], err), os.RemoveAll(seat))
	}
	p.pid = cmd.Process.Pid
	go func() {
		<-dead
		// How it ended is in its state.
		_ = cmd.Wait()
		p.state = cmd.ProcessState
		close(p.done)
	}()
	if err := p.shake(ctx, l, id); err != nil {
		return nil, errors.Join(p.explain(err), p.kill())
	}
	p.started = time.Since(begin)
	return p, nil
}

// newSeat makes the folder of a process. Its path is short, as paths of sockets must be.
func newSeat() (string, error) {
	seat, err := os.MkdirTemp("", "gild-test-")
	if err != nil {
		return "", fmt.Errorf("make the plugin's folder: %w", err)
	}
	for _, name := range []string{"sockets", "tmp"} {
		if err := os.Mkdir(filepath.Join(seat, name), 0o700); err != nil {
			return "", errors.Join(fmt.Errorf("make the plugin's folder: %w", err), os.RemoveAll(seat))
		}
	}
	return seat, nil
}

func (l launch) command(p *process, id identity, adopt bool) *exec.Cmd {
	argv := l.argv
	parent := strconv.Itoa(os.Getpid())
	if adopt {
		argv = append([]string{"/bin/sh", "-c", pluginv1.ParentEnv + `=$$ "$@" & wait`, "sh"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = l.dir
	cmd.Env = append([]string{
		pluginv1.CookieKey + "=" + pluginv1.CookieValue,
		"PLUGIN_PROTOCOL_VERSIONS=" + strconv.Itoa(pluginv1.Version),
		"PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000",
		"PLUGIN_UNIX_SOCKET_DIR=" + p.sockets,
		pluginv1.ParentEnv + "=" + parent,
		procs.RunEnv + "=" + p.token,
		"TMPDIR=" + filepath.Join(p.seat, "tmp"),
	}, l.env...)
	if l.tls {
		cmd.Env = append(cmd.Env, "PLUGIN_CLIENT_CERT="+string(id.pem))
	}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	// Children that keep its output open must not keep us waiting.
	cmd.WaitDelay = time.Second
	return cmd
}

var looksLikeHandshake = regexp.MustCompile(`^\d+\|\d+\|`)

// shake waits for the handshake and connects.
func (p *process) shake(ctx context.Context, l launch, id identity) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.within, fmt.Errorf("no answer within %v", l.within))
	defer cancel()
	line, err := p.stdout.wait(ctx, p.done, looksLikeHandshake.Match)
	if err != nil {
		if printed := p.stdout.Bytes(); len(printed) > 0 {
			err = fmt.Errorf("%w; it printed %.200q", err, printed)
		}
		return fmt.Errorf("wait for the handshake line on its standard output: %w", err)
	}
	p.handshake = line
	address, creds, err := id.credentials(line)
	if err != nil {
		return err
	}
	p.conn, err = grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", address, err)
	}
	p.client = pluginv1.NewStepPluginClient(p.conn)
	if _, err := p.client.Describe(ctx, &pluginv1.DescribeRequest{GildVersion: describeVersion}); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("ask it to describe itself: %w", err)
	}
	return nil
}

// describeVersion is the version of gild that plugins are told by the kit.
const describeVersion = "0.0.0-conformance"

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// explain adds to an error how the process ended, if it did, and what it said last.
func (p *process) explain(err error) error {
	// A process that just broke off may need a moment to be gone.
	if eventually(context.Background(), 200*time.Millisecond, func() bool { return !p.alive() }) {
		err = fmt.Errorf("%w; its process ended: %v", err, p.state)
	}
	if last := lastLines(p.stderr.Bytes(), 5); last != "" {
		err = fmt.Errorf("%w; the last lines of its standard error:\n%s", err, last)
	}
	return err
}

// shutdown asks the plugin to end and reports whether it did within the time.
func (p *process) shutdown(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	// A plugin that ends at once may not get its answer out, so only its end counts.
	_ = p.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// kill ends the process with everything it started, and removes its socket folder.
func (p *process) kill() error {
	var errs []error
	if p.conn != nil {
		errs = append(errs, p.conn.Close())
		p.conn = nil
	}
	_, err := procs.Kill(p.offspring)
	<-p.done
	return errors.Join(append(errs, err, os.RemoveAll(p.seat))...)
}

// interrupt sends what Ctrl-C sends.
func (p *process) interrupt() error { return unix.Kill(-p.pid, unix.SIGINT) }

// leftovers returns what is in the socket folder.
func (p *process) leftovers() ([]string, error) {
	entries, err := os.ReadDir(p.sockets)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = filepath.Join(p.sockets, e.Name())
	}
	return names, err
}
