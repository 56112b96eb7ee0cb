// Package connect reaches EC2 instances: over SSM Run Command, over SSH, and over SSH with
// keys of EC2 Instance Connect.
//
// A running instance and the SDK's clients go in; a [step.MachineHandle] comes out, on
// which steps run as root. The three connections are one to the steps: a small POSIX shell
// program (agent.sh) starts the command in a cgroup of its own and kills all of it at the
// end, and how it is reached is the only difference. The machine needs cgroups, coreutils,
// gzip, util-linux and, over Run Command, openssl, which every current Debian, Ubuntu,
// Amazon Linux and RHEL has.
//
// Run Command has no streams: output and input go in pieces, each a command of its own,
// with the limits of AWS (64 KiB of parameters, 24,000 characters of output). AWS keeps
// what was sent and answered for 30 days, shows it to whoever may list commands, and the
// agent leaves it on the disk. So everything is encrypted: the machine and gild make a key
// pair each, for one session, and agree on a key by the public ones (ECDH); beside these only
// ciphertext is in any command or answer.
// This guards secrets from those who read; who may send commands is root there anyway.
// SSH encrypts by itself.
//
// The package makes no AWS resource. On the machine there is a private folder in /run until
// [Machine.Close], or until the machine restarts. Run Command's own agent keeps scripts, of
// ciphertext, below /var/lib/amazon/ssm, which sealing has to remove.
package connect

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/step"
)

var _ step.MachineHandle = (*Machine)(nil)

//go:embed agent.sh
var agentText string

// Instance is a running instance.
type Instance struct {
	// ID is the instance id.
	ID string
	// Region and Zone are where it runs; Zone is needed by nobody but Instance Connect, and
	// may be empty.
	Region, Zone string
	// Address is what SSH connects to: a public or private address or name that is
	// reachable from here, with ":port" when it isn't 22.
	Address string
	// Private is the address of the instance's own network card, which [Machine.Dial]
	// connects to on the instance; empty means its loopback.
	Private string
	// Arch in Go's names.
	Arch string
	// User of SSH, who is root or may become root by sudo without a password. Empty means
	// that the users of the well-known images are tried.
	User string
}

// Options are the same for every connection. The zero value is ready to use.
type Options struct {
	// Within bounds connecting, and coming back after a restart; 0 means 10 minutes.
	Within time.Duration
	// Guess is how long a command over Run Command is thought to take before one was seen; the
	// pauses between looks follow from it. 0 means 500ms.
	Guess time.Duration
	// Env is added to the minimal environment of every command: PATH, HOME and LANG.
	Env map[string]string
	// HostKeys are the keys the machine's SSH server may have, see [ParseHostKeys]. Without
	// any, the first key that is seen is trusted and no other after it.
	HostKeys []ssh.PublicKey
}

func (o Options) within() time.Duration {
	if o.Within == 0 {
		return 10 * time.Minute
	}
	return o.Within
}

func (o Options) guess() time.Duration {
	if o.Guess == 0 {
		return 500 * time.Millisecond
	}
	return o.Guess
}

// killGrace is how long a command that was told to end may take to be gone.
const killGrace = 30 * time.Second

// errRestarted is the error of a command whose machine was restarted under it.
var errRestarted = errors.New("the machine was restarted, which ended the command")

// job is a command as connections take it. Its writers don't fail.
type job struct {
	id      string
	request string
	stdin   io.Reader // nil: none
	stdout  io.Writer
	stderr  io.Writer // nil: goes to stdout, in order
	prompt  bool      // output is wanted at once rather than in few calls
}

// transport is a way to reach a machine. Safe for concurrent use.
type transport interface {
	// run runs a job to its end. When ctx ends first, the job is killed with all its
	// children, and the error is ctx's. A failure to read stdin ends ctx, and must not
	// look like the end of the input to the command.
	run(ctx context.Context, j job) (status int, err error)
	// dial connects to an address as the machine sees it; errNoForward when the transport
	// can't.
	dial(ctx context.Context, address string) (net.Conn, error)
	// lost gives up a connection that a restart of the machine has broken.
	lost()
	// close removes what is left on the machine.
	close(ctx context.Context) error
}

// Machine is an instance that commands can be run on. Safe for concurrent use: calls don't
// wait for one another. After a restart of the machine it connects again by itself.
type Machine struct {
	t      transport
	in     Instance
	env    map[string]string
	within time.Duration
}

// Exec runs a command on the machine, as root, in a session of its own. What it leaves
// running is killed when it ends, like all of it is when ctx ends: a daemon that is to stay
// is started through the machine's service manager. Names of variables are those a POSIX
// shell allows. When Stdout and Stderr are the same writer, the order of the two is kept.
//
// A read of cmd.Stdin that is under way when the command ends is left to finish by itself.
func (m *Machine) Exec(ctx context.Context, cmd step.Cmd) error {
	return m.exec(ctx, cmd, false)
}

func (m *Machine) exec(ctx context.Context, cmd step.Cmd, prompt bool) error {
	text, err := request(cmd, m.env)
	if err != nil && len(cmd.Argv) == 0 {
		return fmt.Errorf("run a command on %s: %w", m.in.ID, err)
	}
	var status int
	if err == nil {
		status, err = m.run(ctx, cmd, job{id: newID(), request: text, prompt: prompt})
	}
	switch {
	case err != nil:
		return fmt.Errorf("run %q on %s: %w", cmd.Argv[0], m.in.ID, err)
	case status != 0:
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return nil
}

// run runs j with cmd's streams. A stream that fails ends the command.
func (m *Machine) run(ctx context.Context, cmd step.Cmd, j job) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j.stdout = &sink{w: cmd.Stdout, fail: cancel}
	if !sameWriter(cmd.Stdout, cmd.Stderr) {
		j.stderr = &sink{w: cmd.Stderr, fail: cancel}
	}
	if cmd.Stdin != nil {
		j.stdin = &source{r: cmd.Stdin, fail: cancel}
	}
	status, err := m.t.run(ctx, j)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return status, err
}

// sameWriter compares writers, of which not every kind can be compared.
func sameWriter(a, b io.Writer) bool {
	if a == nil || b == nil || !reflect.TypeOf(a).Comparable() || !reflect.TypeOf(b).Comparable() {
		return false
	}
	return a == b
}

// sink passes on what a command writes until that fails, and then takes it all the same:
// the command is told to end, and whoever copies need not know.
type sink struct {
	w    io.Writer
	fail func(error)

	mu     sync.Mutex
	failed bool
}

func (o *sink) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.w == nil || o.failed {
		return len(p), nil
	}
	if _, err := o.w.Write(p); err != nil {
		o.failed = true
		o.fail(fmt.Errorf("pass the command's output on: %w", err))
	}
	return len(p), nil
}

// source reads a command's input. A failure ends the command; it isn't the end of the input.
type source struct {
	r    io.Reader
	fail func(error)
}

func (i *source) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if err != nil && err != io.EOF {
		i.fail(fmt.Errorf("read the command's input: %w", err))
	}
	return n, err
}

// Close ends the connection, and removes what it has left on the machine when that can
// still be reached: a machine that is gone is no error. Calls that are under way fail.
func (m *Machine) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), killGrace)
	defer cancel()
	if err := m.t.close(ctx); err != nil {
		return fmt.Errorf("end the connection to %s: %w", m.in.ID, err)
	}
	return nil
}

// newID returns a name that nothing else has, of letters and digits.
func newID() string { return rand.Text() }
