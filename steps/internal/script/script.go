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
	as, err := LookUp(ctx, t.Machine, s.User)
	if err != nil {
		return err
	}
	file := step.PutFile{Path: path.Join(dir, name), Mode: 0o700, Owner: as.UID, ModTime: t.Clock, Parents: true}
	defer func() {
		if undo := remove(ctx, t.Machine); undo != nil {
			err = undone(err, undo)
		}
	}()
	if err := t.Machine.Put(ctx, file, bytes.NewReader(text)); err != nil {
		return fmt.Errorf("put the script on the machine: %w", err)
	}
	cmd.Argv = s.argv(as, text, file.Path)
	cmd.Env = as.Env(cmd.Env)
	err = t.Machine.Exec(ctx, cmd)
	var exit *step.ExitError
	if errors.As(err, &exit) {
		// The status is the script's; how it became the user's is not what failed.
		return &step.ExitError{Argv: cmd.Argv[len(as.Become()):], Status: exit.Status}
	}
	return err
}

// undone is the error of a script that could not be removed: no longer the script's own
// exit status, which callers take for an answer.
func undone(err, undo error) error {
	if err == nil {
		return undo
	}
	return fmt.Errorf("%w (the script had ended with: %v)", undo, err)
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
func (s Script) argv(as Account, text []byte, file string) []string {
	interpreter := s.Interpreter
	if len(interpreter) == 0 {
		interpreter = shebang(text)
	}
	if len(interpreter) == 0 {
		interpreter = defaultInterpreter
	}
	argv := append(as.Become(), interpreter...)
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
	line = strings.Trim(line, " \t")
	end := strings.IndexAny(line, " \t")
	switch {
	case line == "":
		return nil
	case end < 0:
		return []string{line}
	default:
		return []string{line[:end], strings.TrimLeft(line[end:], " \t")}
	}
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
