package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/broker"
	"github.com/gildhq/gild/steps/steptest"
)

// claims records what a step claims and settles.
type claims struct {
	mu    sync.Mutex
	lines []string
}

func (c *claims) claim(_ context.Context, r step.Resource) (func(context.Context) error, error) {
	c.add(fmt.Sprintf("claim %s %s %s", r.Kind, r.ID, r.Note))
	return func(context.Context) error {
		c.add("settle " + r.ID)
		return nil
	}, nil
}

func (c *claims) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, line)
}

func (c *claims) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// targetFixture is a step's target behind a broker, as a plugin's program finds it.
type targetFixture struct {
	*steptest.Target
	claims *claims
	env    []string
	dir    string
}

func newTargetFixture(t *testing.T, machine step.MachineHandle, inputs map[string]string) *targetFixture {
	t.Helper()
	f := &targetFixture{Target: steptest.NewTarget(machine), claims: &claims{}, dir: t.TempDir()}
	f.Claim = f.claims.claim
	for name, path := range inputs {
		f.Inputs[name] = steptest.Folder(path)
	}
	server, err := broker.Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	token, end := server.Open(f.Target.Target)
	t.Cleanup(func() {
		end()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	f.env = []string{"PATH=/usr/bin:/bin", "GILD_TARGET=" + server.Address(), "GILD_TARGET_TOKEN=" + token, "SECRET=hush"}
	return f
}

// gild runs `gild target` and returns what it printed and its exit status.
func (f *targetFixture) gild(t *testing.T, stdin string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := f.command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (f *targetFixture) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), gildProgram(t), append([]string{"target"}, args...)...)
	cmd.Dir, cmd.Env = f.dir, f.env
	return cmd
}

// gildProgram is this test as the program gild.
func gildProgram(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("gild")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTarget has a real machine worked on by each command.
func TestTarget(t *testing.T) {
	t.Parallel()
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, []byte("from the project"), 0o640); err != nil {
		t.Fatal(err)
	}
	f := newTargetFixture(t, steptest.New(t, steptest.Tree(t)), map[string]string{"./in": input})
	if err := os.WriteFile(filepath.Join(f.dir, "local"), []byte("put"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		stdin       string
		args        []string
		out, errs   string
		status      int
		description string
	}{
		{description: "facts", args: []string{"facts"}, out: "{\n  \"os\": \"debian\",\n  \"version\": \"12\",\n  \"arch\": \"amd64\",\n  \"package_manager\": \"apt\"\n}\n"},
		{description: "streams and status", stdin: "in", args: []string{"exec", "sh", "-c", "cat; echo bad >&2; exit 7"}, out: "in", errs: "bad\n", status: 7},
		{description: "dashes are the command's", args: []string{"exec", "--", "echo", "--dir", "x"}, out: "--dir x\n"},
		{description: "a signal", args: []string{"exec", "sh", "-c", "kill -9 $$"}, status: 137},
		{description: "environment and folder", args: []string{"exec", "--env", "SECRET", "--env", "A=b=c", "--dir", "/usr", "--", "sh", "-c", "echo $SECRET $A $PWD"}, out: "hush b=c /usr\n"},
		{description: "no network", args: []string{"exec", "--", "sh", "-c", "sed -e 1,2d -e 's/:.*//' -e 's/ //g' /proc/net/dev"}, out: "lo\n"},
		{description: "no such command", args: []string{"exec", "--", "frobnicate"}, errs: "gild: ", status: exitNotRun},
		{description: "bad variable", args: []string{"exec", "--env", "=x", "--", "true"}, errs: "gild: --env is \"=x\", but must be NAME=VALUE or NAME\n", status: exitUsage},
		{description: "put a file", args: []string{"put", "--mode", "4750", "--group", "games", "local", "/opt/put"}},
		{description: "mode and group", args: []string{"exec", "stat", "-c", "%a %U %G", "/opt/put"}, out: "4750 root games\n"},
		{description: "put standard input", stdin: "typed", args: []string{"put", "--parents", "-", "/opt/a/b"}},
		{description: "get to standard output", args: []string{"get", "/opt/a/b", "-"}, out: "typed"},
		{description: "get to a file", args: []string{"get", "/opt/put", "got"}},
		{description: "get what isn't there", args: []string{"get", "/none", "never"}, errs: "gild: ", status: exitFailed},
		{description: "put what isn't there", args: []string{"put", "none", "/none"}, errs: "gild: open none: no such file or directory\n", status: exitFailed},
		{description: "bad mode", args: []string{"put", "--mode", "rwx", "local", "/x"}, errs: "gild: --mode: \"rwx\" is no mode such as 0644\nsee \"gild target put --help\"\n", status: exitUsage},
		{description: "list an input", args: []string{"input", "./in"}, out: "{\n  \"dir\": false,\n  \"files\": [\n    {\n      \"path\": \".\",\n      \"mode\": \"-rw-r-----\",\n      \"size\": 16\n    }\n  ]\n}\n"},
		{description: "print an input", args: []string{"input", "./in", "-"}, out: "from the project"},
		{description: "copy an input", args: []string{"input", "./in", "copy"}},
		{description: "no input", args: []string{"input", "./other"}, errs: "gild: list the input \"./other\": ", status: exitFailed},
		{description: "no guest", args: []string{"console"}, errs: "gild: read the console: ", status: exitFailed},
		{description: "no port", args: []string{"dial", "0"}, errs: "gild: \"0\" is no TCP port from 1 to 65535\nsee \"gild target dial --help\"\n", status: exitUsage},
	} {
		out, errs, status := f.gild(t, tc.stdin, tc.args...)
		if out != tc.out || status != tc.status || !strings.HasPrefix(errs, tc.errs) || tc.errs == "" && errs != "" {
			t.Errorf("%s: %q: printed %q and %q, status %d\nwant %q and %q, status %d", tc.description, tc.args, out, errs, status, tc.out, tc.errs, tc.status)
		}
	}
	for name, want := range map[string]string{"got": "put", "copy": "from the project"} {
		if got, err := os.ReadFile(filepath.Join(f.dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if names := folder(t, f.dir); !cmp.Equal(names, []string{"copy", "got", "local"}) {
		t.Errorf("the folder has %q", names)
	}
}

func folder(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestTargetInputFolder(t *testing.T) {
	t.Parallel()
	src := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(src, "a", "b"), 0o750),
		os.WriteFile(filepath.Join(src, "a", "b", "c"), []byte("deep"), 0o755),
		os.Symlink("../../etc", filepath.Join(src, "a", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f := newTargetFixture(t, nil, map[string]string{"site": src})
	if _, errs, status := f.gild(t, "", "input", "site", "copy"); status != 0 {
		t.Fatal(errs)
	}
	got, err := exec.CommandContext(t.Context(), "find", filepath.Join(f.dir, "copy"), "-printf", `%P %M %l\n`).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{" drwxr-xr-x ", "a drwxr-x--- ", "a/b drwxr-x--- ", "a/b/c -rwxr-xr-x ", "a/link lrwxrwxrwx ../../etc"}
	if d := cmp.Diff(want, sorted(strings.Split(strings.TrimSuffix(string(got), "\n"), "\n"))); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, where := range []string{"copy", "-"} {
		if _, errs, status := f.gild(t, "", "input", "site", where); status != exitFailed {
			t.Errorf("to %s: status %d: %s", where, status, errs)
		}
	}
}

// TestTargetGuest talks to a guest's port, also to one that says nothing until it is told.
func TestTargetGuest(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		var got bytes.Buffer
		if _, err := got.ReadFrom(conn); err == nil {
			fmt.Fprintf(conn, "got %s", &got)
		}
	}()
	f := newTargetFixture(t, &steptest.Guest{Ports: map[int]string{80: l.Addr().String()}}, nil)
	if out, errs, status := f.gild(t, "hello", "dial", "80"); out != "got hello" || status != 0 {
		t.Errorf("dial: %q, %q, %d", out, errs, status)
	}
	if out, errs, status := f.gild(t, "", "dial", "81"); status != exitFailed || !strings.Contains(errs, "refused") {
		t.Errorf("dial a closed port: %q, %q, %d", out, errs, status)
	}
	if out, errs, status := f.gild(t, "", "console"); out != "debian login:" || status != 0 {
		t.Errorf("console: %q, %q, %d", out, errs, status)
	}
}

func TestTargetClaims(t *testing.T) {
	t.Parallel()
	f := newTargetFixture(t, nil, nil)
	claim, errs, status := f.gild(t, "", "claim", "upload", "https://x/1", "the image")
	if status != 0 {
		t.Fatal(errs)
	}
	for range 2 {
		if _, errs, status := f.gild(t, "", "settle", strings.TrimSpace(claim)); status != 0 {
			t.Fatal(errs)
		}
	}
	if d := cmp.Diff([]string{"claim upload https://x/1 the image", "settle https://x/1"}, f.claims.list()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if _, errs, status := f.gild(t, "", "settle", "other"); status != exitFailed || !strings.Contains(errs, `settle the claim "other"`) {
		t.Errorf("settle what isn't claimed: %d, %s", status, errs)
	}
}

// SIGTERM ends the command on the machine too.
func TestTargetExecStops(t *testing.T) {
	t.Parallel()
	f := newTargetFixture(t, steptest.New(t, steptest.Tree(t)), nil)
	cmd := f.command(t, "exec", "--", "sh", "-c", "echo started; exec sleep 4321.5")
	out := &buffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the command", func() bool { return out.String() != "" })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("got %v, want status %d", err, exitInterrupted)
	}
	waitFor(t, "the end of the command on the machine", func() bool {
		out, errs, status := f.gild(t, "", "exec", "--", "sh", "-c", "grep -l 432[1] /proc/[0-9]*/cmdline || true")
		if status != 0 {
			t.Fatal(errs)
		}
		return out == ""
	})
}

func TestTargetWithoutStep(t *testing.T) {
	t.Parallel()
	f := &targetFixture{dir: t.TempDir()}
	_, errs, status := f.gild(t, "", "facts")
	const want = "gild: GILD_TARGET and GILD_TARGET_TOKEN are not set: this works only in a plugin's program while its step runs\n"
	if errs != want || status != exitUsage {
		t.Errorf("got %q, status %d", errs, status)
	}
	f.env = []string{"GILD_TARGET=/no/socket", "GILD_TARGET_TOKEN=x"}
	if _, errs, status := f.gild(t, "", "facts"); status != exitFailed || !strings.Contains(errs, "gild doesn't answer") {
		t.Errorf("got %q, status %d", errs, status)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
