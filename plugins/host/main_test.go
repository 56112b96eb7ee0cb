package host

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/internal/procs"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// The test binary is also the plugin of the tests, and a gild that is killed.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(pluginv1.CookieKey) != "":
		servePlugin(os.Args[1:])
	case os.Getenv(childHostEnv) != "":
		serveHost()
	default:
		goleak.VerifyTestMain(m)
	}
}

// plugin is a plugin to be installed: the test binary behind a script.
type plugin struct {
	args     []string // to the plugin; see servePlugin
	manifest string   // further lines of plugin.yaml
	script   string   // instead of the one that runs the test binary
	salt     string   // makes another plugin of the same
	binary   bool     // the test binary itself instead of a script
}

// install adds a plugin to the store.
func (p plugin) install(t testing.TB, s *store.Store) store.Content {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if p.script == "" {
		// With the race detector, a program sleeps for a second before it ends.
		p.script = fmt.Sprintf("#!/bin/sh\nGORACE=atexit_sleep_ms=0 exec '%s' \"$@\"\n", self)
	}
	dir := t.TempDir()
	command := append([]string{"./run"}, p.args...)
	write(t, filepath.Join(dir, "plugin.yaml"), 0o644, fmt.Sprintf("gild-plugin: 1\ncommand: [%s]\n%s\n", strings.Join(command, ", "), p.manifest))
	if p.binary {
		text, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		p.script = string(text)
	}
	write(t, filepath.Join(dir, "run"), 0o755, p.script+"# "+p.salt+"\n")
	c, err := s.Add(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func write(t testing.TB, path string, mode os.FileMode, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// newHost returns a host that must have left nothing behind when the test ends.
func newHost(t testing.TB, change func(*Config)) *Host {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(dir, "plugins"), Store: s, Version: "0.0.0-test", Grace: 20 * time.Second, StartTimeout: time.Minute, CallTimeout: time.Minute}
	if change != nil {
		change(&cfg)
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		folder := h.folder
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if folder == nil {
			return
		}
		for _, path := range []string{folder.dir, folder.sockets} {
			if _, err := os.Lstat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left behind: %v", path, err)
			}
		}
		if pids, err := procs.Find(func(pid int) bool { return strings.HasPrefix(procs.Variable(pid, procs.RunEnv), folder.id) }); err != nil || len(pids) > 0 {
			t.Errorf("processes %v are left behind: %v", pids, err)
		}
	})
	return h
}

// started installs a plugin and returns its only step.
func started(t testing.TB, h *Host, p plugin) (step.Step, store.Content) {
	t.Helper()
	c := p.install(t, h.cfg.Store)
	steps, err := h.Steps(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return steps[0], c
}

// newTarget returns a target, and what the step logs.
func newTarget() (*step.Target, *buffer) {
	logged := &buffer{}
	return &step.Target{
		Log:      logged,
		Progress: func(done, total int64, unit string) {},
		Clock:    time.Unix(1700000000, 0),
		Pipeline: step.PipelineInfo{Name: "web", Release: "1.0", Arch: runtime.GOARCH},
		Claim: func(context.Context, step.Resource) (func(context.Context) error, error) {
			return func(context.Context) error { return nil }, nil
		},
		Attempt: 1,
		Token:   "token",
	}, logged
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute it still isn't so that %s", what)
		}
	}
}

// wantError fails unless the error has all the parts.
func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error\n\t%v\nlacks %q", err, part)
		}
	}
}
