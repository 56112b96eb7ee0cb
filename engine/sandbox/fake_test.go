package sandbox_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

// fakeMachines makes machines that do nothing but hold their disks: what a test wants in
// them it writes itself.
type fakeMachines struct {
	mu      sync.Mutex
	started []*fakeMachine
	fail    error // of the next start
	reaped  []string
}

func (f *fakeMachines) Start(_ context.Context, spec sandbox.MachineSpec) (sandbox.Machine, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		err := f.fail
		f.fail = nil
		return nil, err
	}
	entries, err := os.ReadDir(spec.Dir)
	if err != nil || len(entries) > 0 {
		return nil, errors.Join(errors.New("the machine's folder isn't empty"), err)
	}
	m := &fakeMachine{spec: spec, ready: make(chan struct{}), done: make(chan struct{}), ports: spec.Ports}
	close(m.ready)
	f.started = append(f.started, m)
	return m, os.WriteFile(filepath.Join(spec.Dir, "pid"), nil, 0o600)
}

func (f *fakeMachines) Reap(_ context.Context, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reaped = append(f.reaped, ids...)
	return nil
}

// of returns the machines that were started for an instance, in order.
func (f *fakeMachines) of(id *string) (out []*fakeMachine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.started {
		if m.spec.InstanceID == *id {
			out = append(out, m)
		}
	}
	return out
}

// fakeMachine is one of them.
type fakeMachine struct {
	spec        sandbox.MachineSpec
	ready, done chan struct{}

	mu     sync.Mutex
	ended  bool
	ports  []int
	events []string
}

func (m *fakeMachine) note(event string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, event)
}

func (m *fakeMachine) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events)
}

func (m *fakeMachine) end(event string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.ended = true
		m.events = append(m.events, event)
		close(m.done)
	}
}

// write puts a text on a disk, as the system in the machine would.
func (m *fakeMachine) write(disk int, at int64, text string) error {
	f, err := os.OpenFile(m.spec.Disks[disk].Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), at)
	return errors.Join(err, f.Close())
}

// read gets the bytes of a file at a place.
func read(path string, at int64, n int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(io.NewSectionReader(f, at, int64(n)), b)
	return string(b), errors.Join(err, f.Close())
}

func (m *fakeMachine) Ready() <-chan struct{}               { return m.ready }
func (m *fakeMachine) Done() <-chan struct{}                { return m.done }
func (m *fakeMachine) Exec(context.Context, step.Cmd) error { return errors.New("a fake runs nothing") }
func (m *fakeMachine) Console() string                      { return "fake console" }
func (m *fakeMachine) Reboot(context.Context) error         { m.note("reboot"); return nil }
func (m *fakeMachine) Stop(context.Context) error           { m.end("stop"); return nil }
func (m *fakeMachine) Kill() error                          { m.end("kill"); return nil }
func (m *fakeMachine) powerOff()                            { m.end("power off") }

func (m *fakeMachine) SetPorts(ports []int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports = ports
	return nil
}

func (m *fakeMachine) Pause(context.Context) (func() error, error) {
	m.note("pause")
	return func() error { m.note("resume"); return nil }, nil
}
