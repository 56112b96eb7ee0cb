package command_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/command"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"list":          `{"run": ["echo", "a  b", "$HOME"], "stdout": {"equals": "a  b $HOME"}}`,
		"script":        `{"run": "echo one\necho two >&2", "stdout": {"equals": "one"}, "stderr": {"equals": "two"}}`,
		"status":        `{"run": "exit 3", "status": 3}`,
		"matches":       `{"run": ["cat", "/etc/os-release"], "stdout": {"matches": "(?m)^ID=debian$", "contains": ["VERSION_ID", "bookworm"]}}`,
		"environment":   `{"run": "echo $PORT", "stdout": {"equals": "80"}}`,
		"user":          `{"run": "id -un; echo $HOME", "user": "games", "stdout": {"equals": "games\n/usr/games"}}`,
		"user and list": `{"run": ["id", "-un"], "user": "games", "stdout": {"equals": "games"}}`,
		"in the end":    `{"run": "echo x >> /n; test $(wc -l < /n) = 3", "within": "20s"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Env["PORT"] = "80"
			if _, err := target.Run(t.Context(), command.Step, config); err != nil {
				t.Errorf("%v\n%s", err, target.Log)
			}
		})
	}
}

func TestFails(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	_, err := target.Run(t.Context(), command.Step, `{"run": "\necho one; echo two >&2\nexit 4", "status": 1,
		"stdout": {"equals": "1"}, "stderr": {"contains": "x", "matches": "^t$"}, "within": "2s"}`)
	want := []string{
		`echo one; echo two >&2 …: exit status is 4, want 1`,
		`echo one; echo two >&2 …: stdout is "one", want "1"`,
		`echo one; echo two >&2 …: stderr is "two", which doesn't contain "x"`,
		`echo one; echo two >&2 …: stderr is "two", which doesn't match "^t$"`,
	}
	if d := cmp.Diff(want, steptest.FailedChecks(t, err)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if n := strings.Count(target.Log.String(), "two\n"); n < 2 {
		t.Errorf("the log shows %d attempts, want at least 2:\n%s", n, target.Log)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ config, want string }{
		"no such user": {`{"run": ["true"], "user": "nemo"}`, `user "nemo" doesn't exist`},
		"expression":   {`{"run": ["true"], "stdout": {"matches": "("}}`, "missing closing )"},
		"nothing":      {`{"run": []}`, "run must be a script, or a list"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTarget(t).Run(t.Context(), command.Step, tc.config)
			steptest.WantError(t, err, tc.want)
			var failed *step.TestFailed
			if errors.As(err, &failed) {
				t.Errorf("%v counts as a failed test", err)
			}
		})
	}
}
