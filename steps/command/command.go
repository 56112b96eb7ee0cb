package command

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/capture"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/match"
	"github.com/gildhq/gild/steps/internal/poll"
	"github.com/gildhq/gild/steps/internal/script"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "command",
	Version:   "1",
	Summary:   "run a command in the booted image and check its status and output",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("command"),
	Sections:  []step.Section{step.Tests},
	Effect:    step.Image,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	Run Run `json:"run"`
	// Status is the exit status asked for.
	Status int `json:"status"`
	// Stdout and Stderr are compared without the newlines at their ends.
	Stdout match.Text `json:"stdout"`
	Stderr match.Text `json:"stderr"`
	// User runs the command; empty means root.
	User string `json:"user"`
	// Within is how long to try; zero means once.
	Within step.Duration `json:"within"`
}

// Run is what to run: one of the two is set.
type Run struct {
	Argv   []string
	Script string
}

// UnmarshalJSON reads a list as Argv and a string as Script.
func (r *Run) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &r.Script) == nil {
		return nil
	}
	if err := json.Unmarshal(data, &r.Argv); err != nil || len(r.Argv) == 0 {
		return errors.New("run must be a script, or a list of a program and its arguments")
	}
	return nil
}

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	deadline := time.Now().Add(c.Within.Duration)
	failed, err := poll.Until(ctx, deadline, func(ctx context.Context) ([]string, error) {
		return attempt(ctx, t, c)
	})
	if err == nil && len(failed) > 0 {
		err = &step.TestFailed{Checks: failed}
	}
	return struct{}{}, err
}

// maxOutput is far more than a test compares, and little enough to hold.
const maxOutput = 4 << 20

// attempt runs the command once and returns what isn't as asked.
func attempt(ctx context.Context, t *step.Target, c Config) ([]string, error) {
	out := capture.New(t.Log, maxOutput)
	name, err := execute(ctx, t, c, out)
	status := 0
	var exit *step.ExitError
	if errors.As(err, &exit) {
		status = exit.Status
	} else if err != nil {
		return nil, err
	}
	var failed []string
	if status != c.Status {
		failed = append(failed, fmt.Sprintf("%s: exit status is %d, want %d", name, status, c.Status))
	}
	for _, stream := range []struct {
		name string
		want match.Text
		got  string
	}{{"stdout", c.Stdout, out.StdoutText()}, {"stderr", c.Stderr, out.StderrText()}} {
		lines, err := stream.want.Check(name+": "+stream.name, strings.TrimRight(stream.got, "\r\n"))
		if err != nil {
			return nil, err
		}
		failed = append(failed, lines...)
	}
	return failed, nil
}

// execute runs the command and returns the name it goes by in messages.
func execute(ctx context.Context, t *step.Target, c Config, out *capture.Output) (name string, err error) {
	cmd := step.Cmd{Env: t.Env, Stdout: out.Stdout(), Stderr: out.Stderr()}
	if len(c.Run.Argv) == 0 {
		return scriptName(c.Run.Script), script.Run(ctx, t, script.Script{Text: c.Run.Script, User: c.User}, cmd)
	}
	as, err := script.LookUp(ctx, t.Machine, c.User)
	if err != nil {
		return "", err
	}
	cmd.Argv = append(as.Become(), c.Run.Argv...)
	cmd.Env = as.Env(t.Env)
	return strings.Join(c.Run.Argv, " "), t.Machine.Exec(ctx, cmd)
}

// scriptName is a file's name, or the first line of an inline script.
func scriptName(text string) string {
	first, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	if more {
		first += " …"
	}
	return first
}
