package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/plan"
)

// The exit codes. They are part of the interface: scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitTests       = 3
	exitPartial     = 4
	exitLeftovers   = 5
	exitInterrupted = 130
)

// exitHelp explains the codes in the help of gild.
const exitHelp = `Exit codes:
  0    ok
  1    build failed
  2    invalid input or usage
  3    tests failed, nothing published
  4    partly published: some region failed
  5    finished, but something could not be cleaned up
  130  interrupted`

// exitError ends gild with a code. A nil err means that everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitWith ends gild with a code after everything has been said.
func exitWith(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// usageError is a mistake on the command line.
type usageError struct {
	// command is what to ask for help, such as "gild build".
	command string
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// invalid marks an error as the fault of what was given.
func invalid(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// exitCode is the code that an error ends gild with.
func exitCode(err error) int {
	var (
		exit    *exitError
		usage   *usageError
		diags   *diag.Failed
		unknown *plan.UnknownNodeError
		stop    *interrupted
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &stop), errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &usage), errors.As(err, &diags), errors.As(err, &unknown),
		errors.Is(err, journal.ErrNoRun), errors.Is(err, catalog.ErrNotFound), errors.Is(err, catalog.ErrInUse):
		return exitUsage
	default:
		return exitFailed
	}
}
