package connect

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// dialTimeout bounds one attempt to connect, handshake included.
	dialTimeout = 20 * time.Second
	// keepalive is how often a connection is tried, and how long an answer may take.
	keepalive = 15 * time.Second
	sshPort   = "22"
)

// knownUsers are those of the well-known images, tried when no user is given.
var knownUsers = [...]string{"ec2-user", "admin", "ubuntu", "debian", "rocky", "fedora"}

// SSH connects with a key whose public half the instance accepts, and repeats that until
// it works: a machine that boots refuses connections first and keys after that.
func SSH(ctx context.Context, in Instance, key ed25519.PrivateKey, o Options) (*Machine, error) {
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		return nil, fmt.Errorf("connect to %s over SSH: %w", in.ID, err)
	}
	return openShell(ctx, in, signer, nil, o)
}

// openShell connects over SSH. prepare, unless it is nil, is called before every attempt.
func openShell(ctx context.Context, in Instance, signer ssh.Signer, prepare func(ctx context.Context, user string) error, o Options) (*Machine, error) {
	t := &shell{
		address: in.Address, signer: signer, prepare: prepare, within: o.within(), work: "/run/gild-" + newID(),
		users: knownUsers[:], keys: hostKeys{known: o.HostKeys},
	}
	if in.User != "" {
		t.users = []string{in.User}
	}
	if _, _, err := net.SplitHostPort(in.Address); err != nil {
		t.address = net.JoinHostPort(in.Address, sshPort)
	}
	if _, err := t.current(ctx); err != nil {
		return nil, fmt.Errorf("connect to %s at %s over SSH: %w", in.ID, t.address, err)
	}
	return &Machine{t: t, in: in, env: o.Env, within: o.within()}, nil
}

// shell is a connection over SSH.
type shell struct {
	address string
	signer  ssh.Signer
	prepare func(ctx context.Context, user string) error
	within  time.Duration
	work    string // the agent's folder
	keys    hostKeys

	connecting sync.Mutex
	users      []string // those that may be the right one

	mu     sync.Mutex
	client *ssh.Client
	closed bool
	live   sync.WaitGroup // those who watch clients
}

// permanent is the error of an attempt that another one wouldn't mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// current returns the connection, and makes it when there is none.
func (t *shell) current(ctx context.Context) (*ssh.Client, error) {
	t.connecting.Lock()
	defer t.connecting.Unlock()
	if client, err := t.present(); client != nil || err != nil {
		return client, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, t.within, fmt.Errorf("not within %s", t.within))
	defer cancel()
	delay := 500 * time.Millisecond
	for turn := 0; ; {
		user := t.users[turn%len(t.users)]
		client, err := t.connect(ctx, user)
		if err == nil {
			t.users = []string{user}
			return client, t.keep(client)
		}
		if errors.As(err, new(permanent)) {
			return nil, err
		}
		if turn++; turn%len(t.users) != 0 && ctx.Err() == nil {
			continue
		}
		if waitErr := pause(ctx, delay); waitErr != nil {
			return nil, fmt.Errorf("%w; the last try, as user %q: %w", waitErr, user, err)
		}
		delay = min(delay*3/2, 5*time.Second)
	}
}

// present returns the connection there is.
func (t *shell) present() (*ssh.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	return t.client, nil
}

// keep makes client the connection.
func (t *shell) keep(client *ssh.Client) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errors.Join(net.ErrClosed, client.Close())
	}
	t.client = client
	t.live.Go(func() { t.watch(client) })
	return nil
}

func (t *shell) connect(ctx context.Context, user string) (*ssh.Client, error) {
	if t.prepare != nil {
		if err := t.prepare(ctx, user); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	c, err := dialer.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	conn, channels, requests, err := ssh.NewClientConn(c, t.address, &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(t.signer)},
		HostKeyCallback:   t.keys.check,
		HostKeyAlgorithms: t.keys.algorithms(),
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(conn, channels, requests), nil
}

// watch ends a connection that doesn't answer any more, and forgets it when it has ended.
func (t *shell) watch(client *ssh.Client) {
	defer t.drop(client)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Why it ended is told to whoever uses it.
		_ = client.Wait()
	}()
	ticker := time.NewTicker(keepalive)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			// A refusal is an answer, and an error is the end, which is seen anyway.
			_, _, _ = client.SendRequest("keepalive@openssh.com", true, nil)
		}()
		select {
		case <-answered:
		case <-time.After(keepalive):
			_ = client.Close()
			<-answered
		}
	}
}

// drop forgets a connection that is of no more use.
func (t *shell) drop(client *ssh.Client) {
	t.mu.Lock()
	if t.client == client {
		t.client = nil
	}
	t.mu.Unlock()
	// It is ended already, or can't be used: an error says no more.
	_ = client.Close()
}

func (t *shell) lost() {
	t.mu.Lock()
	client := t.client
	t.mu.Unlock()
	if client != nil {
		t.drop(client)
	}
}

func (t *shell) dial(ctx context.Context, address string) (net.Conn, error) {
	client, err := t.current(ctx)
	if err != nil {
		return nil, err
	}
	c, err := client.DialContext(ctx, "tcp", address)
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) && refused.Reason == ssh.Prohibited {
		return nil, errNoForward
	}
	return c, err
}

// close removes what jobs have left, over the connection there is: there is nothing to mend
// on a machine that can't be reached.
func (t *shell) close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	client := t.client
	t.mu.Unlock()
	if client != nil {
		_ = t.control(ctx, client, "close")
		t.drop(client)
	}
	t.live.Wait()
	return nil
}
