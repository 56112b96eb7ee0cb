package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/steptest"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeEnv); mode != "" {
		if err := servePlugin(mode); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	sandbox.Init()
	goleak.VerifyTestMain(m)
}

const testFixtures = `
steps:
  test/motd:
    good:
      - {text: hello}
      - {text: ""}
    bad:
      - with: {text: "two\nlines"}
        pointer: /text
      - with: {}
      - with: {text: 1}
        pointer: /text
    runs:
      - name: writes the file
        with: {text: hello}
        env: {GREETING: a-secret-greeting}
        commands: [{argv: [sync]}]
        expect:
          outputs: {bytes: 6}
          log: [wrote the message]
          files: {/etc/motd: "hello\n"}
      - name: a command fails
        with: {text: hello}
        commands: [{argv: [sync], status: 3}]
        expect: {outcome: failed, message: exit status 3}
`

// write makes a plugin of the test binary, beside its fixtures, and returns its path.
func write(t *testing.T, mode, fixtures string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// A program of the race detector's sleeps for a second when it ends.
	script := fmt.Sprintf("#!/bin/sh\nexport GORACE=atexit_sleep_ms=0 %s=%s\nexec '%s'\n", modeEnv, mode, self)
	for name, file := range map[string]struct {
		text string
		mode os.FileMode
	}{"gild-plugin-motd": {script, 0o755}, FixturesName: {fixtures, 0o644}} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(file.text), file.mode); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "gild-plugin-motd")
}

func run(t *testing.T, o Options) Report {
	t.Helper()
	if o.Within == 0 {
		o.Within = 20 * time.Second
	}
	o.Grace = 3 * time.Second
	r, err := Check(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Checks) != len(checks()) {
		t.Errorf("the report has %d checks, not %d", len(r.Checks), len(checks()))
	}
	return r
}

func with(r Report, s Status) []string {
	var names []string
	for _, c := range r.Checks {
		if c.Status == s {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestGoodPlugin(t *testing.T) {
	t.Parallel()
	var told []string
	r := run(t, Options{Path: write(t, good, testFixtures), Done: func(c Result) { told = append(told, c.Name) }})
	if len(with(r, OK)) != len(r.Checks) || !r.OK() {
		t.Errorf("not everything is ok:\n%s", r.Text())
	}
	if len(told) != len(r.Checks) {
		t.Errorf("told of %d checks of %d", len(told), len(r.Checks))
	}
	if r.Plugin != "test/motd" || r.Version != "1.0.0" {
		t.Errorf("the report is about %q %q", r.Plugin, r.Version)
	}
}

// TestFaults shows that each check fails for a plugin that has just its fault, and that no
// other check does.
func TestFaults(t *testing.T) {
	t.Parallel()
	faults := []struct{ mode, check, detail string }{
		{silent, "starts", "no answer within"},
		{plainText, "starts", "tls: none"},
		{banner, "handshake", `"hello\n"`},
		{ahead, "handshake", "got  1|2|unix|"},
		{unhealthy, "health", "NOT_SERVING"},
		{moody, "describe", `step "test/motd"`},
		{nameless, "names", `"1"`},
		{vague, "schema", "#/properties/text"},
		{open_, "schema", "additionalProperties"},
		{undocumented, "docs", "txt"},
		{lenient, "configs", "is accepted"},
		{fickle, "validate", "asked twice"},
		{unkeyed, "key-parts", "two processes"},
		{obliging, "unknown-step", "no-such-step"},
		{fragile, "broken-config", "fatal: config"},
		{forgetful, "runs", "/etc/motd"},
		{chatty, "result", "1 more event came after the result"},
		{mute, "result", "without a result"},
		{undeclared, "result", `"octets" isn't declared`},
		{stubborn, "cancel", "goes on 3s after Cancel"},
		{shared, "side-by-side", "log of the other"},
		{crossed, "side-by-side", "beside another run"},
		{careless, "cleanup", "no step says that it cleans up"},
		{once, "cleanup", "second Cleanup of note"},
		{leaky, "bounded", "open files"},
		{greedy, "bounded", "MiB"},
		{nervous, "interrupt", "SIGINT"},
		{immortal, "shutdown", "Shutdown"},
		{clingy, "orphan", "GILD_PARENT"},
		{litterer, "leftovers", "sleep 300"},
		{messy, "leftovers", "/left"},
		{noisy, "stdout", "working"},
		{gossip, "secrets", "GREETING"},
	}
	var all []string
	for _, f := range faults {
		all = append(all, f.check)
		t.Run(f.mode, func(t *testing.T) {
			t.Parallel()
			o := Options{Path: write(t, f.mode, testFixtures)}
			if f.mode == silent {
				o.Within = time.Second
			}
			// Plain text is all the same to the other checks, and four times as fast to start.
			if f.mode != plainText {
				o.Path = filepath.Dir(o.Path)
				folder(t, o.Path, "gild-plugin: 1\ncommand: [./gild-plugin-motd]\ntls: none\n")
			}
			wantOnly(t, run(t, o), f.check, f.detail)
		})
	}
	t.Run("hungry", func(t *testing.T) {
		t.Parallel()
		path := write(t, hungry, testFixtures)
		folder(t, filepath.Dir(path), "gild-plugin: 1\nname: test/motd\ncommand: [./gild-plugin-motd]\nlimits: {memory: 48MiB}\n")
		wantOnly(t, run(t, Options{Path: filepath.Dir(path)}), "host", "memory")
	})
	for _, c := range checks() {
		if c.name != "host" && !slices.Contains(all, c.name) {
			t.Errorf("no plugin of this test fails %q", c.name)
		}
	}
}

// TestPrintsSecrets is about a plugin whose author says that it shows its env.
func TestPrintsSecrets(t *testing.T) {
	t.Parallel()
	fixtures := strings.ReplaceAll(testFixtures, "expect:", "prints-secrets: true\n        expect:")
	r := run(t, Options{Path: write(t, gossip, fixtures)})
	if d := cmp.Diff([]string{"secrets"}, with(r, Warning)); d != "" || !r.OK() {
		t.Errorf("warnings (-want +got):\n%s\n%s", d, r.Text())
	}
}

// TestWithoutFixtures has only the examples of the help to go by.
func TestWithoutFixtures(t *testing.T) {
	t.Parallel()
	path := write(t, good, "")
	if err := os.Remove(filepath.Join(filepath.Dir(path), FixturesName)); err != nil {
		t.Fatal(err)
	}
	r := run(t, Options{Path: path})
	if d := cmp.Diff([]string{"configs", "runs"}, with(r, Skipped)); d != "" || len(with(r, Failed)) > 0 {
		t.Errorf("skipped (-want +got):\n%s\n%s", d, r.Text())
	}
	if _, err := Check(t.Context(), Options{Path: path, Fixtures: "none.yaml"}); err == nil {
		t.Error("fixtures that were named and aren't there are no error")
	}
}

// TestRealMachine hands a run a Debian system, as builds have it.
func TestRealMachine(t *testing.T) {
	t.Parallel()
	fixtures := `
steps:
  test/motd:
    runs:
      - name: on a real machine
        machine: real
        with: {text: hello}
        files: {/etc/motd: before}
        expect: {files: {/etc/motd: "hello\n"}}
`
	path := write(t, good, fixtures)
	failing := func(context.Context) (step.MachineHandle, func() error, error) {
		return nil, nil, errors.New("no namespaces here")
	}
	for why, o := range map[string]Options{"there is none here": {}, "no namespaces here": {Machine: failing}} {
		o.Path = path
		r := run(t, o)
		if d := cmp.Diff([]string{"runs"}, with(r, NotRun)); d != "" || !r.OK() || r.RealRuns != 0 {
			t.Errorf("without a machine (-want +got):\n%s\n%s", d, r.Text())
		}
		for _, want := range []string{"\n  not run  runs ", "0 runs; the others need a real machine: " + why, ", 1 not run\n"} {
			if !strings.Contains(r.Text(), want) {
				t.Errorf("the report doesn't say %q:\n%s", want, r.Text())
			}
		}
	}
	made, ended := 0, 0
	r := run(t, Options{Path: path, Machine: func(context.Context) (step.MachineHandle, func() error, error) {
		made++
		return steptest.New(t, steptest.Tree(t)), func() error { ended++; return nil }, nil
	}})
	if !r.OK() || r.RealRuns != 1 || made != 1 || ended != 1 {
		t.Errorf("made %d machines, ended %d\n%s", made, ended, r.Text())
	}
}

// TestRealMachineOfSection: only what customizes has a machine.
func TestRealMachineOfSection(t *testing.T) {
	t.Parallel()
	path := write(t, good, "steps: {test/motd: {runs: [{name: a, machine: real, section: publish, with: {text: hello}}]}}")
	wantOnly(t, run(t, Options{Path: path}), "runs", "only a run of section customize can have a real machine, and this is one of publish")
}

// TestCancelled ends a test early; goleak and the folder show that nothing is left.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	_, err := Check(ctx, Options{Path: write(t, good, testFixtures), Done: func(r Result) {
		if r.Name == "runs" {
			cancel(why)
		}
	}})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
}

func folder(t *testing.T, dir, manifest string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantOnly(t *testing.T, r Report, name, detail string) {
	t.Helper()
	if d := cmp.Diff([]string{name}, with(r, Failed)); d != "" || len(with(r, Warning)) > 0 {
		t.Fatalf("failed checks (-want +got):\n%s\n%s", d, r.Text())
	}
	for _, c := range r.Checks {
		if c.Name == name && !strings.Contains(c.Detail, detail) {
			t.Errorf("the detail of %q doesn't say %q:\n%s", name, detail, c.Detail)
		}
	}
}
