package sdktest_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) { sdktest.Main(m, sdk.Plugin{}) }

// config is that of a step that appends a line to a file and reloads a service.
type config struct {
	// Line to append.
	Line string `json:"line"`
}

func appendLine(ctx context.Context, t *sdk.Target, c config) (struct{}, error) {
	var old bytes.Buffer
	if err := t.Machine.Get(ctx, "/etc/app.conf", &old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return struct{}{}, err
	}
	file := sdk.PutFile{Path: "/etc/app.conf", Mode: 0o600}
	if err := t.Machine.Put(ctx, file, strings.NewReader(old.String()+c.Line+"\n")); err != nil {
		return struct{}{}, err
	}
	return struct{}{}, t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"cat", "/etc/app.conf"}, Stdout: t.Log, Stderr: t.Log})
}

func step() sdk.Step {
	return sdk.Define(sdk.Step{Name: "acme/append", Summary: "append a line", Sections: []sdk.Section{sdk.Customize}}, appendLine)
}

// TestSameOnBoth runs one step in memory and on a real system.
func TestSameOnBoth(t *testing.T) {
	t.Parallel()
	memory := sdktest.NewMachine(sdktest.Answer{Command: []string{"cat"}, Stdout: "old\nnew\n"})
	memory.SetFile("/etc/app.conf", "old\n")
	local := sdktest.Local(t)
	if err := local.Put(t.Context(), sdk.PutFile{Path: "/etc/app.conf"}, strings.NewReader("old\n")); err != nil {
		t.Fatal(err)
	}
	for name, machine := range map[string]sdk.MachineHandle{"memory": memory, "local": local} {
		got := sdktest.Target{Machine: machine}.Run(t, step(), "line: new")
		if d := cmp.Diff(sdktest.Result{Outputs: sdk.Outputs{}, Log: "old\nnew\n"}, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
		var content bytes.Buffer
		if err := machine.Get(t.Context(), "/etc/app.conf", &content); err != nil || content.String() != "old\nnew\n" {
			t.Errorf("%s: the file has %q, %v", name, &content, err)
		}
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	m := sdktest.NewMachine(
		sdktest.Answer{Command: []string{"tool"}, Stdout: "any"},
		sdktest.Answer{Command: []string{"tool", "fail"}, Stderr: "no", Status: 3},
		sdktest.Answer{Command: []string{"tool", "gone"}, Err: broken},
	)
	m.SetFacts(sdk.Facts{OS: "ubuntu"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(broken)
	var out bytes.Buffer
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"answered":      {m.Exec(t.Context(), sdk.Cmd{Argv: []string{"tool", "x"}, Stdout: &out}), ""},
		"status":        {m.Exec(t.Context(), sdk.Cmd{Argv: []string{"tool", "fail"}, Stderr: &out}), "tool: exit status 3"},
		"error":         {m.Exec(t.Context(), sdk.Cmd{Argv: []string{"tool", "gone"}}), "run tool: broken"},
		"unknown":       {m.Exec(t.Context(), sdk.Cmd{Argv: []string{"other", "x"}}), `the machine of the test has no answer for the command ["other" "x"]; give NewMachine one`},
		"no program":    {m.Exec(t.Context(), sdk.Cmd{}), "run a command: it has no program"},
		"cancelled":     {m.Exec(ctx, sdk.Cmd{Argv: []string{"tool"}}), "run tool: broken"},
		"broken input":  {m.Exec(t.Context(), sdk.Cmd{Argv: []string{"tool"}, Stdin: iotest.ErrReader(broken)}), "run tool: read its input: broken"},
		"put":           {m.Put(t.Context(), sdk.PutFile{Path: "/a"}, strings.NewReader("x")), ""},
		"put relative":  {m.Put(t.Context(), sdk.PutFile{Path: "a"}, strings.NewReader("x")), `put "a": path "a" is not absolute`},
		"put broken":    {m.Put(t.Context(), sdk.PutFile{Path: "/b"}, iotest.ErrReader(broken)), `put "/b": broken`},
		"put cancelled": {m.Put(ctx, sdk.PutFile{Path: "/b"}, strings.NewReader("x")), `put "/b": broken`},
		"get":           {m.Get(t.Context(), "/a", &out), ""},
		"get cancelled": {m.Get(ctx, "/a", &out), `get "/a": broken`},
		"get nothing":   {m.Get(t.Context(), "/b", &out), `get "/b": open /b: file does not exist`},
	} {
		got := ""
		if tc.err != nil {
			got = tc.err.Error()
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
	if d := cmp.Diff([]string{"/a"}, m.Files()); d != "" {
		t.Errorf("files (-want +got)\n%s", d)
	}
	if f, err := m.Facts(t.Context()); f.OS != "ubuntu" || err != nil {
		t.Errorf("facts: %v, %v", f, err)
	}
	if n := len(m.Commands()); n != 4 {
		t.Errorf("%d commands were recorded, want 4: those that were run", n)
	}
}

func TestGuest(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var g sdk.Guest = &sdktest.Guest{MachineHandle: sdktest.NewMachine(), Started: sdktest.Clock, Ports: map[int]string{22: l.Addr().String()}, Screen: "login:"}
	conn, err := g.Dial(t.Context(), 22)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := g.Dial(t.Context(), 80); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v", err)
	}
	if g.Console() != "login:" || !g.PoweredOn().Equal(sdktest.Clock) {
		t.Errorf("%q, %v", g.Console(), g.PoweredOn())
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		"line: x":             "",
		"{}":                  ": missing properties: 'line'",
		"{line: 1, other: 2}": "/line: expected string, but got number",
	} {
		got := ""
		for _, p := range sdktest.Problems(t, step(), config) {
			if p.Pointer != "" || got == "" {
				got = p.Pointer + ": " + p.Message
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", config, d)
		}
	}
}
