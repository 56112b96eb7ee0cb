package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

// Machines makes quick machines. The zero value is ready to use.
type Machines struct{}

var _ sandbox.Machines = Machines{}

// Start implements [sandbox.Machines]. The machine is ready when it returns. The first disk
// must be one of [NewDisk], or a copy.
func (Machines) Start(ctx context.Context, spec sandbox.MachineSpec) (sandbox.Machine, error) {
	m, err := start(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("start a quick machine for %s: %w", spec.InstanceID, err)
	}
	return m, nil
}

// machine is a running machine.
type machine struct {
	disk, tree, work string
	metadata         *metadata
	console          tail
	ready, done      chan struct{}

	// turn is held for writing by who changes whether the machine runs, and while its disk is
	// written; commands hold it for reading as long as they take to start.
	turn  sync.RWMutex
	boot  *boot         // nil: off
	still chan struct{} // closed when the machine goes on, or off; nil: it isn't held still
}

var (
	_ sandbox.Machine = (*machine)(nil)
	_ sandbox.Pauser  = (*machine)(nil)
)

func start(ctx context.Context, spec sandbox.MachineSpec) (*machine, error) {
	if len(spec.Disks) == 0 {
		return nil, errors.New("it has no disk")
	}
	m := &machine{
		disk: spec.Disks[0].Path, tree: filepath.Join(spec.Dir, "tree"), work: filepath.Join(spec.Dir, "work"),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	if err := errors.Join(os.Mkdir(m.tree, 0o755), os.Mkdir(m.work, 0o755)); err != nil {
		return nil, err
	}
	if err := unpackDisk(m.disk, m.tree); err != nil {
		return nil, err
	}
	if spec.Metadata != nil {
		m.metadata = &metadata{server: &http.Server{Handler: spec.Metadata}}
	}
	if err := m.powerOn(ctx); err != nil {
		return nil, err
	}
	close(m.ready)
	return m, nil
}

// powerOn boots the machine. The caller holds turn, or is alone.
func (m *machine) powerOn(ctx context.Context) error {
	b, err := newBoot(ctx, m.tree, m.work, &m.console)
	if err != nil {
		return err
	}
	if m.metadata != nil {
		if err := m.metadata.listen(b.pid()); err != nil {
			return errors.Join(fmt.Errorf("serve its metadata: %w", err), b.end())
		}
	}
	m.boot = b
	go m.watch(b)
	return nil
}

// watch turns the machine off when its system has ended by itself.
func (m *machine) watch(b *boot) {
	<-b.ended
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.boot == b {
		// Nobody waits for it; a disk that can't be written is seen at the next start.
		_ = m.powerOff(true)
	}
}

// powerOff ends the machine. The caller holds turn.
func (m *machine) powerOff(write bool) error {
	err := m.shutDown(write)
	if m.metadata != nil {
		err = errors.Join(err, m.metadata.server.Close())
	}
	close(m.done)
	return err
}

func (m *machine) shutDown(write bool) error {
	err := m.boot.end()
	m.boot = nil
	m.goOn()
	if write {
		err = errors.Join(err, packDisk(m.tree, m.disk))
	}
	return err
}

// goOn lets commands start that wait for it. The caller holds turn.
func (m *machine) goOn() {
	if m.still != nil {
		close(m.still)
		m.still = nil
	}
}

// Ready implements [sandbox.Machine].
func (m *machine) Ready() <-chan struct{} { return m.ready }

// Done implements [sandbox.Machine].
func (m *machine) Done() <-chan struct{} { return m.done }

// Exec implements [sandbox.Machine]. What the command leaves running goes on.
func (m *machine) Exec(ctx context.Context, cmd step.Cmd) error {
	b, err := m.running(ctx)
	if err != nil {
		return fmt.Errorf("run a command: %w", err)
	}
	wait, err := b.exec(ctx, cmd)
	m.turn.RUnlock()
	if err != nil {
		return fmt.Errorf("run %s: %w", cmd.Argv, err)
	}
	return wait()
}

// running waits while the machine is held still. It returns with turn held for reading,
// unless it fails.
func (m *machine) running(ctx context.Context) (*boot, error) {
	for {
		m.turn.RLock()
		b, still := m.boot, m.still
		if b != nil && still == nil {
			return b, nil
		}
		m.turn.RUnlock()
		if b == nil {
			return nil, errors.New("the machine is off")
		}
		select {
		case <-still:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// SetPorts implements [sandbox.Machine]. No port can be reached from outside.
func (m *machine) SetPorts([]int) error { return nil }

// Console implements [sandbox.Machine].
func (m *machine) Console() string { return m.console.String() }

// Reboot implements [sandbox.Machine].
func (m *machine) Reboot(ctx context.Context) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.boot == nil {
		return errors.New("restart a quick machine: it is off")
	}
	err := m.shutDown(true)
	if err == nil {
		err = m.powerOn(ctx)
	}
	if err != nil {
		close(m.done)
		return fmt.Errorf("restart a quick machine: %w", err)
	}
	return nil
}

// Stop implements [sandbox.Machine].
func (m *machine) Stop(context.Context) error { return m.turnOff(true) }

// Kill implements [sandbox.Machine].
func (m *machine) Kill() error { return m.turnOff(false) }

func (m *machine) turnOff(write bool) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.boot == nil {
		return nil
	}
	if err := m.powerOff(write); err != nil {
		return fmt.Errorf("end a quick machine: %w", err)
	}
	return nil
}

// Pause implements [sandbox.Pauser]. A machine that is ended meanwhile doesn't go on.
func (m *machine) Pause(context.Context) (resume func() error, err error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	b := m.boot
	if b == nil {
		return func() error { return nil }, nil
	}
	if m.still != nil {
		return nil, errors.New("hold a quick machine still: it is already")
	}
	err = b.group.freeze(true)
	if err == nil {
		err = packDisk(m.tree, m.disk)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold a quick machine still: %w", err), b.group.freeze(false))
	}
	m.still = make(chan struct{})
	return func() error { return m.resume(b) }, nil
}

func (m *machine) resume(b *boot) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	if m.boot != b {
		return nil
	}
	m.goOn()
	return b.group.freeze(false)
}

// mostConsole is how much a console keeps, in bytes.
const mostConsole = 64 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-mostConsole):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept)
}
