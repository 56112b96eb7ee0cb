package packages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/internal/capture"
)

// apt runs apt on the target's machine.
type apt struct {
	target     *step.Target
	recommends bool
}

// maxOutput is how much of a command's output is searched for the reason of a failure.
const maxOutput = 256 << 10

// policy is where invoke-rc.d asks whether it may start a service; 101 means no.
const policy = "/usr/sbin/policy-rc.d"

// forbidServices keeps maintainer scripts from starting services until allow is called.
func (a *apt) forbidServices(ctx context.Context) (allow func(context.Context) error, err error) {
	m := a.target.Machine
	var old bytes.Buffer
	switch err := m.Get(ctx, policy, &old); {
	case err == nil:
		allow = func(ctx context.Context) error {
			return m.Put(ctx, step.PutFile{Path: policy, Mode: 0o755, ModTime: a.target.Clock}, &old)
		}
	case errors.Is(err, fs.ErrNotExist):
		allow = func(ctx context.Context) error {
			return m.Exec(ctx, step.Cmd{Argv: []string{"rm", "-f", "--", policy}})
		}
	default:
		return nil, err
	}
	deny := strings.NewReader("#!/bin/sh\nexit 101\n")
	if err := m.Put(ctx, step.PutFile{Path: policy, Mode: 0o755, ModTime: a.target.Clock}, deny); err != nil {
		return nil, err
	}
	return allow, nil
}

// needLists fetches package lists when the machine has none.
func (a *apt) needLists(ctx context.Context) error {
	const find = `set -- /var/lib/apt/lists/*_Packages*; test -e "$1"`
	err := a.target.Machine.Exec(ctx, step.Cmd{Argv: []string{"/bin/sh", "-c", find}})
	var none *step.ExitError
	if !errors.As(err, &none) {
		return err
	}
	return a.get(ctx, true, "update")
}

// twoPhases downloads with the network, then does the work without it.
func (a *apt) twoPhases(ctx context.Context, args ...string) error {
	if err := a.get(ctx, true, append([]string{"--download-only"}, args...)...); err != nil {
		return err
	}
	return a.get(ctx, false, append([]string{"--no-download"}, args...)...)
}

// remove leaves out what the machine's dpkg has never heard of: apt takes that for a typing
// mistake, here it is work already done.
func (a *apt) remove(ctx context.Context, verb string, names []string) error {
	var known bytes.Buffer
	argv := append([]string{"dpkg-query", "--show", "--showformat=${Package}\n", "--"}, names...)
	err := a.target.Machine.Exec(ctx, step.Cmd{Argv: argv, Stdout: &known})
	var unknown *step.ExitError
	if err != nil && !errors.As(err, &unknown) {
		return fmt.Errorf("look for %s: %w", strings.Join(names, ", "), err)
	}
	found := strings.Fields(known.String())
	if len(found) == 0 {
		return nil
	}
	if err := a.get(ctx, false, append([]string{verb, "--"}, found...)...); err != nil {
		return fmt.Errorf("%s %s: %w", verb, strings.Join(found, ", "), err)
	}
	return nil
}

// get runs apt-get so that it never asks and never takes a name for a pattern.
func (a *apt) get(ctx context.Context, network bool, args ...string) error {
	recommends := "--no-install-recommends"
	if a.recommends {
		recommends = "--install-recommends"
	}
	argv := []string{
		"apt-get", "--yes", "--quiet", recommends,
		"--option=APT::Cmd::Pattern-Only=true",
		"--option=Acquire::Retries=3",
		"--option=Dpkg::Use-Pty=false",
		"--option=Dpkg::Options::=--force-confold",
		"--option=Dpkg::Options::=--force-unsafe-io",
	}
	return a.exec(ctx, step.Cmd{Argv: append(argv, args...), Network: network})
}

// exec runs a command of apt's and adds to its error what apt gave as the reason.
func (a *apt) exec(ctx context.Context, cmd step.Cmd) error {
	out := capture.New(a.target.Log, maxOutput)
	cmd.Env, cmd.Stdout, cmd.Stderr = a.environment(), out.Stdout(), out.Stderr()
	err := a.target.Machine.Exec(ctx, cmd)
	var failed *step.ExitError
	if !errors.As(err, &failed) {
		return err
	}
	return a.explain(ctx, err, out.Text())
}
