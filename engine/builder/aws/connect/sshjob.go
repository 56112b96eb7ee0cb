package connect

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// commandLine runs the agent with words, which are gild's own and need no quotes.
func (t *shell) commandLine(client *ssh.Client, words string) string {
	sudo := ""
	if client.User() != "root" {
		sudo = "sudo -n "
	}
	return "exec " + sudo + cleanEnv + "/bin/sh -c " + quote(agentText) + " gild " + t.work + " " + words
}

// session opens a session, on a new connection when the present one has ended.
func (t *shell) session(ctx context.Context) (*ssh.Client, *ssh.Session, error) {
	for first := true; ; first = false {
		client, err := t.current(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("connect: %w", err)
		}
		s, err := client.NewSession()
		if err == nil {
			return client, s, nil
		}
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) || !first {
			return nil, nil, fmt.Errorf("open a session: %w", err)
		}
		t.drop(client)
	}
}

func (t *shell) run(ctx context.Context, j job) (int, error) {
	client, s, err := t.session(ctx)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	mark := newID()
	stdout, stderr := &afterMark{mark: mark, w: j.stdout}, &afterMark{mark: mark, w: j.stderr}
	s.Stdout, s.Stderr = stdout, stderr
	in, err := s.StdinPipe()
	if err != nil {
		return 0, err
	}
	merge := "0"
	if j.stderr == nil {
		merge = "1"
	}
	if err := s.Start(t.commandLine(client, "exec "+j.id+" "+mark+" "+merge)); err != nil {
		return 0, fmt.Errorf("start a shell: %w", err)
	}
	go send(in, j)
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		return 0, errors.Join(context.Cause(ctx), t.kill(ctx, client, j.id, ended))
	}
	return exitStatus(err, stdout, stderr)
}

// send writes a job's request and its input. It isn't told when the job takes no more, as
// that is no failure; and when the input fails, the job is killed, so its end isn't sent.
func send(in io.WriteCloser, j job) {
	_, err := io.WriteString(in, base64.StdEncoding.EncodeToString([]byte(j.request))+"\n")
	if err == nil && j.stdin != nil {
		_, err = io.Copy(in, j.stdin)
	}
	if err == nil {
		_ = in.Close()
	}
}

// kill ends a job and waits until it is gone.
func (t *shell) kill(ctx context.Context, client *ssh.Client, id string, ended <-chan error) error {
	ctx, stop := context.WithTimeoutCause(context.WithoutCancel(ctx), killGrace, fmt.Errorf("not within %s", killGrace))
	defer stop()
	err := t.control(ctx, client, "kill "+id)
	if err == nil {
		select {
		case <-ended:
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	// The next job gets another connection.
	t.drop(client)
	<-ended
	return fmt.Errorf("end it on the machine: %w", err)
}

// control makes a call of the agent that has no streams.
func (t *shell) control(ctx context.Context, client *ssh.Client, words string) error {
	s, err := client.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	complaint := &beginning{most: 1 << 10}
	s.Stderr = complaint
	if err := s.Start(t.commandLine(client, words)); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		s.Close()
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%w: %q", err, strings.TrimSpace(complaint.String()))
	}
	return nil
}

// exitStatus tells how a job ended. Without the mark it never began.
func exitStatus(err error, stdout, stderr *afterMark) (int, error) {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &missing):
		return 0, errors.New("the connection broke off, which ended the command")
	case err != nil && !errors.As(err, &exit):
		return 0, err
	case !stdout.passed():
		return 0, fmt.Errorf("becoming root and starting it: %w: %q", errOr(err), strings.TrimSpace(stderr.before()+stdout.before()))
	case exit != nil && exit.Signal() != "":
		return 0, fmt.Errorf("gild's agent on the machine was killed by SIG%s", exit.Signal())
	case exit != nil:
		return exit.ExitStatus(), nil
	}
	return 0, nil
}

// errOr stands in for the missing error of a shell that said it was well.
func errOr(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// afterMark passes on what comes after a mark. What comes before it was said by something
// else than the command, such as a login script.
type afterMark struct {
	mark string
	w    io.Writer // nil discards it

	mu    sync.Mutex
	head  []byte
	found bool
}

// mostHead bounds what is kept of the words before the mark.
const mostHead = 64 << 10

func (a *afterMark) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rest := p
	if !a.found {
		a.head = append(a.head, p...)
		before, after, found := strings.Cut(string(a.head), a.mark)
		if !found {
			if len(a.head) > mostHead {
				a.head = append([]byte(nil), a.head[len(a.head)-len(a.mark):]...)
			}
			return len(p), nil
		}
		a.head, a.found, rest = []byte(before), true, []byte(after)
	}
	if a.w == nil || len(rest) == 0 {
		return len(p), nil
	}
	if _, err := a.w.Write(rest); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (a *afterMark) passed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.found
}

// before is what was said before the mark.
func (a *afterMark) before() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.head)
}
