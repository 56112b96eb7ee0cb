package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// Server is an open sandbox. Safe for concurrent use; close it with [Server.Close].
type Server struct {
	cfg  Config
	lock *os.File

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	operations map[string]map[string]operation

	// These belong to IAM and KMS: see state.go.
	findProfile func(account, nameOrARN string) (profile, bool)
	policyOf    func(principal string) (documents []string, known bool)
	findKey     func(account, region, idOrAlias string) (arn string, ok bool)

	seeding singleflight.Group

	mu sync.Mutex
	*state
	closed   bool
	moving   map[string]bool // ids of what is in a pending state
	workers  map[string]*worker
	machines map[string]*running
	sources  map[string]func(context.Context) (string, error) // of seeds' bytes
	policies map[string]string                                // by access key, set by tests
	faults   faultState
	fresh    map[string]int // lookups left during which a new id isn't found
	regions  map[string]bool
	imds     map[string]*metadataService
	calls    []Call
	invoked  map[string]context.CancelFunc // ends a command on an instance
	meeting  map[string]bool               // instances whose agents are being asked
	working  map[string]int                // how many commands their agents run
}

// operation does what one action of a service asks for.
type operation struct {
	run func(*call) (answer, error)
	// slow operations run without Server.mu.
	slow bool
	// access lists the permissions that the call needs. Nil: those of EC2 by its parameters,
	// of other services the action on "*".
	access func(*call) []access
}

// Open opens the sandbox of a folder. Machines that a dead sandbox left are ended, if
// Machines can ([Reaper]), and their instances are stopped. ctx bounds opening only.
func Open(ctx context.Context, c Config) (*Server, error) {
	c = c.withDefaults()
	dir, err := filepath.Abs(c.Dir)
	if err != nil || c.Dir == "" {
		return nil, fmt.Errorf("open sandbox: its folder %q can't be used: %w", c.Dir, errors.Join(err, os.ErrInvalid))
	}
	c.Dir = dir
	if err := makeDirs(dir); err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open sandbox: %w", err)
	}
	st, err := openState(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sandbox: %w", err), lock.Close())
	}
	s := newServer(c, lock, st)
	if err := s.recover(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open sandbox: %w", err), s.Close())
	}
	return s, nil
}

func newServer(c Config, lock *os.File, st *state) *Server {
	s := &Server{
		cfg: c, lock: lock, state: st,
		moving:   map[string]bool{},
		workers:  map[string]*worker{},
		machines: map[string]*running{},
		sources:  map[string]func(context.Context) (string, error){},
		policies: map[string]string{},
		fresh:    map[string]int{},
		regions:  map[string]bool{},
		imds:     map[string]*metadataService{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.operations = map[string]map[string]operation{"ec2": ec2Operations()}
	s.addServices()
	return s
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("the folder %s belongs to a running sandbox (%w): stop it, or take another folder", dir, err)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close shuts every machine down, sets its instance to stopped, and closes the state. Calls
// that come later fail. Calling it again does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	err := s.endMachines()
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.store.commit(context.Background()), s.store.db.Close(), s.lock.Close())
}

// background starts work that Close ends by its ctx and waits for. It does nothing once the
// server is closed. The caller may hold the lock.
func (s *Server) background(work func(ctx context.Context)) {
	if s.ctx.Err() != nil {
		return
	}
	s.wg.Go(func() { work(s.ctx) })
}

// update runs fn with the lock held, after what is due, and writes what it changed.
func (s *Server) update(fn func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(s.now())
	return errors.Join(fn(), s.store.commit(s.ctx))
}

// record is update for work that no caller waits for: what can't be written is logged.
func (s *Server) record(fn func()) {
	if err := s.update(func() error { fn(); return nil }); err != nil {
		s.cfg.Log.Error("sandbox: state", "error", err)
	}
}

// Lookup implements [wire.Credentials].
func (s *Server) Lookup(accessKey string) (secret, account string, ok bool) {
	if account, ok := wellKnown(accessKey); ok {
		return DefaultKey, account, true
	}
	c, ok := s.session(accessKey)
	return c.Secret, c.Account, ok
}

// Session implements [wire.Sessions].
func (s *Server) Session(accessKey string) (token string, expires time.Time, ok bool) {
	c, ok := s.session(accessKey)
	return c.Token, c.Expires, ok
}

func (s *Server) session(accessKey string) (credential, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.credentials.get(accessKey)
	if c == nil {
		return credential{}, false
	}
	return *c, true
}

// Handler serves the AWS services, and below /_gild/ what LIMITS.md lists for tests.
func (s *Server) Handler() http.Handler {
	aws := wire.NewHandler(s, s, s.cfg.Log)
	mux := http.NewServeMux()
	mux.Handle("/_gild/", s.control())
	mux.Handle("/", losing(aws))
	return mux
}

// Handle implements [wire.Handler].
func (s *Server) Handle(ctx context.Context, r *wire.Request) (map[string]any, error) {
	out, err := s.handle(ctx, r)
	var known *wire.Error
	if err != nil && !errors.As(err, &known) {
		s.cfg.Log.Error("sandbox: internal error", "service", r.Service, "action", r.Action, "error", err)
	}
	return out, err
}

func (s *Server) handle(ctx context.Context, r *wire.Request) (out answer, err error) {
	op, ok := s.operations[r.Service][r.Action]
	if !ok {
		return nil, fail("InvalidAction", "The action %s is not valid for this web service.", r.Action)
	}
	c := &call{s: s, ctx: ctx, r: r, p: r.Params, account: r.Account, region: r.Region, visible: map[string]bool{}}
	defer func() { s.finishCall(c, err) }()
	if err := s.beginCall(c); err != nil {
		return nil, err
	}
	if op.slow {
		if err := s.update(func() error { return c.authorize(op) }); err != nil {
			return nil, err
		}
		return op.run(c)
	}
	err = s.update(func() error {
		if err := c.authorize(op); err != nil {
			return err
		}
		out, err = op.run(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// beginCall counts the call, and does what faults ask for before it.
func (s *Server) beginCall(c *call) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fail("ServiceUnavailable", "The sandbox is shutting down.")
	}
	c.now = s.now()
	c.faults = s.faults.pick(c)
	s.mu.Unlock()
	if err := validRegion(c.region); err != nil {
		return err
	}
	return c.suffer()
}
