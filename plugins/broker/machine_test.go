package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/steps/steptest"
)

// open returns a client for a target on a server of its own.
func open(t testing.TB, target *step.Target) (*Server, *Client) {
	t.Helper()
	server, err := Listen(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	token, end := server.Open(target)
	client, err := Dial(server.Address(), token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		end()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, client
}

// TestMachine runs the same cases on a machine and on the same kind of machine through the
// broker: a step can't tell them apart.
func TestMachine(t *testing.T) {
	t.Parallel()
	tree := steptest.Tree(t)
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		testMachine(t, func(t *testing.T) step.MachineHandle { return steptest.New(t, tree) })
	})
	t.Run("broker", func(t *testing.T) {
		t.Parallel()
		testMachine(t, func(t *testing.T) step.MachineHandle {
			_, client := open(t, steptest.NewTarget(steptest.New(t, tree)).Target)
			return client.Machine(&pluginv1.MachineInfo{})
		})
	})
}

var errBroken = errors.New("broken")

// machineCase does something on a machine and says what came out.
type machineCase struct {
	do   func(ctx context.Context, m step.MachineHandle) (string, error)
	out  string
	fail string // text of the error
	is   error  // what the error is
}

func run(cmd step.Cmd) func(context.Context, step.MachineHandle) (string, error) {
	return func(ctx context.Context, m step.MachineHandle) (string, error) {
		var stdout, stderr bytes.Buffer
		cmd := cmd
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := m.Exec(ctx, cmd)
		return stdout.String() + stderr.String(), err
	}
}

func sh(script string) func(context.Context, step.MachineHandle) (string, error) {
	return run(step.Cmd{Argv: []string{"sh", "-c", script}})
}

func put(file step.PutFile, content io.Reader, then string) func(context.Context, step.MachineHandle) (string, error) {
	return func(ctx context.Context, m step.MachineHandle) (string, error) {
		err := m.Put(ctx, file, content)
		out, shErr := sh(then)(ctx, m)
		return out, errors.Join(err, shErr)
	}
}

var big = strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB

func machineCases() map[string]machineCase {
	return map[string]machineCase{
		"output":             {do: run(step.Cmd{Argv: []string{"echo", "a b", "c"}}), out: "a b c\n"},
		"both outputs":       {do: sh("echo out; echo err >&2"), out: "out\nerr\n"},
		"status":             {do: sh("exit 42"), fail: "sh: exit status 42"},
		"signal":             {do: sh("kill -9 $$"), fail: "sh: exit status 137"},
		"output and status":  {do: sh("echo no; exit 3"), out: "no\n", fail: "sh: exit status 3"},
		"no program":         {do: run(step.Cmd{}), fail: "run a command: it has no program"},
		"unknown program":    {do: run(step.Cmd{Argv: []string{"nosuch"}}), fail: `run nosuch: start nosuch: not found in the machine's PATH: file does not exist`},
		"stdin":              {do: run(step.Cmd{Argv: []string{"tr", "a-z", "A-Z"}, Stdin: strings.NewReader("text")}), out: "TEXT"},
		"no stdin":           {do: run(step.Cmd{Argv: []string{"cat"}})},
		"stdin nobody reads": {do: run(step.Cmd{Argv: []string{"true"}, Stdin: iotest.DataErrReader(strings.NewReader(big + big))})},
		"much stdin":         {do: run(step.Cmd{Argv: []string{"wc", "-c"}, Stdin: strings.NewReader(big)}), out: "1048576\n"},
		"much output": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			out, err := sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")(ctx, m)
			return fmt.Sprint(len(out)), err
		}, out: "6000000"},
		"environment": {do: run(step.Cmd{Argv: []string{"sh", "-c", `echo "$A $LANG $HOME"`}, Env: map[string]string{"A": "1 2"}}), out: "1 2 C.UTF-8 /root\n"},
		"folder":      {do: run(step.Cmd{Argv: []string{"pwd"}, Dir: "/usr/bin"}), out: "/usr/bin\n"},
		"no network":  {do: run(step.Cmd{Argv: []string{"sed", "-e", "1,2d", "-e", "s/:.*//", "/proc/net/dev"}}), out: "    lo\n"},
		"one writer keeps the order": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			var both bytes.Buffer
			err := m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "for i in 1 2 3 4; do echo out $i; echo err $i >&2; done"}, Stdout: &both, Stderr: &both})
			return both.String(), err
		}, out: "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\n"},
		"output thrown away": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			return "", m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "test -c /proc/self/fd/1 && test -c /proc/self/fd/2"}})
		}},
		"writer that fails": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			return "", m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "echo x; sleep 60"}, Stdout: brokenWriter{}})
		}, fail: "run sh: copy its stdout: broken", is: errBroken},
		"cancelled before": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errBroken)
			return sh("echo x")(ctx, m)
		}, fail: "run sh: broken", is: errBroken},
		"cancelled while it runs": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			ctx, cancel := context.WithCancelCause(ctx)
			err := m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "sleep 60 & echo x; sleep 60"}, Stdout: writerFunc(func() { cancel(errBroken) })})
			left, psErr := sh("cat /proc/[0-9]*/comm | grep sleep || true")(context.WithoutCancel(ctx), m)
			return left, errors.Join(err, psErr)
		}, fail: "run sh: broken", is: errBroken},

		"put": {do: put(step.PutFile{Path: "/etc/new"}, strings.NewReader("text"), "cat /etc/new; stat -c ' %a %U %G' /etc/new"), out: "text 644 root root\n"},
		"put all of it": {do: put(step.PutFile{Path: "/srv/a/b/new", Mode: 0o4750&^0o4000 | fs.ModeSetuid, Owner: "games", Group: "60", ModTime: time.Unix(1_000_000_000, 0), Parents: true},
			strings.NewReader(""), "stat -c '%a %U %G %Y %s' /srv/a/b/new; stat -c '%a %U' /srv/a/b"), out: "4750 games games 1000000000 0\n755 root\n"},
		"put much":                {do: put(step.PutFile{Path: "/big"}, io.MultiReader(strings.NewReader(big), strings.NewReader("x")), "stat -c %s /big"), out: "1048577\n"},
		"put without folder":      {do: put(step.PutFile{Path: "/none/new"}, strings.NewReader("x"), "ls /none 2>/dev/null || true"), fail: `put "/none/new": open /none/: no such file or directory`, is: fs.ErrNotExist},
		"put much without folder": {do: put(step.PutFile{Path: "/none/new"}, strings.NewReader(strings.Repeat(big, 8)), "true"), fail: `put "/none/new": open /none/: no such file or directory`, is: fs.ErrNotExist},
		"put relative":            {do: put(step.PutFile{Path: "etc/new"}, strings.NewReader("x"), "true"), fail: `put "etc/new": path "etc/new" is not absolute`},
		"put what breaks off": {do: put(step.PutFile{Path: "/etc/motd"}, io.MultiReader(strings.NewReader(big), iotest.ErrReader(errBroken)), "wc -c </etc/motd"),
			out: "286\n", fail: `put "/etc/motd": broken`, is: errBroken},
		"put what is cut short": {do: put(step.PutFile{Path: "/etc/motd"}, io.MultiReader(strings.NewReader(big+"x"), iotest.ErrReader(io.ErrUnexpectedEOF)), "wc -c </etc/motd"),
			out: "286\n", fail: `put "/etc/motd": unexpected EOF`, is: io.ErrUnexpectedEOF},

		"get":        {do: get("/etc/hostname-not-there"), fail: `get "/etc/hostname-not-there": open /etc/hostname-not-there: no such file or directory`, is: fs.ErrNotExist},
		"get a file": {do: get("/etc/debian_version"), out: "12"},
		"get much": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			if err := m.Put(ctx, step.PutFile{Path: "/big"}, strings.NewReader(big)); err != nil {
				return "", err
			}
			var content bytes.Buffer
			err := m.Get(ctx, "/big", &content)
			return fmt.Sprint(content.String() == big), err
		}, out: "true"},
		"get to a broken writer": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			return "", m.Get(ctx, "/etc/passwd", brokenWriter{})
		}, fail: `get "/etc/passwd": broken`, is: errBroken},
		"facts": {do: func(ctx context.Context, m step.MachineHandle) (string, error) {
			f, err := m.Facts(ctx)
			return fmt.Sprintf("%+v", f), err
		}, out: "{OS:debian Version:12 Arch:amd64 PackageManager:apt}"},
	}
}

func get(path string) func(context.Context, step.MachineHandle) (string, error) {
	return func(ctx context.Context, m step.MachineHandle) (string, error) {
		var content bytes.Buffer
		err := m.Get(ctx, path, &content)
		version, _, _ := strings.Cut(content.String(), ".")
		return version, err
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func testMachine(t *testing.T, open func(*testing.T) step.MachineHandle) {
	for name, tc := range machineCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := tc.do(ctx, open(t))
			if d := cmp.Diff(tc.out, out); d != "" {
				t.Errorf("output (-want +got)\n%s", d)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if d := cmp.Diff(tc.fail, text); d != "" {
				t.Errorf("error (-want +got)\n%s", d)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("the error %v isn't %v", err, tc.is)
			}
		})
	}
}
