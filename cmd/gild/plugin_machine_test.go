package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
)

// TestPluginTestReal tests a plugin on machines of the local builder, of which nothing but
// the base is left.
func TestPluginTestReal(t *testing.T) {
	t.Parallel()
	dir, state := t.TempDir(), t.TempDir()
	gild := func(args ...string) (string, error) {
		cmd := exec.Command(gildProgram(t), append([]string{"--state", state}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		// Layers belong to the ids of the sandbox.
		if out, err := exec.Command("rm", "-rf", filepath.Join(state, "layers"), filepath.Join(state, "indexes")).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	if out, err := gild("plugin", "new", "--lang", "shell", "acme/motd", "motd"); err != nil {
		t.Fatal(out)
	}
	writeExecutable(t, filepath.Join(dir, "motd", "motd"), `#!/bin/sh
set -eu
jq -r .config.text | "$GILD" target put - /etc/motd
"$GILD" target exec -- sh -c '. /etc/os-release; echo "$VERSION_CODENAME, $(cat /etc/motd), $(cat /etc/before)"; ls -d /etc/left 2>&1; touch /etc/left' >&2
echo '{"output": {"path": "/etc/motd"}}'
`)
	fixtures := `
steps:
  acme/motd:
    runs:
      - &run {name: one, with: {text: hello}, machine: real, files: {/etc/before: earlier},
              expect: {log: ["bookworm, hello, earlier", "No such file"], files: {/etc/motd: "hello\n"}}}
      - {<<: *run, name: two}
`
	if err := os.WriteFile(filepath.Join(dir, "motd", "gild-plugin-test.yaml"), []byte(fixtures), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := gild("plugin", "test", "--real", "motd")
	if err != nil || !strings.Contains(out, "(2 runs, 2 on a real machine)") {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(filepath.Join(state, "tmp")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLacking(t *testing.T) {
	t.Parallel()
	cause := fs.ErrPermission
	missing := engine.Doctor{Install: "sudo apt-get install mmdebstrap", Findings: []builder.Finding{
		{Name: "gpgv", OK: true}, {Name: "kvm", Optional: true},
		{Name: "mmdebstrap", Detail: "makes the bare system of a base"}, {Name: "namespaces", Detail: "no user namespaces"},
	}}
	want := `permission denied
"gild doctor" misses mmdebstrap (makes the bare system of a base), namespaces (no user namespaces)
to install what is missing: sudo apt-get install mmdebstrap`
	if err := lacking(missing, cause); !errors.Is(err, cause) {
		t.Errorf("%v doesn't wrap %v", err, cause)
	} else if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := lacking(engine.Doctor{Findings: missing.Findings[:2]}, cause); err != cause {
		t.Errorf("with nothing missing: %v", err)
	}
}

func TestEnding(t *testing.T) {
	t.Parallel()
	var e ending
	for range 3 {
		if n, err := e.Write([]byte(strings.Repeat("x", maxEnding) + "y\n")); n != maxEnding+2 || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(e) != maxEnding || !strings.HasSuffix(e.String(), "xy") {
		t.Errorf("%d bytes, ending in %q", len(e), e[len(e)-4:])
	}
}
