package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/steps/steptest"
)

// Machine is a machine in memory. It has files, and records commands, which do nothing but
// what an [Answer] says. It is safe for concurrent use.
type Machine struct {
	mu       sync.Mutex
	facts    sdk.Facts
	answers  []Answer
	commands []Command
	files    map[string]File
}

// Answer is what a machine in memory does for a command.
type Answer struct {
	// Command is what the command's arguments begin with; none stands for every command.
	Command        []string
	Stdout, Stderr string
	// Status is the exit status; other than 0 it is an error of Exec.
	Status int
	// Err is an error of Exec instead: the command couldn't be run.
	Err error
}

// Command is a command that was run.
type Command struct {
	Argv    []string
	Env     map[string]string
	Dir     string
	Stdin   string
	Network bool
}

// File is a file of a machine in memory.
type File struct {
	sdk.PutFile
	Content string
}

// NewMachine returns a Debian 12 without files. Of the answers that fit a command, the last
// one counts; a command that none fits is an error, so that a step can't run one that the
// test doesn't know of.
func NewMachine(answers ...Answer) *Machine {
	return &Machine{
		facts:   sdk.Facts{OS: "debian", Version: "12", Arch: "amd64", PackageManager: "apt"},
		answers: slices.Clone(answers), files: map[string]File{},
	}
}

// SetFacts makes it another kind of machine.
func (m *Machine) SetFacts(f sdk.Facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts = f
}

// SetFile puts a file there before the step runs, mode 0644.
func (m *Machine) SetFile(name, content string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path.Clean(name)] = File{PutFile: sdk.PutFile{Path: name, Mode: 0o644}, Content: content}
}

// Commands returns the commands that were run, in order.
func (m *Machine) Commands() []Command {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// File returns a file, and whether there is one.
func (m *Machine) File(name string) (File, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.files[path.Clean(name)]
	return f, ok
}

// Files returns the paths of all files, sorted.
func (m *Machine) Files() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.files))
}

// Exec implements sdk.MachineHandle. It reads the command's input to the end.
func (m *Machine) Exec(ctx context.Context, cmd sdk.Cmd) error {
	if len(cmd.Argv) == 0 {
		return errors.New("run a command: it has no program")
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run %s: %w", cmd.Argv[0], context.Cause(ctx))
	}
	c := Command{Argv: slices.Clone(cmd.Argv), Env: maps.Clone(cmd.Env), Dir: cmd.Dir, Network: cmd.Network}
	if cmd.Stdin != nil {
		text, err := io.ReadAll(cmd.Stdin)
		if err != nil {
			return fmt.Errorf("run %s: read its input: %w", cmd.Argv[0], err)
		}
		c.Stdin = string(text)
	}
	a, ok := m.record(c)
	switch {
	case !ok:
		return &sdk.Permanent{Err: fmt.Errorf("the machine of the test has no answer for the command %q; give NewMachine one", cmd.Argv)}
	case a.Err != nil:
		return fmt.Errorf("run %s: %w", cmd.Argv[0], a.Err)
	}
	if err := errors.Join(write(cmd.Stdout, a.Stdout), write(cmd.Stderr, a.Stderr)); err != nil {
		return fmt.Errorf("run %s: copy its output: %w", cmd.Argv[0], err)
	}
	if a.Status != 0 {
		return &sdk.ExitError{Argv: c.Argv, Status: a.Status}
	}
	return nil
}

func (m *Machine) record(c Command) (Answer, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commands = append(m.commands, c)
	for _, a := range slices.Backward(m.answers) {
		if n := len(a.Command); n <= len(c.Argv) && slices.Equal(a.Command, c.Argv[:n]) {
			return a, true
		}
	}
	return Answer{}, false
}

func write(w io.Writer, text string) error {
	if w == nil || text == "" {
		return nil
	}
	_, err := io.WriteString(w, text)
	return err
}

// Put implements sdk.MachineHandle. Folders are there as soon as something is in them.
func (m *Machine) Put(ctx context.Context, file sdk.PutFile, content io.Reader) error {
	if !path.IsAbs(file.Path) {
		return fmt.Errorf("put %q: path %q is not absolute", file.Path, file.Path)
	}
	text, err := io.ReadAll(content)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("put %q: %w", file.Path, err)
	}
	if file.Mode == 0 {
		file.Mode = 0o644
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[path.Clean(file.Path)] = File{PutFile: file, Content: string(text)}
	return nil
}

// Get implements sdk.MachineHandle.
func (m *Machine) Get(ctx context.Context, name string, w io.Writer) error {
	f, ok := m.File(name)
	err := context.Cause(ctx)
	if err == nil && !ok {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err == nil {
		_, err = io.Copy(w, strings.NewReader(f.Content))
	}
	if err != nil {
		return fmt.Errorf("get %q: %w", name, err)
	}
	return nil
}

// Facts implements sdk.MachineHandle.
func (m *Machine) Facts(context.Context) (sdk.Facts, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts, nil
}

// Local returns a real Debian system with the packages named, in namespaces of this host, of
// which the test can change everything. It is gone when the test ends. The system is made
// once per host, which takes a minute and the network; see [Main].
func Local(tb testing.TB, packages ...string) sdk.MachineHandle {
	tb.Helper()
	return steptest.New(tb, steptest.Tree(tb, packages...))
}
