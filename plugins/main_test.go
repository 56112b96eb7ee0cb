package plugins_test

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/sdk"
)

// The test binary is also the plugin of the tests: its arguments are name and version.
func TestMain(m *testing.M) {
	if os.Getenv(pluginv1.CookieKey) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	type config struct {
		// Text to write.
		Text string `json:"text"`
	}
	sdk.Serve(sdk.Plugin{Name: os.Args[1], Version: os.Args[2], Steps: []sdk.Step{sdk.Define(
		sdk.Step{
			Name: os.Args[1], Summary: "writes the message of the day", Sections: []step.Section{step.Customize}, Effect: step.Machine,
			Schema:  []byte(`{"type": "object", "additionalProperties": false, "properties": {"text": {"type": "string"}}}`),
			Cleanup: func(context.Context, step.Resource) error { return errors.New("cleaned up") },
		},
		func(context.Context, *sdk.Target, config) (struct{}, error) { return struct{}{}, nil },
	)}})
}

// script is a plugin of one file, which runs anywhere.
func script(t *testing.T, name, version string) []byte {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// With the race detector, a program sleeps for a second before it ends.
	return fmt.Appendf(nil, "#!/bin/sh\nGORACE=atexit_sleep_ms=0 exec '%s' %s %s\n", self, name, version)
}

// elfOf is the beginning of a program for a machine.
func elfOf(m elf.Machine) []byte {
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	binary.LittleEndian.PutUint16(head[18:], uint16(m))
	return head
}

// compiled is a plugin of a folder that runs only on one machine.
func compiled(t *testing.T, dir, name, version string, m elf.Machine) {
	t.Helper()
	write(t, filepath.Join(dir, "plugin.yaml"), "gild-plugin: 1\ncommand: [./run]\n")
	write(t, filepath.Join(dir, "run"), string(script(t, name, version)))
	write(t, filepath.Join(dir, "lib", "x.so"), string(elfOf(m)))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// project is a folder with a lock file, and a state folder.
type project struct {
	*testing.T
	dir, state string
	*plugins.Manager
}

func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{T: t, dir: t.TempDir(), state: t.TempDir()}
	p.open()
	return p
}

// open opens the state folder, as another gild.
func (p *project) open() {
	p.Helper()
	m, err := plugins.Open(plugins.Config{State: p.state, Version: "test", Log: p.Output()})
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if err := m.Close(); err != nil {
			p.Error(err)
		}
	})
	p.Manager = m
}

func (p *project) Cleanup(f func()) { p.T.Cleanup(f) }

func (p *project) path(name string) string { return filepath.Join(p.dir, name) }

func (p *project) lock() *lock.File {
	p.Helper()
	l, err := lock.Read(p.dir)
	if err != nil {
		p.Fatal(err)
	}
	return l
}

func (p *project) install(source string, more ...func(*plugins.InstallRequest)) plugins.Change {
	p.Helper()
	c, err := p.tryInstall(source, more...)
	if err != nil {
		p.Fatal(err)
	}
	return c
}

func (p *project) tryInstall(source string, more ...func(*plugins.InstallRequest)) (plugins.Change, error) {
	req := plugins.InstallRequest{Source: source, Dir: p.dir}
	for _, f := range more {
		f(&req)
	}
	return p.Manager.Install(p.Context(), p.lock(), req)
}

// fails checks an error's text.
func fails(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v; want %q", err, w)
		}
	}
}
