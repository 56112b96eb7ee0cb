package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"github.com/gildhq/gild/engine/step"
)

// Exec runs a command and waits for it. It returns a *step.ExitError when the command
// ran and failed. When the command's first process has ended, everything it started is
// killed; the same happens when ctx is cancelled, with its cause as the error, and when
// a writer fails.
//
// A Stdin whose Read blocks for ever may still be read from after Exec has returned.
func (s *Session) Exec(ctx context.Context, cmd step.Cmd) error {
	if len(cmd.Argv) == 0 {
		return errors.New("run a command: it has no program")
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("run %s: %w", cmd.Argv[0], context.Cause(ctx))
	}
	status, err := s.exec(ctx, cmd)
	if err != nil {
		return fmt.Errorf("run %s: %w", cmd.Argv[0], err)
	}
	if status != 0 {
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return nil
}

func (s *Session) exec(ctx context.Context, cmd step.Cmd) (int, error) {
	spec := execSpec{Argv: cmd.Argv, Env: s.environment(cmd.Env), Dir: cmd.Dir}
	if spec.Dir == "" {
		spec.Dir = "/"
	}
	if cmd.Network {
		resolver, err := hostResolver()
		if err != nil {
			return 0, err
		}
		spec.Resolver = resolver
	}
	streams, err := openStreams(cmd)
	if err != nil {
		return 0, err
	}
	req := request{Op: opExec, Network: cmd.Network, Resolver: spec.Resolver != nil}
	req.Stdin, req.Stdout, req.Stderr = streams.stdin, streams.stdout, streams.stderr
	call, err := s.child.start(req, streams.theirs...)
	if err != nil {
		streams.close()
		return 0, err
	}
	defer call.conn.Close()
	// The command's init ends when it can't read from the caller any more.
	cancel := func() { _ = call.conn.CloseWrite() }
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	streams.copy(cancel)
	status, err := s.await(call, spec)
	copyErr := streams.wait()
	switch {
	case ctx.Err() != nil && err != nil:
		return 0, context.Cause(ctx)
	case copyErr != nil:
		return 0, copyErr
	default:
		return status, err
	}
}

// await sends what to run and returns its status once all its processes are gone.
func (s *Session) await(c *call, spec execSpec) (int, error) {
	// When it can't be sent, the reply tells why.
	sendErr := c.wire.send(spec)
	var r reply
	if err := c.wire.receive(&r); isEnd(err) {
		return 0, errors.New("all its processes were killed from outside")
	} else if err != nil {
		return 0, errors.Join(sendErr, err)
	}
	// The end comes only after the last process has gone. What may come before is how the
	// first one ended, which matters only when there is no status.
	var err error
	for err == nil {
		err = c.wire.receive(&reply{})
	}
	if !isEnd(err) {
		return 0, fmt.Errorf("wait for the end of its processes: %w", err)
	}
	return r.Status, r.err()
}

// isEnd reports whether the other side has closed a socket, be it with something of
// ours unread.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

// environment returns the whole environment of a command, sorted.
func (s *Session) environment(extra map[string]string) []string {
	env := map[string]string{
		"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":            "/root",
		"LANG":            "C.UTF-8",
		"TERM":            "dumb",
		"DEBIAN_FRONTEND": "noninteractive",
	}
	if !s.clock.IsZero() {
		env["SOURCE_DATE_EPOCH"] = strconv.FormatInt(s.clock.Unix(), 10)
	}
	maps.Copy(env, extra)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// hostResolver reads the host's resolv.conf; nil when it has none.
func hostResolver() ([]byte, error) {
	data, err := os.ReadFile(resolver)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the host's resolver: %w", err)
	}
	if data == nil {
		data = []byte{}
	}
	return data, nil
}

// streams are the standard streams of one command. Commands only ever get pipes: a
// file of the caller's would be a way out.
type streams struct {
	cmd    step.Cmd
	theirs []*os.File
	// Numbers of the streams among theirs, from 1; 0 is none.
	stdin, stdout, stderr int
	in, out, err          *os.File // our ends; nil where there is none

	readers sync.WaitGroup
	mu      sync.Mutex
	failure error
}

func openStreams(cmd step.Cmd) (*streams, error) {
	s := &streams{cmd: cmd}
	var failures error
	open := func(childReads bool) (*os.File, int) {
		ours, theirs, err := pipes(childReads)
		if err != nil {
			failures = errors.Join(failures, err)
			return nil, 0
		}
		s.theirs = append(s.theirs, theirs)
		return ours, len(s.theirs)
	}
	if cmd.Stdin != nil {
		s.in, s.stdin = open(true)
	}
	if cmd.Stdout != nil {
		s.out, s.stdout = open(false)
	}
	switch {
	case cmd.Stderr == nil:
	case sameWriter(cmd.Stdout, cmd.Stderr):
		// One pipe keeps the order of the two, and the writer from being used twice at once.
		s.stderr = s.stdout
	default:
		s.err, s.stderr = open(false)
	}
	if failures != nil {
		s.close()
		return nil, failures
	}
	return s, nil
}

// sameWriter compares writers, of which not every kind can be compared.
func sameWriter(a, b io.Writer) bool {
	if a == nil || b == nil || !reflect.TypeOf(a).Comparable() || !reflect.TypeOf(b).Comparable() {
		return false
	}
	return a == b
}

func (s *streams) close() {
	closeAll(append([]*os.File{s.in, s.out, s.err}, s.theirs...))
}

// copy starts moving data. It calls cancel when a writer fails.
func (s *streams) copy(cancel func()) {
	if s.in != nil {
		go func() {
			// A command that doesn't read its input to the end is no failure.
			_, _ = io.Copy(s.in, s.cmd.Stdin)
			s.in.Close()
		}()
	}
	s.drain(s.out, s.cmd.Stdout, "stdout", cancel)
	s.drain(s.err, s.cmd.Stderr, "stderr", cancel)
}

func (s *streams) drain(from *os.File, to io.Writer, name string, cancel func()) {
	if from == nil {
		return
	}
	s.readers.Go(func() {
		defer from.Close()
		if _, err := io.Copy(to, from); err != nil {
			s.fail(fmt.Errorf("copy its %s: %w", name, err))
			cancel()
		}
	})
}

func (s *streams) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = errors.Join(s.failure, err)
}

// wait returns when all output has been copied. The command's processes are gone by
// then, so nothing holds the pipes open.
func (s *streams) wait() error {
	s.readers.Wait()
	if s.in != nil {
		s.in.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}
