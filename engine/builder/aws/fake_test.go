package aws

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

// fakeMachines makes machines that only hold files. The files are on the root disk, in a
// form of their own, so that they travel through real volumes, snapshots and images.
type fakeMachines struct {
	mu      sync.Mutex
	running map[string]*fakeMachine
	// broken lists commands that end the machine's instance's connection instead of running.
	console string
	// oldInit machines can't switch themselves off.
	oldInit bool
}

func newFakes() *fakeMachines { return &fakeMachines{running: map[string]*fakeMachine{}} }

// Start implements [sandbox.Machines].
func (f *fakeMachines) Start(_ context.Context, spec sandbox.MachineSpec) (sandbox.Machine, error) {
	m := &fakeMachine{disk: spec.Disks[0].Path, ready: make(chan struct{}), done: make(chan struct{}), text: f.console}
	if err := m.load(); err != nil {
		return nil, err
	}
	close(m.ready)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running[spec.InstanceID] = m
	return m, nil
}

// Reap implements what the sandbox asks of machines of a dead process: a fake has none.
func (f *fakeMachines) Reap(context.Context, []string) error { return nil }

func (f *fakeMachines) of(id string) *fakeMachine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running[id]
}

// fakeMachine is one of them.
type fakeMachine struct {
	disk        string
	text        string
	ready, done chan struct{}
	settled     atomic.Bool // cloud-init was waited for

	mu    sync.Mutex
	ended bool
	// shutDown is set when its services were stopped in order, which writes logs.
	shutDown bool
	files    map[string]string
}

var magic = []byte("FAKEDISK")

func (m *fakeMachine) load() error {
	m.files = map[string]string{}
	f, err := os.Open(m.disk)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(magic)+8)
	if _, err := io.ReadFull(f, head); err != nil || !bytes.HasPrefix(head, magic) {
		return nil // a disk that no fake has written yet
	}
	text := make([]byte, binary.BigEndian.Uint64(head[len(magic):]))
	if _, err := io.ReadFull(f, text); err != nil {
		return err
	}
	return json.Unmarshal(text, &m.files)
}

// put writes a file through to the disk.
func (m *fakeMachine) put(name, text string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return errors.New("the fake machine is off")
	}
	m.files[name] = text
	data, err := json.Marshal(m.files)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(m.disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(binary.BigEndian.AppendUint64(bytes.Clone(magic), uint64(len(data))), data...), 0)
	return errors.Join(err, f.Close())
}

func (m *fakeMachine) get(name string) (string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return "", false, errors.New("the fake machine is off")
	}
	text, ok := m.files[name]
	return text, ok, nil
}

func (m *fakeMachine) end() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.ended {
		m.ended = true
		close(m.done)
	}
	return nil
}

func (m *fakeMachine) stop() error {
	m.mu.Lock()
	m.shutDown = m.shutDown || !m.ended
	m.mu.Unlock()
	return m.end()
}

func (m *fakeMachine) Ready() <-chan struct{}               { return m.ready }
func (m *fakeMachine) Done() <-chan struct{}                { return m.done }
func (m *fakeMachine) Exec(context.Context, step.Cmd) error { return errors.New("a fake runs nothing") }
func (m *fakeMachine) SetPorts([]int) error                 { return nil }
func (m *fakeMachine) Console() string                      { return m.text }
func (m *fakeMachine) Reboot(context.Context) error         { return nil }
func (m *fakeMachine) Stop(context.Context) error           { return m.stop() }
func (m *fakeMachine) Kill() error                          { return m.end() }

// Pause lets the sandbox copy the disk of a running machine.
func (m *fakeMachine) Pause(context.Context) (func() error, error) {
	m.mu.Lock()
	return func() error { m.mu.Unlock(); return nil }, nil
}

// fakeConnection stands in for SSM and SSH: it works on a fake machine's files. The real
// ones are tested in package connect, and together with this builder by cmd/gild/e2e.
type fakeConnection struct {
	fakes *fakeMachines
	id    string
}

// connect is a [connector].
func (f *fakeMachines) connect(ctx context.Context, in *instance, i types.Instance) (connection, error) {
	c := &fakeConnection{f, *i.InstanceId}
	for {
		if m := f.of(c.id); m != nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

func (c *fakeConnection) Exec(ctx context.Context, cmd step.Cmd) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	m := c.fakes.of(c.id)
	if _, _, err := m.get(""); err != nil {
		return err
	}
	text := strings.Join(cmd.Argv, " ")
	if text == "/bin/sh -c "+cloudInit {
		m.settled.Store(true)
		return nil
	}
	if !m.settled.Load() {
		return fmt.Errorf("%q came before cloud-init was done", text)
	}
	switch text {
	case "sync":
		return nil
	case "/bin/sh -c " + freezeScript:
		if c.fakes.oldInit {
			return &step.ExitError{Argv: cmd.Argv, Status: 1}
		}
		return m.end()
	case "id -u":
		_, err := io.WriteString(cmd.Stdout, "0\n")
		return err
	case "sh -c exit 7":
		return &step.ExitError{Argv: cmd.Argv, Status: 7}
	case "sleep infinity":
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-m.done:
			return errors.New("the connection was lost")
		}
	default:
		return fmt.Errorf("a fake can't run %q", text)
	}
}

func (c *fakeConnection) Put(_ context.Context, file step.PutFile, content io.Reader) error {
	text, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	return c.fakes.of(c.id).put(file.Path, string(text))
}

func (c *fakeConnection) Get(_ context.Context, path string, w io.Writer) error {
	text, ok, err := c.fakes.of(c.id).get(path)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("read %s: %w", path, fs.ErrNotExist)
	}
	_, err = io.WriteString(w, text)
	return err
}

func (c *fakeConnection) Facts(context.Context) (step.Facts, error) {
	return step.Facts{OS: "debian", Version: "12", Arch: "amd64", PackageManager: "apt"}, nil
}

func (c *fakeConnection) Dial(context.Context, int) (net.Conn, error) {
	return nil, errors.New("a fake has no ports")
}

func (c *fakeConnection) Reboot(ctx context.Context, reboot func(context.Context) error) error {
	return reboot(ctx)
}

func (c *fakeConnection) Close() error { return nil }
