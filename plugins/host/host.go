// Package host runs plugins: it is gild's side of the gRPC service StepPlugin.
//
// The content of a plugin goes in, as plugins/store keeps it; out come [step.Step] values
// that behave like built-in ones, and whose functions are calls to a process of the plugin.
// There is one process per content and [Host], whatever the number of its steps. It is
// started by the first call that needs it, serves all calls side by side, and lives until
// [Host.Close], until it breaks the protocol, or until it dies; then the next call starts
// another.
//
// A plugin is not trusted to work. What runs is a private copy that was hashed while it was
// made. It sees no variable of gild's environment but those its manifest names, has its own
// process group, an empty standard input, limits on memory and open files, and no way to
// the machine but plugins/broker. Everything it sends has a bound, every call has an end,
// and what it starts is ended with it: its process group, and every process that still has
// the mark in its environment. One that left the group and cleared its environment is not
// found, and goes on. What a plugin can't be kept from is what its user may do: it runs as
// the user of gild.
//
// The package never installs a plugin and never decides which one to use.
package host

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"
	"time"

	goplugin "github.com/hashicorp/go-plugin"

	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// Config says how a [Host] runs plugins.
type Config struct {
	// Dir is the folder for what the host keeps: descriptions of plugins, and copies of
	// those that run. Many processes may share it.
	Dir string
	// Store is where the contents of plugins are copied from.
	Store *store.Store
	// Version of gild, told to plugins.
	Version string
	// Self is the command that serves the folder of an exec plugin as a StepPlugin; the
	// folder is added as the last argument.
	Self []string
	// Grace is how long a step may go on after it was asked to stop; 0 means 10 s.
	Grace time.Duration
	// StartTimeout is how long a plugin may take until it can be called; 0 means 30 s.
	StartTimeout time.Duration
	// CallTimeout is how long a plugin may take to describe itself, to validate a config or
	// to name parts of a key; 0 means 30 s. A Cleanup gets 10 min, and a Run has no end but
	// its context's.
	CallTimeout time.Duration
	// Log takes what plugins write to their standard output and error, each line after the
	// plugin's name. Nil discards it.
	Log io.Writer
}

// Host runs plugins. It is safe for concurrent use.
type Host struct {
	cfg      Config
	log      *log
	versions map[int]goplugin.PluginSet
	// memoryTick is how often the memory of processes is looked at.
	memoryTick time.Duration

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	busy   sync.WaitGroup // starts and calls under way

	mu        sync.Mutex
	closed    bool
	folder    *runFolder // nil until a process is started
	broker    *broker.Server
	slots     map[string]*slot // by digest
	processes map[*process]struct{}
	described map[string]*pluginv1.DescribeResponse // by digest
	started   int                                   // processes, ever
	withheld  map[string]bool                       // names of variables
}

// slot is the place of the one process of a content.
type slot struct {
	current  *process // takes new calls; nil when there is none
	starting *startup // nil when none is
}

// startup is a process that is being started. Its fields are set when done is closed.
type startup struct {
	done    chan struct{}
	process *process
	err     error
}

var errClosed = errors.New("gild is ending")

// New returns a host. It starts nothing and makes no file yet. Close it.
func New(cfg Config) (*Host, error) {
	if cfg.Dir == "" || cfg.Store == nil {
		return nil, errors.New("run plugins: the host was given no folder or no store")
	}
	cfg.Grace = cmp.Or(cfg.Grace, 10*time.Second)
	cfg.StartTimeout = cmp.Or(cfg.StartTimeout, 30*time.Second)
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, 30*time.Second)
	h := &Host{
		cfg:        cfg,
		log:        &log{w: cfg.Log},
		versions:   map[int]goplugin.PluginSet{pluginv1.Version: {pluginv1.PluginName: service{}}},
		memoryTick: 200 * time.Millisecond,
		slots:      map[string]*slot{},
		processes:  map[*process]struct{}{},
		described:  map[string]*pluginv1.DescribeResponse{},
		withheld:   map[string]bool{},
	}
	h.ctx, h.cancel = context.WithCancelCause(context.Background())
	return h, nil
}

// Close ends every process, those with calls too, and removes what the host made for them.
// Later calls fail. The error says what could not be removed.
func (h *Host) Close() error {
	h.mu.Lock()
	first := !h.closed
	h.closed = true
	processes := h.processes
	h.processes = map[*process]struct{}{}
	h.mu.Unlock()
	h.cancel(errClosed)
	if !first {
		h.busy.Wait()
		return nil
	}
	var ending sync.WaitGroup
	for p := range processes {
		ending.Go(func() { p.stop(errClosed) })
	}
	ending.Wait()
	h.busy.Wait()
	var err error
	if h.broker != nil {
		err = h.broker.Close()
	}
	if h.folder != nil {
		err = errors.Join(err, h.folder.remove())
	}
	return err
}

// acquire returns the process of a content for one call, and starts it if there is none.
// Who gets one must release it.
func (h *Host) acquire(ctx context.Context, c store.Content) (*process, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, errClosed
	}
	s := h.slots[c.Digest]
	if s == nil {
		s = &slot{}
		h.slots[c.Digest] = s
	}
	if p := s.current; p != nil && !p.prog.over() {
		h.enter(p)
		h.mu.Unlock()
		return p, nil
	}
	if s.starting == nil {
		s.starting = &startup{done: make(chan struct{})}
		h.busy.Add(1)
		go h.launch(c, s, s.starting)
	}
	starting := s.starting
	h.mu.Unlock()
	// Another call may wait for the same process, so the end of ctx doesn't end the start.
	select {
	case <-starting.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if starting.err != nil {
		return nil, starting.err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errClosed
	}
	// It may have died since; then the call finds out, and says how.
	h.enter(starting.process)
	return starting.process, nil
}

// enter counts a call. Called with the lock held, before Close is under way.
func (h *Host) enter(p *process) {
	p.calls++
	h.busy.Add(1)
}

func (h *Host) launch(c store.Content, s *slot, starting *startup) {
	defer h.busy.Done()
	p, err := h.start(h.ctx, c)
	h.mu.Lock()
	s.starting = nil
	starting.process, starting.err = p, err
	if err == nil {
		h.started++
		if h.closed {
			defer p.stop(errClosed)
		} else if !p.gone {
			s.current = p
			h.processes[p] = struct{}{}
		}
	}
	h.mu.Unlock()
	close(starting.done)
}

// release ends a call. The last call of a process that takes no new ones ends the process.
func (h *Host) release(p *process) {
	defer h.busy.Done()
	h.mu.Lock()
	p.calls--
	calls, why := p.calls, p.retired
	h.mu.Unlock()
	if calls == 0 && why != nil {
		p.stop(why)
	}
}

// retire keeps new calls away from a process that can't be relied on any more. It is ended
// when its other calls have ended. Called by who has acquired it.
func (h *Host) retire(p *process, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.retired == nil {
		p.retired = why
	}
	h.unslot(p)
}

// forget is called when a process is gone.
func (h *Host) forget(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.gone = true
	h.unslot(p)
	delete(h.processes, p)
}

func (h *Host) unslot(p *process) {
	if s := h.slots[p.content.Digest]; s != nil && s.current == p {
		s.current = nil
	}
}

// place returns the host's folder for running plugins, and makes it the first time.
func (h *Host) place() (*runFolder, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.folder == nil {
		f, err := newRunFolder(h.cfg.Dir)
		if err != nil {
			return nil, err
		}
		h.folder = f
	}
	return h.folder, nil
}

// machines returns the server that running steps call back.
func (h *Host) machines() (*broker.Server, error) {
	f, err := h.place()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broker == nil {
		s, err := broker.Listen(filepath.Join(f.sockets, "broker"))
		if err != nil {
			return nil, err
		}
		h.broker = s
	}
	return h.broker, nil
}
