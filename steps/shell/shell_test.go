package shell_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/shell"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	return steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
}

func config(t *testing.T, c map[string]any) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRuns(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config map[string]any
		want   string
	}{
		"inline":       {map[string]any{"run": "echo one\necho two"}, "one\ntwo"},
		"value in env": {map[string]any{"run": `printf %s "$VALUE"`}, `"; touch /pwn #`},
		"arguments":    {map[string]any{"run": `for a; do echo "[$a]"; done`, "args": []string{"a b", "$HOME", "-e"}}, "[a b]\n[$HOME]\n[-e]"},
		"interpreter":  {map[string]any{"run": `print "$0 @ARGV"`, "interpreter": []string{"perl", "-l"}, "args": []string{"x"}}, "/tmp/gild/script x"},
		"shebang":      {map[string]any{"run": "./hello.pl"}, "hello from perl"},
		"env shebang":  {map[string]any{"run": "#!/usr/bin/env -S bash -eu\necho ${BASH_VERSION:+bash}"}, "bash"},
		"workdir":      {map[string]any{"run": "pwd", "workdir": "/usr/share"}, "/usr/share"},
		"user":         {map[string]any{"run": "id -un; id -gn; echo $HOME $USER; cd /", "user": "games"}, "games\ngames\n/usr/games games"},
		"no input":     {map[string]any{"run": "cat; echo end"}, "end"},
		"stderr apart": {map[string]any{"run": "echo no >&2; echo yes"}, "yes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			target.Env["VALUE"] = `"; touch /pwn #`
			file := filepath.Join(t.TempDir(), "hello.pl")
			if err := os.WriteFile(file, []byte("#!/usr/bin/perl\nprint \"hello from perl\\n\";"), 0o644); err != nil {
				t.Fatal(err)
			}
			target.Inputs["./hello.pl"] = steptest.Folder(file)
			got, err := target.Run(t.Context(), shell.Step, config(t, tc.config))
			if err != nil {
				t.Fatalf("%v\n%s", err, target.Log)
			}
			if d := cmp.Diff(step.Outputs{"stdout": tc.want}, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if left := target.Sh(t, "ls -d /tmp/gild /pwn 2>/dev/null || true"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

// TestNetwork looks which network devices a script sees.
func TestNetwork(t *testing.T) {
	t.Parallel()
	const devices = `sed -e 1,2d -e 's/:.*//' -e 's/ //g' /proc/net/dev`
	for _, network := range []bool{false, true} {
		target := newTarget(t)
		got, err := target.Run(t.Context(), shell.Step, config(t, map[string]any{"run": devices, "network": network}))
		if err != nil {
			t.Fatal(err)
		}
		if alone := got["stdout"] == "lo"; alone == network {
			t.Errorf("with network: %v a script sees the devices %q", network, got["stdout"])
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config map[string]any
		want   []string
	}{
		"first failure":  {map[string]any{"run": "false\ntouch /after"}, []string{"/bin/sh: exit status 1"}},
		"unset variable": {map[string]any{"run": "echo $NOT_SET\ntouch /after"}, []string{"/bin/sh: exit status 2"}},
		"status":         {map[string]any{"run": "exit 42"}, []string{"exit status 42"}},
		"as a user":      {map[string]any{"run": "exit 42", "user": "games"}, []string{"/bin/sh: exit status 42"}},
		"no network": {map[string]any{"run": "perl -MSocket -e 'exit 0 if gethostbyname(q(nowhere.invalid)); print STDERR q(Temporary failure in name resolution); exit 6'"},
			[]string{"exit status 6; the step has no network, set network: true"}},
		"no such user":        {map[string]any{"run": "true", "user": "nemo"}, []string{`user "nemo" doesn't exist on the machine`}},
		"no such interpreter": {map[string]any{"run": "true", "interpreter": []string{"/opt/none"}}, []string{"/opt/none"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			_, err := target.Run(t.Context(), shell.Step, config(t, tc.config))
			steptest.WantError(t, err, tc.want...)
			if left := target.Sh(t, "ls -d /tmp/gild /after 2>/dev/null || true"); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

func TestSkipsWhatExists(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	_, err := target.Run(t.Context(), shell.Step, `{"run": "exit 1", "creates": "/etc/passwd"}`)
	var skipped *step.Skipped
	if !errors.As(err, &skipped) || skipped.Reason != "/etc/passwd exists" {
		t.Errorf("got %v, want skipped because /etc/passwd exists", err)
	}
	if _, err := target.Run(t.Context(), shell.Step, `{"run": "touch /made", "creates": "/made"}`); err != nil {
		t.Error(err)
	}
}

func TestStdoutIsBounded(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	got, err := target.Run(t.Context(), shell.Step, `{"run": "head -c 200000 /dev/zero | tr '\\0' x; echo; echo end"}`)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := got["stdout"].(string)
	if !ok || len(text) > 64<<10 || !strings.HasSuffix(text, "x\nend") {
		t.Errorf("stdout is %d bytes and ends in %q", len(text), text[max(0, len(text)-10):])
	}
}

func TestCancelRemovesTheScript(t *testing.T) {
	t.Parallel()
	target := newTarget(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := target.Run(ctx, shell.Step, `{"run": "sleep 60 & sleep 60"}`)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	var left bytes.Buffer
	if err := target.Machine.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "ls -d /tmp/gild || true"}, Stdout: &left}); err != nil || left.Len() > 0 {
		t.Errorf("left behind: %q, %v", left.String(), err)
	}
}
