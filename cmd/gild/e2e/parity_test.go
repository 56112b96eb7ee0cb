package e2e_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/host"
	"github.com/gildhq/gild/plugins/store"
	"github.com/gildhq/gild/steps"
	"github.com/gildhq/gild/steps/shell"
)

// TestShellAsPlugin: the built-in shell step, served by a plugin, is the same step. Under
// its own name it has the same key, and leaves a layer of the same content and the same log.
func TestShellAsPlugin(t *testing.T) {
	t.Parallel()
	builtin := runShell(t, shell.Step)
	served := runShell(t, servedShell(t))
	if diff := cmp.Diff(builtin, served); diff != "" {
		t.Errorf("the step as a plugin differs (-built-in +plugin):\n%s", diff)
	}
}

// servedShell is the shell step of a plugin, which runs until the test ends.
func servedShell(t *testing.T) step.Step {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "gild-plugin-shell")
	if out, err := exec.Command("go", "build", "-o", program, "./testdata/shellplugin").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	st, err := store.Open(filepath.Join(dir, "plugins"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := st.Add(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Dir: filepath.Join(dir, "plugins"), Store: st, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	found, err := h.Steps(t.Context(), content)
	if err != nil || len(found) != 1 {
		t.Fatalf("the plugin's steps: %v, %v", found, err)
	}
	s := found[0]
	s.Name, s.Version, s.Plugin = shell.Step.Name, shell.Step.Version, ""
	return s
}

// shellResult is what can be seen of a shell step.
type shellResult struct{ Key, Layer, Log string }

func runShell(t *testing.T, def step.Step) shellResult {
	t.Helper()
	s := newSite(t)
	s.write("script.sh", "#!/bin/sh -eu\n"+
		"echo \"for $NAME, with $#: $*\" | tee /opt/made\nmkdir -p /opt/deep/er\nln -s ../made /opt/deep/link\nchmod 0711 /opt/deep/er\n"+
		"cat > /opt/input\nid -u > /opt/uid\nyes x | head -c 300000 > /opt/large\nrm -r /usr/share/doc/base-files\n")
	s.write("parity.yaml", `gild: 1
name: parity
release: 1.0.0
base: debian/12
customize:
  - id: it
    uses: shell
    env: {NAME: somebody}
    with: {run: ./script.sh, args: [one, "two words"]}
`)
	all := steps.All()
	for i := range all {
		if all[i].Name == def.Name {
			all[i] = def
		}
	}
	maker, err := local.New(s.state)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Config{State: s.state, Steps: all, Builders: []builder.Builder{maker}, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	req := engine.Request{Files: []string{filepath.Join(s.project, "parity.yaml")}, Selection: plan.Selection{Until: []string{"it"}}}
	p, diags, err := e.Plan(t.Context(), req)
	if err != nil || diags.HasErrors() {
		t.Fatalf("plan: %v, %v", err, diags)
	}
	report, diags, err := e.Build(t.Context(), req, silent{})
	if err != nil || diags.HasErrors() {
		t.Fatalf("build: %v, %v", err, diags)
	}
	if report.ExitCode != 0 {
		t.Fatalf("the build ended with %d: %s", report.ExitCode, s.ok("logs", report.Run, "it").stdout)
	}
	key := p.Node("parity/it").Key
	return shellResult{Key: key, Layer: s.layer(key), Log: s.ok("logs", report.Run, "it").stdout}
}

// silent takes events and shows none.
type silent struct{}

func (silent) Emit(event.Event) {}

// layer lists a layer: names, types, modes, owners, links and contents.
func (s *site) layer(key string) string {
	s.t.Helper()
	const list = `cd "$1"/layers/"$2"/fs && find . -printf '%P %y %m %U %G %s %l\n' | LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0r sha256sum`
	out, err := exec.Command("sh", "-c", list, "-", s.state, key).Output()
	if err != nil || len(out) == 0 {
		s.t.Fatalf("list layer %.12s: %v", key, err)
	}
	return string(out)
}
