package host

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
)

// do is the config of a step that makes the plugin do something.
func do(what string, more ...any) json.RawMessage {
	config := map[string]any{"do": what}
	for _, m := range more {
		switch m := m.(type) {
		case int:
			config["n"] = m
		case string:
			config["text"] = m
		}
	}
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	return raw
}

func TestRun(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	want := step.Step{
		Name: "acme/test", Version: c.Digest, Plugin: "acme/test@" + c.Digest, Summary: "does as it is told", Doc: "Help.",
		Schema: []byte(testSchema), Outputs: map[string]string{"text": "string"},
		Sections: []step.Section{step.Customize}, Effect: step.Machine, Cacheable: true,
	}
	got := s
	got.Run, got.Validate, got.KeyParts, got.Cleanup = nil, nil, nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the step (-want +got):\n%s", diff)
	}
	target, logged := newTarget()
	var progress []any
	target.Progress = func(done, total int64, unit string) { progress = append(progress, done, total, unit) }
	out, err := s.Run(context.Background(), target, do("echo", "greetings"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(step.Outputs{"text": "greetings"}, out); diff != "" {
		t.Errorf("the outputs (-want +got):\n%s", diff)
	}
	if logged.String() != "hello\nworld" {
		t.Errorf("the log is %q", logged)
	}
	if diff := cmp.Diff([]any{int64(1), int64(2), "B"}, progress); diff != "" {
		t.Errorf("the progress (-want +got):\n%s", diff)
	}
}

func TestValidateAndKeyParts(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	ctx := context.Background()
	problems, err := s.Validate(ctx, do("bad"))
	if err != nil {
		t.Fatal(err)
	}
	want := []step.Problem{{Pointer: "/do", Message: "this is odd", Hint: "change it", Warning: true}}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Errorf("the problems (-want +got):\n%s", diff)
	}
	parts, err := s.KeyParts(ctx, do("", 3))
	if diff := cmp.Diff(map[string]string{"tool": "777"}, parts); diff != "" || err != nil {
		t.Errorf("the parts: %v (-want +got):\n%s", err, diff)
	}
	for name, config := range map[string]json.RawMessage{
		"plugin acme/test 1.2.3: validate acme/test: the config is odd":                                     do("fail"),
		"plugin acme/test 1.2.3: validate acme/test: it reports 101 problems, of at most 100":               do("many", 101),
		"plugin acme/test 1.2.3: validate acme/test: it reports a problem with \"xxx":                       do("huge", 5000),
		"plugin acme/test 1.2.3: validate acme/test: it sent a message of 4.8 MiB, of at most 4.0 MiB":      do("huge", 5_000_000),
		"plugin acme/test 1.2.3: validate acme/test: the call has a message of 4.8 MiB, of at most 4.0 MiB": do("", long(5_000_000)),
	} {
		_, err := s.Validate(ctx, config)
		wantError(t, err, name)
	}
	if _, err = s.KeyParts(ctx, do("", 70_000)); err == nil {
		t.Error("parts of a key of 70,000 bytes were taken")
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestFailures(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	run := func(config json.RawMessage) error {
		target, _ := newTarget()
		_, err := s.Run(context.Background(), target, config)
		return err
	}
	const who = "plugin acme/test 1.2.3: run acme/test: "
	err := run(do("permanent"))
	var permanent *step.Permanent
	if wantError(t, err, who+"no such package"); !errors.As(err, &permanent) {
		t.Errorf("%v is not permanent", err)
	}
	err = run(do("test-failed"))
	var failed *step.TestFailed
	if wantError(t, err, "port 80 is closed"); !errors.As(err, &failed) {
		t.Errorf("%v is no failed test", err)
	}
	err = run(do("exit-error"))
	var exit *step.ExitError
	if wantError(t, err, who+"apt-get: exit status 100"); !errors.As(err, &exit) || exit.Status != 100 {
		t.Errorf("%v is no exit status", err)
	}
	var skipped *step.Skipped
	if err = run(do("skip")); !errors.As(err, &skipped) || err.Error() != "skipped: nothing to do" {
		t.Errorf("%v is not skipped", err)
	}
	wantError(t, run(do("status")), who+"a status with a failure")
	wantError(t, run(do("unheard of")), who+`the plugin can't "unheard of" (Unknown)`)
}

func TestRequest(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	target.Env = map[string]string{"A": "1"}
	target.Inputs = map[string]step.Input{"./b": nil, "./a": nil}
	target.Attempt = 3
	target.Image = &step.ImageInfo{Key: "k", Files: []step.ImageFile{{Format: "raw", Path: "/x"}}}
	out, err := s.Run(context.Background(), target, do("request"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `acme/testmap[A:1] [./a ./b] 1700000000web3token[format:"raw" path:"/x"]`
	if got := out["text"].(string); got != want && got != `acme/testmap[A:1] [./a ./b] 1700000000web3token[format:"raw"  path:"/x"]` {
		t.Errorf("the plugin got %q, want %q", got, want)
	}
}

// someMachine is a machine that knows its system.
type someMachine struct{ step.MachineHandle }

func (someMachine) Facts(context.Context) (step.Facts, error) { return step.Facts{OS: "debian"}, nil }

func TestMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	target.Machine = someMachine{}
	out, err := s.Run(context.Background(), target, do("os"))
	if diff := cmp.Diff(step.Outputs{"text": "debian"}, out); diff != "" || err != nil {
		t.Errorf("the outputs: %v (-want +got):\n%s", err, diff)
	}
}

// A description is asked for once, by whatever process.
func TestDescriptionIsKept(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, c := started(t, h, plugin{})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again := newHost(t, func(cfg *Config) { cfg.Dir, cfg.Store = h.cfg.Dir, h.cfg.Store })
	for range 2 {
		if _, err := again.Steps(context.Background(), c); err != nil || again.started != 0 {
			t.Errorf("%v, with %d processes started; want none", err, again.started)
		}
	}
	// What was kept and makes no sense is asked for again.
	write(t, filepath.Join(h.cfg.Dir, describedDir, c.Digest[len("sha256:"):]), 0o600, "\xff")
	third := newHost(t, func(cfg *Config) { cfg.Dir, cfg.Store = h.cfg.Dir, h.cfg.Store })
	if _, err := third.Steps(context.Background(), c); err != nil || third.started != 1 {
		t.Errorf("%v, with %d processes started; want 1", err, third.started)
	}
}

func TestNewNeedsAFolder(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("a host without folder and store was made")
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	c := plugin{}.install(t, h.cfg.Store)
	for range 2 {
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.Describe(context.Background(), c)
	wantError(t, err, "gild is ending")
	if _, err := os.Stat(h.cfg.Dir); !os.IsNotExist(err) {
		t.Errorf("a host that ran nothing made its folder: %v", err)
	}
}

func TestRunIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	target.Env = map[string]string{"KEY": "\xff"}
	_, err := s.Run(context.Background(), target, do("echo"))
	wantError(t, err, `run acme/test: the variable "KEY" is not UTF-8 text`)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Run(ctx, target, do("echo")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want it cancelled", err)
	}
}

// A plugin's steps have a Cleanup when it says that it has: without one, nothing is claimed.
func TestCleans(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	for how, want := range map[string]bool{"serve": true, "no-cleanup": false} {
		s, _ := started(t, h, plugin{args: []string{how}})
		if got := s.Cleanup != nil; got != want {
			t.Errorf("%s: the step has a Cleanup: %v, want %v", how, got, want)
		}
	}
}

// After a crash, what cleans up names the plugin as people know it.
func TestCleanupNamesThePlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, c := started(t, h, plugin{})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again := newHost(t, func(cfg *Config) { cfg.Dir, cfg.Store = h.cfg.Dir, h.cfg.Store })
	err := again.Cleanup(context.Background(), c, step.Resource{Kind: "lease", ID: "soon"})
	wantError(t, err, "plugin acme/test 1.2.3: cleanup: ")
}
