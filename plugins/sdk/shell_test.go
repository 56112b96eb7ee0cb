package sdk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/sdk/sdktest"
	"github.com/gildhq/gild/steps/shell"
	"github.com/gildhq/gild/steps/steptest"
)

// shellCase is a case of the suite of step shell.
type shellCase struct {
	config map[string]any
	stdout string
	fail   string // the end of the error's text
	is     any    // pointer to a variable of the error's type
}

func shellCases() map[string]shellCase {
	return map[string]shellCase{
		"inline":       {config: map[string]any{"run": "echo one\necho two"}, stdout: "one\ntwo"},
		"value in env": {config: map[string]any{"run": `printf %s "$VALUE"`}, stdout: `"; touch /pwn #`},
		"arguments":    {config: map[string]any{"run": `for a; do echo "[$a]"; done`, "args": []string{"a b", "$HOME", "-e"}}, stdout: "[a b]\n[$HOME]\n[-e]"},
		"interpreter":  {config: map[string]any{"run": `print "$0 @ARGV"`, "interpreter": []string{"perl", "-l"}, "args": []string{"x"}}, stdout: "/tmp/gild/script x"},
		"shebang":      {config: map[string]any{"run": "./hello.pl"}, stdout: "hello from perl"},
		"env shebang":  {config: map[string]any{"run": "#!/usr/bin/env -S bash -eu\necho ${BASH_VERSION:+bash}"}, stdout: "bash"},
		"workdir":      {config: map[string]any{"run": "pwd", "workdir": "/usr/share"}, stdout: "/usr/share"},
		"user":         {config: map[string]any{"run": "id -un; id -gn; echo $HOME $USER; cd /", "user": "games"}, stdout: "games\ngames\n/usr/games games"},
		"no input":     {config: map[string]any{"run": "cat; echo end"}, stdout: "end"},
		"stderr apart": {config: map[string]any{"run": "echo no >&2; echo yes"}, stdout: "yes"},
		"no network":   {config: map[string]any{"run": `sed -e 1,2d -e 's/:.*//' -e 's/ //g' /proc/net/dev`}, stdout: "lo"},
		"bounded":      {config: map[string]any{"run": "head -c 200000 /dev/zero | tr '\\0' x; echo; echo end"}, stdout: strings.Repeat("x", 64<<10-5) + "\nend"},
		"changes":      {config: map[string]any{"run": "mkdir -p /srv/a/b; echo text > /srv/a/b/f; chmod 4711 /srv/a/b/f; chown games:60 /srv/a; ln -s ../x /srv/a/l; rm /etc/motd; rm -r /usr/share/doc; mkdir /usr/share/doc; : > /usr/share/doc/new"}},
		"skips":        {config: map[string]any{"run": "exit 1", "creates": "/etc/passwd"}, fail: "skipped: /etc/passwd exists", is: new(*step.Skipped)},
		"makes":        {config: map[string]any{"run": "touch /made", "creates": "/made"}},

		"first failure":       {config: map[string]any{"run": "echo a > /before; false\ntouch /after"}, fail: "/bin/sh: exit status 1", is: new(*step.ExitError)},
		"unset variable":      {config: map[string]any{"run": "echo $NOT_SET\ntouch /after"}, fail: "/bin/sh: exit status 2", is: new(*step.ExitError)},
		"status":              {config: map[string]any{"run": "exit 42"}, fail: "exit status 42", is: new(*step.ExitError)},
		"as a user":           {config: map[string]any{"run": "exit 42", "user": "games"}, fail: "/bin/sh: exit status 42", is: new(*step.ExitError)},
		"needs network":       {config: map[string]any{"run": "echo Temporary failure in name resolution >&2; exit 6"}, fail: "exit status 6; the step has no network, set network: true", is: new(*step.Permanent)},
		"no such user":        {config: map[string]any{"run": "true", "user": "nemo"}, fail: `user "nemo" doesn't exist on the machine`},
		"no such interpreter": {config: map[string]any{"run": "true", "interpreter": []string{"/opt/none"}}, fail: "start /opt/none: no such file or directory"},
	}
}

// TestShellAsPlugin runs the suite of the step that is built into gild, and the same step
// wrapped as a plugin. Both pass, log the same and leave layers of the same digest.
func TestShellAsPlugin(t *testing.T) {
	t.Parallel()
	tree := steptest.Tree(t)
	wrapped := sdktest.Self(t)["gild/test/shell"]
	for name, tc := range shellCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			builtin := runShell(t, tree, shell.Step, tc)
			plugin := runShell(t, tree, wrapped, tc)
			if d := cmp.Diff(builtin, plugin); d != "" {
				t.Errorf("(-built-in +plugin)\n%s", d)
			}
		})
	}
}

// ran is what is left of a run, to be compared. The lines of the log are sorted, since a
// script's two outputs come in no order.
type ran struct {
	Log   []string
	Layer string
}

func runShell(t *testing.T, tree string, s sdk.Step, tc shellCase) ran {
	t.Helper()
	machine, layer := openLayer(t, tree)
	file := filepath.Join(t.TempDir(), "hello.pl")
	if err := os.WriteFile(file, []byte("#!/usr/bin/perl\nprint \"hello from perl\\n\";"), 0o644); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(tc.config)
	if err != nil {
		t.Fatal(err)
	}
	got := sdktest.Target{
		Machine: machine, Env: map[string]string{"VALUE": `"; touch /pwn #`}, Inputs: map[string]string{"./hello.pl": file},
	}.Run(t, s, string(config))
	if err := machine.Close(); err != nil {
		t.Fatal(err)
	}
	tc.check(t, s, got)
	return ran{Log: slices.Sorted(strings.Lines(got.Log)), Layer: digest(t, layer)}
}

func (tc shellCase) check(t *testing.T, s sdk.Step, got sdktest.Result) {
	t.Helper()
	if tc.fail == "" {
		if d := cmp.Diff(step.Outputs{"stdout": tc.stdout}, got.Outputs); d != "" || got.Err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", s.Name, got.Err, d)
		}
		return
	}
	if got.Err == nil || !strings.HasSuffix(got.Err.Error(), tc.fail) {
		t.Errorf("%s: got the error %v, want %q", s.Name, got.Err, tc.fail)
	}
	if tc.is != nil && !errors.As(got.Err, tc.is) {
		t.Errorf("%s: the error %v isn't a %T", s.Name, got.Err, tc.is)
	}
}

// TestShellCancelled cancels a script: its processes, and the file it is in, are gone.
func TestShellCancelled(t *testing.T) {
	t.Parallel()
	machine, _ := openLayer(t, steptest.Tree(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	target := sdktest.Target{Machine: machine, Log: whenWritten(cancel)}
	got := target.RunContext(ctx, t, sdktest.Self(t)["gild/test/shell"], "run: echo started; sleep 60 & sleep 60")
	if !errors.Is(got.Err, context.Canceled) {
		t.Errorf("got %v, want cancelled", got.Err)
	}
	var left bytes.Buffer
	err := machine.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "ls -d /tmp/gild 2>/dev/null || true"}, Stdout: &left})
	if err != nil || left.Len() > 0 {
		t.Errorf("left behind: %q, %v", left.String(), err)
	}
}

// openLayer returns a machine on the tree and the folder that its changes are in.
func openLayer(t *testing.T, tree string) (*sandbox.Session, string) {
	t.Helper()
	ids, err := sandbox.FindIDs()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(tree), "layer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(context.Background(), ids, dir); err != nil {
			t.Error(err)
		}
	})
	if err := sandbox.MakeDirs(t.Context(), ids, dir, "upper", "work"); err != nil {
		t.Fatal(err)
	}
	upper := filepath.Join(dir, "upper")
	s, err := sandbox.Open(t.Context(), sandbox.Config{
		Lower: []string{tree}, Upper: upper, Work: filepath.Join(dir, "work"), IDs: ids, Clock: sdktest.Clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, upper
}

// digest is that of all that a layer's folder says: names, types, modes, owners, links,
// contents, and which folders hide those below. Times are when the test ran.
func digest(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(sum, "%q %o %d %d %d", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		if n, err := unix.Lgetxattr(path, "user.overlay.opaque", make([]byte, 8)); err == nil && n > 0 {
			fmt.Fprint(sum, " opaque")
		}
		return digestContent(sum, path, info.Mode())
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func digestContent(sum io.Writer, path string, mode fs.FileMode) error {
	var content []byte
	var err error
	switch {
	case mode.IsRegular():
		content, err = os.ReadFile(path)
	case mode&fs.ModeSymlink != 0:
		var link string
		link, err = os.Readlink(path)
		content = []byte(link)
	}
	fmt.Fprintf(sum, " %x\n", sha256.Sum256(content))
	return err
}
