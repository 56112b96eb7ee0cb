package shell

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/capture"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/script"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "shell",
	Version:   "1",
	Summary:   "run a script on the machine",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("shell"),
	Outputs:   map[string]string{"stdout": "string"},
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Run is the script's text or the name of one of the step's inputs.
	Run string `json:"run"`
	// Interpreter runs the script; nil means its "#!" line, or else /bin/sh -eu.
	Interpreter []string `json:"interpreter"`
	Args        []string `json:"args"`
	// Workdir is absolute; empty means "/".
	Workdir string `json:"workdir"`
	// User runs the script; empty means root.
	User    string `json:"user"`
	Network bool   `json:"network"`
	// Creates is a path; when it exists the step is skipped.
	Creates string `json:"creates"`
}

// Outputs are the step's results.
type Outputs struct {
	// Stdout is the end of what the script printed, at most 64 KiB.
	Stdout string `json:"stdout"`
}

const maxStdout = 64 << 10

func run(ctx context.Context, t *step.Target, c Config) (Outputs, error) {
	if c.Creates != "" {
		switch exists, err := exists(ctx, t.Machine, c.Creates); {
		case err != nil:
			return Outputs{}, fmt.Errorf("look for %s: %w", c.Creates, err)
		case exists:
			return Outputs{}, &step.Skipped{Reason: c.Creates + " exists"}
		}
	}
	out := capture.New(t.Log, maxStdout)
	err := script.Run(ctx, t,
		script.Script{Text: c.Run, Interpreter: c.Interpreter, Args: c.Args, User: c.User},
		step.Cmd{Env: t.Env, Dir: c.Workdir, Stdout: out.Stdout(), Stderr: out.Stderr(), Network: c.Network})
	if err != nil {
		return Outputs{}, explain(err, c.Network, out.Text())
	}
	printed := strings.ToValidUTF8(strings.TrimRight(out.StdoutText(), "\r\n"), "\uFFFD")
	return Outputs{Stdout: printed}, nil
}

func exists(ctx context.Context, m step.MachineHandle, path string) (bool, error) {
	err := m.Exec(ctx, step.Cmd{Argv: []string{"test", "-e", path}})
	var no *step.ExitError
	if errors.As(err, &no) {
		return false, nil
	}
	return err == nil, err
}

// noNetwork matches what programs say when there is no way out of the machine.
var noNetwork = regexp.MustCompile(`(?i)temporary failure (in name resolution|resolving)|could not resolve (host|proxy)|` +
	`name or service not known|network is unreachable|unable to resolve host address`)

// explain adds the likely reason of a failure that came from having no network.
func explain(err error, network bool, output string) error {
	var failed *step.ExitError
	if network || !errors.As(err, &failed) || !noNetwork.MatchString(output) {
		return err
	}
	return &step.Permanent{Err: fmt.Errorf("%w; the step has no network, set network: true", err)}
}
