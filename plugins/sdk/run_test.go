package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

// both runs a test with the steps in this process and with those of a process of the plugin.
func both(t *testing.T, test func(t *testing.T, steps map[string]sdk.Step)) {
	t.Helper()
	direct := map[string]sdk.Step{}
	for _, s := range testPlugin().Steps {
		direct[s.Name] = s
	}
	t.Run("direct", func(t *testing.T) { test(t, direct) })
	t.Run("plugin", func(t *testing.T) { test(t, sdktest.Self(t)) })
}

func TestLog(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	folder := t.TempDir()
	writeInput(t, folder)
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		for config, want := range map[string]string{
			"{do: log, n: 1}":            "line 0\n",
			"{do: log, n: 100000}":       lines.String(),
			"{do: long log, n: 3000000}": strings.Repeat("x", 3_000_000),
			"{do: machine}":              "text\ndebian 12\nout",
			"{do: inputs}":               ". d--------- 0 \nlink L--------- 0 sub/file\nsub d--------- 0 \nsub/empty ---------- 0 \nsub/file ---------- 4 \ntext",
			"{do: target}":               "env=map[PORT:80] clock=2026-09-21 14:13:20 +0000 UTC pipeline={Name:web Release:1.4.0 Arch:amd64} attempt=2 token=test image=<nil> registry=<nil>",
			"{do: outputs}":              "",
		} {
			machine := sdktest.NewMachine(sdktest.Answer{Command: []string{"cat"}, Stdout: "out"})
			got := sdktest.Target{Machine: machine, Env: map[string]string{"PORT": "80"}, Attempt: 2, Inputs: map[string]string{"./data": folder}}.
				Run(t, steps["gild/test/customize"], config)
			if got.Err != nil {
				t.Errorf("%s: %v", config, got.Err)
			}
			if want != got.Log {
				t.Errorf("%s: the log has %d bytes (%.200q), want %d (%.200q)", config, len(got.Log), got.Log, len(want), want)
			}
		}
	})
}

func writeInput(t *testing.T, folder string) {
	t.Helper()
	err := errors.Join(
		os.MkdirAll(filepath.Join(folder, "sub"), 0o755),
		os.WriteFile(filepath.Join(folder, "sub/file"), []byte("text"), 0o644),
		os.WriteFile(filepath.Join(folder, "sub/empty"), nil, 0o600),
		os.Symlink("sub/file", filepath.Join(folder, "link")))
	if err != nil {
		t.Fatal(err)
	}
}

func TestMachineInMemory(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		machine := sdktest.NewMachine(sdktest.Answer{Command: []string{"cat"}})
		if got := (sdktest.Target{Machine: machine}).Run(t, steps["gild/test/customize"], "{do: machine}"); got.Err != nil {
			t.Fatal(got.Err)
		}
		want := []sdktest.Command{{Argv: []string{"cat", "-"}, Stdin: "in"}}
		if d := cmp.Diff(want, machine.Commands()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		file, _ := machine.File("/etc/new")
		wantFile := sdktest.File{PutFile: sdk.PutFile{Path: "/etc/new", Mode: 0o600, Owner: "games", Parents: true}, Content: "text"}
		if d := cmp.Diff(wantFile, file); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestOutputs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		for config, want := range map[string]sdk.Outputs{
			"{do: outputs}": {"text": "a\x00b ü", "list": []any{"x", ""}, "count": float64(1 << 40), "ratio": 0.1, "yes": true},
			"{do: skip}":    {"text": "", "list": []any{}, "count": float64(0), "ratio": float64(0), "yes": false},
		} {
			got := sdktest.Target{}.Run(t, steps["gild/test/customize"], config)
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			if d := cmp.Diff(want, got.Outputs); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		}
	})
}

func TestLargeOutputs(t *testing.T) {
	t.Parallel()
	step := sdktest.Self(t)["gild/test/customize"]
	got := sdktest.Target{}.Run(t, step, "{do: large outputs, n: 524288}")
	var permanent *sdk.Permanent
	if !errors.As(got.Err, &permanent) || !strings.Contains(got.Err.Error(), "the most they can have is 524288") {
		t.Errorf("got %v, want that the outputs are too large", got.Err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		got := sdktest.Target{}.Run(t, steps["gild/test/customize"], "{do: progress, n: 100000}")
		if d := cmp.Diff(sdktest.Progress{Done: 100_000, Total: 100_000, Unit: "items"}, got.Progress); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestClaims(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		step := steps["gild/test/customize"]
		got := sdktest.Target{}.Run(t, step, "{do: claim}")
		want := []sdktest.Claim{
			{Resource: sdk.Resource{Kind: "upload", ID: "1", Note: "stays open"}},
			{Resource: sdk.Resource{Kind: "upload", ID: "2"}, Settled: true},
		}
		if d := cmp.Diff(want, got.Claims); d != "" || got.Err != nil {
			t.Errorf("%v (-want +got)\n%s", got.Err, d)
		}
		if err := step.Cleanup(t.Context(), got.Claims[0].Resource); err != nil {
			t.Error(err)
		}
		if err := step.Cleanup(t.Context(), sdk.Resource{Kind: "stuck", ID: "3"}); err == nil || !strings.Contains(err.Error(), "remove 3: stuck") {
			t.Errorf("got %v, want what is stuck", err)
		}
	})
}

// TestErrors asks each kind of error to be the same on both sides.
func TestErrors(t *testing.T) {
	t.Parallel()
	as := func(target any) func(error) bool {
		return func(err error) bool { return errors.As(err, target) }
	}
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		for do, tc := range map[string]struct {
			text string
			is   func(error) bool
		}{
			"error":       {"it didn't work", func(err error) bool { var p *sdk.Permanent; return !errors.As(err, &p) }},
			"permanent":   {"here: it never works", as(new(*sdk.Permanent))},
			"skipped":     {"skipped: nothing to do", as(new(*sdk.Skipped))},
			"test failed": {"2 checks failed\n  one\n  two", as(new(*sdk.TestFailed))},
			"not there":   {"look: file does not exist", func(err error) bool { return errors.Is(err, fs.ErrNotExist) }},
			"command":     {"false: exit status 7", as(new(*sdk.ExitError))},
		} {
			machine := sdktest.NewMachine(sdktest.Answer{Command: []string{"false"}, Status: 7})
			got := sdktest.Target{Machine: machine}.Run(t, steps["gild/test/customize"], "{do: "+do+"}")
			if got.Err == nil || !strings.HasSuffix(got.Err.Error(), tc.text) || !tc.is(got.Err) {
				t.Errorf("%s: got %#v (%v), want %q", do, got.Err, got.Err, tc.text)
			}
		}
	})
}

func TestPanicIsAFailure(t *testing.T) {
	t.Parallel()
	steps := sdktest.Self(t)
	step := steps["gild/test/customize"]
	got := sdktest.Target{}.Run(t, step, "{do: panic}")
	var permanent *sdk.Permanent
	if !errors.As(got.Err, &permanent) || !strings.Contains(got.Err.Error(), "the plugin panicked: runtime error: index out of range [0] with length 0") {
		t.Errorf("got %v, want the panic", got.Err)
	}
	if _, err := step.Validate(t.Context(), []byte(`{"do": "panic"}`)); err == nil || !strings.Contains(err.Error(), "panicked: in validate") {
		t.Errorf("got %v, want the panic", err)
	}
	if got := (sdktest.Target{}).Run(t, step, "{do: outputs}"); got.Err != nil {
		t.Errorf("after a panic: %v", got.Err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	step := sdktest.Self(t)["gild/test/customize"]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := sdktest.Target{Log: whenWritten(cancel)}.RunContext(ctx, t, step, "{do: wait}")
	if !errors.Is(got.Err, context.Canceled) || !strings.HasSuffix(got.Err.Error(), "stopped waiting: "+sdk.ErrCancelled.Error()) {
		t.Errorf("got %v, want what the step said when it was asked to stop", got.Err)
	}
	if got.Log != "waiting\n" {
		t.Errorf("the log is %q", got.Log)
	}
}

// whenWritten is a writer that calls a function.
type whenWritten func()

func (f whenWritten) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

func TestValidateAndKeyParts(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		step := steps["gild/test/customize"]
		want := []sdk.Problem{{Pointer: "/do", Message: "it says problem", Hint: "say something else"}, {Message: "in general", Warning: true}}
		if d := cmp.Diff(want, sdktest.Problems(t, step, "do: problem")); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		if got := sdktest.Problems(t, step, "do: fine"); got != nil {
			t.Errorf("a config without problems has %v", got)
		}
		if got := sdktest.Problems(t, step, "{do: x, n: many}"); len(got) != 1 || got[0].Pointer != "/n" {
			t.Errorf("a config that the schema doesn't take has %v", got)
		}
		if _, err := step.Validate(t.Context(), []byte(`{"do": "broken"}`)); err == nil || !strings.HasSuffix(err.Error(), "can't tell") {
			t.Errorf("got %v", err)
		}
		parts, err := step.KeyParts(t.Context(), []byte(`{"do": "x"}`))
		if d := cmp.Diff(map[string]string{"does": "x"}, parts); d != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, d)
		}
		if _, err := step.KeyParts(t.Context(), []byte(`{"do": "broken"}`)); err == nil || !strings.HasSuffix(err.Error(), "no key") {
			t.Errorf("got %v", err)
		}
	})
}

func TestImageAndGuest(t *testing.T) {
	t.Parallel()
	addr := echoServer(t)
	image := &sdk.ImageInfo{Key: "k", ID: "ami-1", Region: "north", Size: 3, Files: []sdk.ImageFile{{Format: "raw", Path: "/x", Size: 3, Allocated: 1, SHA256: "00"}}}
	const imageLog = "{Key:k ID:ami-1 Region:north Size:3 Files:[{Format:raw Path:/x Size:3 Allocated:1 SHA256:00}]}\n"
	both(t, func(t *testing.T, steps map[string]sdk.Step) {
		step := steps["gild/test/tests"]
		got := sdktest.Target{Image: image}.Run(t, step, "{}")
		if d := cmp.Diff(imageLog+"no guest: <nil>\n", got.Log); d != "" || got.Err != nil {
			t.Errorf("%v (-want +got)\n%s", got.Err, d)
		}
		guest := &sdktest.Guest{MachineHandle: sdktest.NewMachine(), Started: sdktest.Clock, Ports: map[int]string{80: addr}, Screen: "login:"}
		got = sdktest.Target{Image: image, Machine: guest}.Run(t, step, "{}")
		if d := cmp.Diff(imageLog+"2026-09-21 14:13:20 +0000 UTC \"login:\"\npong\n", got.Log); d != "" || got.Err != nil {
			t.Errorf("%v (-want +got)\n%s", got.Err, d)
		}
	})
}

// echoServer answers each connection once.
func echoServer(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := conn.Read(make([]byte, 5)); err == nil {
				_, _ = conn.Write([]byte("pong\n"))
			}
			conn.Close()
		}
	}()
	return l.Addr().String()
}
