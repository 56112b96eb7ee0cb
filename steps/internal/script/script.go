// Package script runs a user's script on a machine.
//
// The text is put on the machine as a private file and executed; it is never part of
// another command's text, and no value is put into it.
package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// dir holds the script while it runs; it is on a tmpfs wherever steps run.
const dir = "/tmp/gild"

// defaultInterpreter runs scripts that name none themselves.
var defaultInterpreter = []string{"/bin/sh", "-eu"}

// Script is a script to run. Text is what the config says: the script itself, or the name
// of one of the target's inputs.
type Script struct {
	Text string
	// Interpreter runs the script; nil means the script's own "#!" line, or else /bin/sh -eu.
	Interpreter []string
	Args        []string
	// User runs the script; empty means root.
	User string
}

// Run puts the script on the target's machine and runs it as cmd says, whose Argv is
// filled in. The script is removed again whatever happens.
func Run(ctx context.Context, t *step.Target, s Script, cmd step.Cmd) (err error) {
	text, name, err := s.load(t)
	if err != nil {
		return err
	}
	as, err := s.account(ctx, t.Machine)
	if err != nil {
		return err
	}
	file := step.PutFile{Path: path.Join(dir, name), Mode: 0o700, Owner: as.uid, ModTime: t.Clock, Parents: true}
	defer func() { err = errors.Join(err, remove(ctx, t.Machine)) }()
	if err := t.Machine.Put(ctx, file, bytes.NewReader(text)); err != nil {
		return fmt.Errorf("put the script on the machine: %w", err)
	}
	cmd.Argv = s.argv(as, text, file.Path)
	cmd.Env = merge(as.env(), cmd.Env)
	return t.Machine.Exec(ctx, cmd)
}

// load returns the script and the name it goes by on the machine.
func (s Script) load(t *step.Target) (text []byte, name string, err error) {
	input, isFile := t.Inputs[s.Text]
	if !isFile {
		return []byte(s.Text), "script", nil
	}
	if input.IsDir() {
		return nil, "", &step.Permanent{Err: fmt.Errorf("script %q is a folder", s.Text)}
	}
	r, err := input.Open(".")
	if err != nil {
		return nil, "", fmt.Errorf("open script %q: %w", s.Text, err)
	}
	defer r.Close()
	if text, err = io.ReadAll(r); err != nil {
		return nil, "", fmt.Errorf("read script %q: %w", s.Text, err)
	}
	return text, path.Base(s.Text), nil
}

// argv is the command that runs the script at file.
func (s Script) argv(as account, text []byte, file string) []string {
	interpreter := s.Interpreter
	if len(interpreter) == 0 {
		interpreter = shebang(text)
	}
	if len(interpreter) == 0 {
		interpreter = defaultInterpreter
	}
	argv := append(as.become(), interpreter...)
	argv = append(argv, file)
	return append(argv, s.Args...)
}

// shebang reads a "#!" line as the kernel does: the program, then everything else as one
// argument. The script isn't executed directly because /tmp may be mounted noexec.
func shebang(text []byte) []string {
	line, _, _ := strings.Cut(string(text), "\n")
	line, found := strings.CutPrefix(line, "#!")
	if !found {
		return nil
	}
	program, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	if arg = strings.TrimSpace(arg); arg == "" {
		return strings.Fields(program)
	}
	return []string{program, arg}
}

// account is the user that runs the script; the zero account is root, as Exec runs commands.
type account struct{ name, uid, gid, home string }

// account looks up the user on the machine.
func (s Script) account(ctx context.Context, m step.MachineHandle) (account, error) {
	if s.User == "" {
		return account{}, nil
	}
	var entry bytes.Buffer
	err := m.Exec(ctx, step.Cmd{Argv: []string{"getent", "passwd", s.User}, Stdout: &entry})
	var exit *step.ExitError
	if errors.As(err, &exit) {
		return account{}, &step.Permanent{Err: fmt.Errorf("user %q doesn't exist on the machine", s.User)}
	}
	if err != nil {
		return account{}, fmt.Errorf("look up user %q: %w", s.User, err)
	}
	fields := strings.Split(strings.TrimSpace(entry.String()), ":")
	if len(fields) != 7 {
		return account{}, fmt.Errorf("look up user %q: unexpected entry %q", s.User, entry.String())
	}
	return account{name: fields[0], uid: fields[2], gid: fields[3], home: fields[5]}, nil
}

// env is what a login would set.
func (a account) env() map[string]string {
	if a.name == "" {
		return nil
	}
	return map[string]string{"HOME": a.home, "USER": a.name, "LOGNAME": a.name}
}

// become is the command that runs the rest of its arguments as the user.
func (a account) become() []string {
	if a.name == "" {
		return nil
	}
	return []string{"setpriv", "--reuid=" + a.uid, "--regid=" + a.gid, "--init-groups", "--"}
}

// remove deletes the script even when ctx is cancelled already.
func remove(ctx context.Context, m step.MachineHandle) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := m.Exec(ctx, step.Cmd{Argv: []string{"rm", "-rf", "--", dir}}); err != nil {
		return fmt.Errorf("remove the script from the machine: %w", err)
	}
	return nil
}

func merge(base, over map[string]string) map[string]string {
	env := make(map[string]string, len(base)+len(over))
	maps.Copy(env, base)
	maps.Copy(env, over)
	return env
}
