package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// MachineConfig says what [Run] starts and how. Fields that [Config] has too mean the same.
type MachineConfig struct {
	// Disks are written in place; the first is booted from. The guest sees NVMe disks.
	Disks []Disk
	// Network carries the frames of the machine's only network card: one end of a stream
	// socket, each frame after its length in four bytes, big-endian. It stays the caller's.
	Network *os.File
	// MAC is the card's address.
	MAC net.HardwareAddr
	// SMBIOS are values of QEMU's option of that name, such as "type=1,serial=x".
	SMBIOS []string
	// AgentPorts begins the names of the virtio-serial ports that the image's agent, if it
	// has one, speaks on; empty means "gild". See [AgentScript].
	AgentPorts string

	Arch      string
	Firmware  string
	MemoryMiB int
	CPUs      int
	// Dir is an empty folder for what the machine needs besides its disks.
	Dir      string
	Token    string
	Accel    string
	CacheDir string
	Log      io.Writer
}

// Disk is a disk of a [Machine].
type Disk struct {
	// Path of the raw file. QEMU locks it, so no two machines write it.
	Path string
	// Serial is the number that the guest sees: at most 20 letters, digits and '-'.
	Serial string
}

// Machine is a running machine that means its disks. Safe for concurrent use.
type Machine struct {
	qemu    *qemu
	agent   *agent
	console *console
	ready   <-chan struct{}
	done    chan struct{} // closed when the process is gone and all is read

	turn      chan struct{} // held by the one command that runs
	restarted atomic.Bool   // since the last command

	control  sync.Mutex // of the power button
	stopOnce sync.Once
	stopping chan struct{} // closed when the machine is to end
}

// ErrOff is wrapped by the errors of calls that need a machine that runs.
var ErrOff = errors.New("the machine is off")

// Run starts a machine on its disks and returns as soon as QEMU runs it, which says nothing
// about the image. The machine ends by itself when its system switches it off, and restarts
// when that restarts. ctx doesn't limit its life.
//
// What the machine writes is in the disks' files as every other process sees them when it
// has ended, however that was, but is forced to the storage by nobody.
func Run(ctx context.Context, c MachineConfig) (*Machine, error) {
	m, err := run(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("start the machine %s with %s: %w", c.Token, c.Firmware, err)
	}
	return m, nil
}

func run(ctx context.Context, c MachineConfig) (*Machine, error) {
	base := Config{
		Arch: c.Arch, Firmware: c.Firmware, MemoryMiB: c.MemoryMiB, CPUs: c.CPUs,
		Dir: c.Dir, Token: c.Token, Accel: c.Accel, CacheDir: c.CacheDir, Log: c.Log,
	}
	if err := base.fill(); err != nil {
		return nil, err
	}
	hardware, err := c.hardware()
	if err != nil {
		return nil, err
	}
	kind, err := chooseMachine(ctx, base)
	if err != nil {
		return nil, err
	}
	q, err := startQEMU(base, kind, hardware)
	if err != nil {
		return nil, err
	}
	m := &Machine{
		qemu: q, agent: newAgent(q.ports), done: make(chan struct{}),
		turn: make(chan struct{}, 1), stopping: make(chan struct{}),
	}
	m.ready = m.agent.hello
	// A system that says alarming things is its users' concern: they may mend it.
	m.console = newConsole(base.Log, func(string, bool) {})
	go m.console.read(q.serial)
	go m.watch()
	// QEMU answers when it has accepted its arguments and opened the disks.
	if _, err := q.qmp.run("query-status", nil); err != nil {
		q.kill()
		<-m.done
		return nil, q.crash()
	}
	return m, nil
}

// hardware describes disks and network to QEMU.
func (c MachineConfig) hardware() (hardware, error) {
	if len(c.Disks) == 0 || c.Network == nil {
		return hardware{}, errors.New("a machine needs a disk and a network")
	}
	h := hardware{ports: c.AgentPorts, files: []*os.File{c.Network}}
	if h.ports == "" {
		h.ports = defaultPorts
	}
	if !tokenRE.MatchString(h.ports) {
		return h, fmt.Errorf("agent ports %q: only letters, digits, '-', '_' and '.' are allowed", c.AgentPorts)
	}
	for i, d := range c.Disks {
		if len(d.Serial) > 20 || !tokenRE.MatchString(d.Serial) {
			return h, fmt.Errorf("serial number %q of a disk: at most 20 letters, digits and '-' are allowed", d.Serial)
		}
		node, err := blockNode("disk"+strconv.Itoa(i), d.Path)
		if err != nil {
			return h, err
		}
		h.args = append(h.args, "-blockdev", node,
			"-device", fmt.Sprintf("nvme,drive=disk%d,serial=%s,bootindex=%d", i, d.Serial, i+1))
	}
	h.args = append(h.args,
		"-netdev", fmt.Sprintf("socket,id=%s,fd=%d", netdevID, firstFile),
		"-device", fmt.Sprintf("virtio-net-pci,netdev=%s,mac=%s,romfile=", netdevID, c.MAC))
	for _, value := range c.SMBIOS {
		h.args = append(h.args, "-smbios", value)
	}
	return h, nil
}

// blockNode describes a raw file to QEMU, in JSON because that takes any path.
func blockNode(name, path string) (string, error) {
	cache := map[string]bool{"direct": false, "no-flush": true}
	node, err := json.Marshal(map[string]any{
		"node-name": name, "driver": "raw", "discard": "unmap", "cache": cache,
		"file": map[string]any{"driver": "file", "filename": path, "discard": "unmap", "cache": cache},
	})
	return string(node), err
}

// watch follows what happens to the machine until it is off.
func (m *Machine) watch() {
	for {
		select {
		case <-m.qemu.qmp.resets:
			m.restarted.Store(true)
			m.agent.lost()
		case <-m.qemu.done:
			<-m.console.done
			// Closing sockets whose other end is gone loses nothing.
			_ = m.qemu.close()
			close(m.done)
			return
		}
	}
}

// Ready is closed when the image's agent has answered for the first time.
func (m *Machine) Ready() <-chan struct{} { return m.ready }

// Done is closed when the machine is off and its process gone.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Console is like [Guest.Console].
func (m *Machine) Console() string { return m.console.text() }

// Exec is like [Guest.Exec]. It waits for its turn, and for the agent while the system
// starts. A command that a restart of the system or of its agent cuts fails.
func (m *Machine) Exec(ctx context.Context, cmd step.Cmd) error {
	if len(cmd.Argv) == 0 {
		return errors.New("run a command in the machine: no program given")
	}
	status, err := m.exec(ctx, cmd)
	switch {
	case errors.Is(err, errGone):
		err = ErrOff
	case errors.Is(err, errRestarted):
		err = errors.New("the system or its agent was restarted, which ended the command")
	}
	if err != nil {
		return fmt.Errorf("run %q in the machine: %w", cmd.Argv[0], err)
	}
	if status != 0 {
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return nil
}

func (m *Machine) exec(ctx context.Context, cmd step.Cmd) (status int, err error) {
	select {
	case m.turn <- struct{}{}:
	case <-m.done:
		return 0, errGone
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { <-m.turn }()
	select {
	case <-m.agent.present():
	case <-m.done:
		return 0, errGone
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if m.restarted.Swap(false) {
		m.agent.broken = nil
	}
	return m.agent.run(ctx, cmd, m.done)
}

// buttonInterval is how often the power button is pressed: a system that is starting
// doesn't notice at first.
const buttonInterval = 3 * time.Second

// Stop presses the power button until the machine is off, and ends it by force when ctx
// does. A machine that is off already is no error.
func (m *Machine) Stop(ctx context.Context) error {
	m.stop()
	m.control.Lock()
	defer m.control.Unlock()
	again := time.NewTicker(buttonInterval)
	defer again.Stop()
	for {
		if _, err := m.qemu.qmp.run("system_powerdown", nil); err != nil {
			// A monitor that doesn't answer is a machine that ends, or has to be ended.
			return m.Kill()
		}
		select {
		case <-m.done:
			return nil
		case <-ctx.Done():
			return m.Kill()
		case <-again.C:
		}
	}
}

// Pause holds the machine still, and returns when all that it has written is in its disks'
// files. Until resume is called, which it must be, it can be killed but not stopped.
func (m *Machine) Pause(ctx context.Context) (resume func() error, err error) {
	m.control.Lock()
	if _, err := m.qemu.qmp.run("stop", nil); err != nil || ctx.Err() != nil {
		if err == nil {
			err = errors.Join(context.Cause(ctx), m.resume())
		}
		m.control.Unlock()
		return nil, fmt.Errorf("hold the machine still: %w", err)
	}
	return func() error {
		defer m.control.Unlock()
		if _, err := m.qemu.qmp.run("cont", nil); err != nil {
			return fmt.Errorf("let the machine go on: %w", err)
		}
		return nil
	}, nil
}

func (m *Machine) stop() { m.stopOnce.Do(func() { close(m.stopping) }) }

// Kill ends the machine at once, as a power cut would. Calling it again does nothing.
func (m *Machine) Kill() error {
	m.stop()
	m.qemu.kill()
	<-m.done
	return nil
}

// Reboot presses the power button and starts the machine again when its system is down,
// so that a system needs no more than it needs to be stopped. At the end of ctx it is
// restarted by force. It returns when the system starts again.
func (m *Machine) Reboot(ctx context.Context) error {
	m.control.Lock()
	defer m.control.Unlock()
	if err := m.reboot(ctx); err != nil {
		select {
		case <-m.done:
			err = ErrOff
		default:
		}
		return fmt.Errorf("reboot the machine: %w", err)
	}
	return nil
}

func (m *Machine) reboot(ctx context.Context) error {
	monitor := m.qemu.qmp
	select {
	case <-monitor.shutdowns:
	default:
	}
	if err := m.onShutdown("pause"); err != nil {
		return err
	}
	down, err := m.pressForReboot(ctx)
	if err == nil {
		_, err = monitor.run("system_reset", nil)
	}
	if err == nil && down {
		err = m.resume()
	}
	return errors.Join(err, m.onShutdown("poweroff"), m.quitIfDown())
}

// onShutdown says what QEMU does when the system switches the machine off.
func (m *Machine) onShutdown(action string) error {
	_, err := m.qemu.qmp.run("set-action", map[string]string{"shutdown": action})
	return err
}

// pressForReboot reports whether the system has gone down; if not it takes too long.
func (m *Machine) pressForReboot(ctx context.Context) (down bool, err error) {
	again := time.NewTicker(buttonInterval)
	defer again.Stop()
	for {
		if _, err := m.qemu.qmp.run("system_powerdown", nil); err != nil {
			return false, err
		}
		select {
		case <-m.qemu.qmp.shutdowns:
			return true, nil
		case <-ctx.Done():
			return false, nil
		case <-m.stopping:
			return false, errors.New("it is being stopped")
		case <-m.done:
			return false, ErrOff
		case <-again.C:
		}
	}
}

// resumeTries bounds how long a reset may take to be done, at resumePause each.
const (
	resumeTries = 100
	resumePause = 20 * time.Millisecond
)

// resume lets a machine run on that has been reset after its system went down. QEMU
// refuses until the reset, which it does by and by, is done.
func (m *Machine) resume() error {
	var err error
	for range resumeTries {
		if _, err = m.qemu.qmp.run("cont", nil); err == nil {
			return nil
		}
		time.Sleep(resumePause)
	}
	return err
}

// quitIfDown ends a machine whose system went down while that meant a pause.
func (m *Machine) quitIfDown() error {
	raw, err := m.qemu.qmp.run("query-status", nil)
	if err != nil {
		return err
	}
	var status struct{ Status string }
	if err := json.Unmarshal(raw, &status); err != nil {
		return err
	}
	if status.Status == "shutdown" {
		_, err = m.qemu.qmp.run("quit", nil)
	}
	return err
}
