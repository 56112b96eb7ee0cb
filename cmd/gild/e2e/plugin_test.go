package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pluginManifest is a plugin whose three steps are one shell script.
const pluginManifest = `gild-plugin: 1
name: acme/tool
version: 1.0.0
kind: exec
command: [./tool]
steps:
  - name: acme/tool
    summary: write a file
    sections: [customize]
    cacheable: true
    schema:
      type: object
      additionalProperties: false
      required: [text]
      properties: {text: {description: What to write., type: string}}
    outputs: {path: string}
    validates: true
  - name: acme/tool/lease
    summary: take a lease, as a file of the host
    sections: [customize]
    schema:
      type: object
      additionalProperties: false
      required: [file, then]
      properties:
        file: {description: The lease., type: string}
        then: {description: What to do with it., enum: [fail, hang, keep], type: string}
  - name: acme/tool/deliver
    summary: write the digest of the image into a file of the host
    sections: [publish]
    cacheable: true
    schema:
      type: object
      additionalProperties: false
      required: [file]
      properties: {file: {description: Where to., type: string}}
`

const pluginScript = `#!/bin/sh
set -eu
request=$(cat)
field() { printf '%s' "$request" | sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p'; }
case "$1 $(field step)" in
"validate acme/tool")
	case $(field text) in
	bad*) echo '{"diagnostic": {"severity": "error", "message": "the text is bad", "pointer": "/text"}}' ;;
	esac ;;
"run acme/tool")
	echo "the token is ${TOKEN:-none}" >&2
	field text | "$GILD" target put - /etc/tool
	"$GILD" target exec -- sh -c 'echo installed; test "$(cat /etc/tool)"' >&2
	echo '{"output": {"path": "/etc/tool"}}' ;;
"run acme/tool/lease")
	if [ -n "${TOKEN:-}" ]; then "$GILD" target claim lease "$TOKEN" || echo "no claim: $TOKEN" >&2; fi
	claim=$("$GILD" target claim lease "$(field file)" "a lease of the test")
	touch "$(field file)"
	case $(field then) in
	fail) echo "the lease is of no use" >&2; exit 7 ;;
	hang) # and make it again and again, in a process that doesn't end with this one
		file=$(field file)
		(while :; do touch "$file"; sleep 0.1; done) &
		wait ;;
	keep) "$GILD" target settle "$claim" ;;
	esac ;;
"run acme/tool/deliver")
	field sha256 > "$(field file)" ;;
"cleanup "*)
	rm -f "$(field id)" ;;
esac
`

// withPlugin puts the plugin into the project and installs it.
func (s *site) withPlugin() {
	s.t.Helper()
	s.must("mkdir", filepath.Join(s.project, "tool"))
	s.write("tool/plugin.yaml", pluginManifest)
	s.write("tool/tool", pluginScript)
	s.ok("plugin", "install", "./tool")
}

// toolPipeline has one step of the plugin.
func (s *site) toolPipeline(step, more string) {
	s.t.Helper()
	s.write("tool.yaml", `gild: 1
name: tool
release: 1.0.0
base: debian/12
secrets: {token: {env: GILD_TEST_TOKEN}}
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
`+step+more)
}

// TestPlugin uses a plugin as a built-in step is used.
func TestPlugin(t *testing.T) {
	t.Parallel()
	const secret = "pl4g1n-s3cr3t-77"
	s := newSite(t)
	s.env = []string{"GILD_TEST_TOKEN=" + secret}
	s.withPlugin()
	s.toolPipeline("  - uses: acme/tool\n    env: {TOKEN: \"${{ secrets.token }}\"}\n    with: {text: bad news}\n", "")
	out := s.gild("validate", "tool.yaml")
	if out.code != 2 {
		t.Errorf("validate ended with %d", out.code)
	}
	contains(t, "the plugin's own check", out.stderr, "tool.yaml:10:18: acme/tool: the text is bad [bad-config]", "with: {text: bad news}")
	s.edit("tool.yaml", "bad news", "good news")
	s.edit("tool.yaml", "text:", "txet:")
	contains(t, "the schema's check", s.gild("validate", "tool.yaml").stderr, `tool.yaml:10:12: unknown key "txet"`, `did you mean "text"?`)
	s.edit("tool.yaml", "txet:", "text:")

	first := s.build("tool.yaml")
	if !slices.Contains(first.ran(), "tool") {
		t.Errorf("the plugin's step didn't run: %v", first.ran())
	}
	log := s.ok("logs", first.Run, "tool/tool").stdout
	contains(t, "the step's log", log, "the token is ***", "installed")
	if found, err := s.grep(secret); err == nil {
		t.Errorf("the secret is in\n%s", found)
	}
	if again := s.build("tool.yaml").ran(); len(again) > 0 {
		t.Errorf("nothing changed, and these ran: %v", again)
	}

	// Another version of the plugin is another step.
	s.edit("tool/tool", "echo installed", "echo installed anew")
	if ran := s.build("tool.yaml").ran(); len(ran) > 0 {
		t.Errorf("a plugin that isn't installed was used: %v ran", ran)
	}
	s.ok("plugin", "install", "./tool")
	if second := s.build("tool.yaml"); !slices.Contains(second.ran(), "tool") {
		t.Error("the new version of the plugin didn't run")
	}
	s.noDebris("after builds with a plugin")
}

// TestChangedPluginIsRefused changes what is installed behind gild's back.
func TestChangedPluginIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.withPlugin()
	s.toolPipeline("  - uses: acme/tool\n    with: {text: x}\n", "")
	installed, err := filepath.Glob(filepath.Join(s.state, "plugins/content/*/folder/tool"))
	if err != nil || len(installed) != 1 {
		t.Fatalf("the installed program: %v, %v", installed, err)
	}
	if err := os.Chmod(installed[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(installed[0], []byte(pluginScript+"# changed\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := s.gild("build", "tool.yaml")
	if out.code == 0 {
		t.Error("a changed plugin was run")
	}
	if n := strings.Count(out.stderr, "sha256:"); n < 2 {
		t.Errorf("the error names %d digests, not both:\n%s", n, out.stderr)
	}
	contains(t, "the error", out.stderr, "acme/tool", "gild plugin")
}

// TestPluginLeaseAfterFailure: what a step claimed and didn't settle is cleaned up when it fails.
func TestPluginLeaseAfterFailure(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.withPlugin()
	const secret = "pl4g1n-l34s3-88"
	s.env = []string{"GILD_TEST_TOKEN=" + secret}
	lease := filepath.Join(s.project, "lease")
	s.toolPipeline("  - uses: acme/tool/lease\n    env: {TOKEN: \"${{ secrets.token }}\"}\n    with: {then: fail, file: "+lease+"}\n", "")
	out := s.gild("build", "tool.yaml", "--until", "lease")
	if out.code != 1 {
		t.Errorf("it ended with %d", out.code)
	}
	contains(t, "the failure", out.stderr, "acme/tool", "exit status 7", "the lease is of no use", "holds a secret", "no claim: ***")
	if found, err := s.grep(secret); err == nil || strings.Contains(out.stderr, secret) {
		t.Errorf("the secret is on the screen or in\n%s", found)
	}
	if _, err := os.Stat(lease); err == nil {
		t.Error("the lease is still there")
	}
	s.edit("tool.yaml", "then: fail", "then: keep")
	s.ok("build", "tool.yaml", "--until", "lease")
	if _, err := os.Stat(lease); err != nil {
		t.Errorf("a settled lease was removed: %v", err)
	}
	s.noDebris("after a failed step of a plugin")
}

// TestPluginLeaseAfterKill: gc and the plugin remove what a killed gild's plugin made.
func TestPluginLeaseAfterKill(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.withPlugin()
	lease := filepath.Join(s.project, "lease")
	s.toolPipeline("  - uses: acme/tool/lease\n    with: {then: hang, file: "+lease+"}\n", "")
	cmd := s.command("build", "tool.yaml", "--until", "lease")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(lease); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the plugin took no lease within a minute")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	contains(t, "what gc removed", s.ok("gc").stdout, "lease")
	for range 10 {
		if _, err := os.Stat(lease); err == nil {
			t.Fatal("the lease is still there, or there again")
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.noDebris("after gc")
}

// TestPluginDelivers takes a published image elsewhere.
func TestPluginDelivers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.withPlugin()
	file := filepath.Join(s.project, "delivered")
	s.edit("small.yaml", "publish: {name: small", "publish: {to: [{uses: acme/tool/deliver, with: {file: "+file+"}}], name: small")
	r := s.build("small.yaml")
	if !slices.Contains(r.ran(), "deliver") {
		t.Fatalf("these ran: %v", r.ran())
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(text)) != r.digest(t) {
		t.Errorf("delivered was %q, %v; the image is %s", text, err, r.digest(t))
	}
}

// TestSamplePlugins installs the samples of the repository together, and validates what
// their READMEs show.
func TestSamplePlugins(t *testing.T) {
	t.Parallel()
	const root = "../../../plugins/example"
	s := emptySite(t)
	for name, dir := range map[string]string{"ansible": ".", "oci-push": ".", "goss": root + "/goss"} {
		source, folder := "github.com/gildhq/gild/plugins/example/"+name, filepath.Join(s.project, name)
		if dir != "." {
			source = "."
		}
		build := exec.Command("go", "build", "-o", filepath.Join(folder, "gild-plugin-"+name), source)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		s.must("cp", filepath.Join(root, name, "plugin.yaml"), folder)
		s.ok("plugin", "install", "./"+name)
	}
	s.must("mkdir", filepath.Join(s.project, "play"))
	s.write("play/site.yml", "- hosts: all\n")
	s.write("goss.yaml", "{}\n")
	s.write("goss-vars.yaml", "{}\n")
	shown := 0
	for _, name := range []string{"ansible", "goss", "oci-push"} {
		text, err := os.ReadFile(filepath.Join(root, name, "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			if !strings.Contains(block[1], "uses: gild/"+name) {
				continue // a file of the tool itself
			}
			shown++
			text := strings.ReplaceAll(block[1], "./ansible ", "./play ")
			if !strings.Contains(text, "tests:") {
				text += "tests: [{uses: boot}]\n"
			}
			s.write("shown.yaml", "gild: 1\nname: shown\nrelease: 1.0.0\nbase: debian/12\nmatrix: {arch: [amd64]}\n"+
				"secrets: {db: {env: DB}, registry: {env: REGISTRY}}\n"+text)
			if out := s.gild("validate", "shown.yaml"); out.code != 0 {
				t.Errorf("the README of %s shows what isn't valid:\n%s", name, out.stderr)
			}
		}
	}
	if shown < 3 {
		t.Errorf("the READMEs show %d pipelines, want one of each", shown)
	}
}

// yamlBlock is a fenced block of YAML in Markdown.
var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")
