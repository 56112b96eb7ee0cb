package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// memory is a machine with files and canned commands. Other than a real one it takes calls
// side by side. Safe for concurrent use.
type memory struct {
	commands []commandFixture
	arch     string
	// anything makes commands that aren't known succeed, and files that aren't there empty.
	anything bool
	// mark is printed by every command on both streams.
	mark string
	// gate, if set, is called before each use of the machine, and its error is the call's.
	gate func(ctx context.Context) error

	mu    sync.Mutex
	files map[string][]byte
}

func newMemory(files map[string]string, commands []commandFixture) *memory {
	m := &memory{commands: commands, arch: buildArch, files: map[string][]byte{
		"/etc/os-release": []byte("ID=debian\nVERSION_ID=\"12\"\n"),
	}}
	for name, text := range files {
		m.files[path.Clean(name)] = []byte(text)
	}
	return m
}

func (m *memory) pass(ctx context.Context) error {
	if m.gate != nil {
		return m.gate(ctx)
	}
	return ctx.Err()
}

// Exec implements step.MachineHandle.
func (m *memory) Exec(ctx context.Context, cmd step.Cmd) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	if len(cmd.Argv) == 0 {
		return errors.New("the command has no argv")
	}
	if cmd.Stdin != nil {
		if _, err := io.Copy(io.Discard, cmd.Stdin); err != nil {
			return fmt.Errorf("read the command's input: %w", err)
		}
	}
	answer := m.answer(cmd.Argv)
	if err := errors.Join(print(cmd.Stdout, m.mark+answer.Stdout), print(cmd.Stderr, m.mark+answer.Stderr)); err != nil {
		return err
	}
	if answer.Status != 0 {
		return &step.ExitError{Argv: cmd.Argv, Status: answer.Status}
	}
	return nil
}

// answer finds what a command does: the last of the fixture's that it begins with.
func (m *memory) answer(argv []string) commandFixture {
	for _, c := range slices.Backward(m.commands) {
		if len(c.Argv) <= len(argv) && slices.Equal(c.Argv, argv[:len(c.Argv)]) {
			return c
		}
	}
	if m.anything {
		return commandFixture{}
	}
	return commandFixture{Status: 127, Stderr: fmt.Sprintf("the fixture says nothing of the command %q\n", argv)}
}

func print(w io.Writer, text string) error {
	if w == nil || text == "" {
		return nil
	}
	_, err := io.WriteString(w, text)
	return err
}

// Put implements step.MachineHandle.
func (m *memory) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	if !path.IsAbs(file.Path) {
		return fmt.Errorf("the path %q isn't absolute", file.Path)
	}
	var text bytes.Buffer
	if _, err := io.Copy(&text, content); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path.Clean(file.Path)] = text.Bytes()
	return nil
}

// Get implements step.MachineHandle.
func (m *memory) Get(ctx context.Context, name string, w io.Writer) error {
	if err := m.pass(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	text, ok := m.files[path.Clean(name)]
	m.mu.Unlock()
	if !ok && !m.anything {
		return &fs.PathError{Op: "get", Path: name, Err: fs.ErrNotExist}
	}
	_, err := w.Write(text)
	return err
}

// Facts implements step.MachineHandle.
func (m *memory) Facts(ctx context.Context) (step.Facts, error) {
	if err := m.pass(ctx); err != nil {
		return step.Facts{}, err
	}
	return step.Facts{OS: "debian", Version: "12", Arch: m.arch, PackageManager: "apt"}, nil
}

// guest is a machine in memory that was booted.
type guest struct {
	*memory
	ports   map[int]string
	console string
}

// PoweredOn implements step.Guest.
func (g *guest) PoweredOn() time.Time { return clock }

// Console implements step.Guest.
func (g *guest) Console() string { return g.console }

// Dial implements step.Guest: the port sends its text and hangs up.
func (g *guest) Dial(ctx context.Context, port int) (net.Conn, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	text, ok := g.ports[port]
	if !ok {
		return nil, fmt.Errorf("port %d: connection refused", port)
	}
	ours, theirs := net.Pipe()
	// Both end when the step closes its side, at the latest with its call.
	go func() { _, _ = io.Copy(io.Discard, ours) }()
	go func() {
		defer ours.Close() //nolint:errcheck // closing a pipe doesn't fail
		_, _ = io.WriteString(ours, text)
	}()
	return theirs, nil
}
