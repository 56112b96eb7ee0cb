package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/sdk/sdktest"
)

func TestMain(m *testing.M) {
	program, err := os.Executable()
	if err != nil {
		panic(err)
	}
	sdktest.Main(m, plugin(filepath.Dir(program)))
}

// buildFolder makes the plugin's folder: a real goss, and the tests' program as the plugin's.
func buildFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "goss-"+runtime.GOARCH), "github.com/goss-org/goss/cmd/goss")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build goss: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{self: "gild-plugin-goss", "plugin.yaml": "plugin.yaml"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// newTarget returns a Debian guest with each of the files as an input, "./goss.yaml", and
// all of them as "./spec".
func newTarget(t *testing.T, files map[string]string) sdktest.Target {
	t.Helper()
	dir := t.TempDir()
	inputs := map[string]string{"./spec": dir}
	for name, text := range files {
		path := filepath.Join(dir, name)
		inputs["./"+name] = path
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sdktest.Target{Machine: &sdktest.Guest{MachineHandle: sdktest.Local(t)}, Inputs: inputs}
}

func sh(t *testing.T, target sdktest.Target, command string) string {
	t.Helper()
	var out bytes.Buffer
	if err := target.Machine.Exec(t.Context(), sdk.Cmd{Argv: []string{"/bin/sh", "-c", command}, Stdout: &out, Stderr: t.Output()}); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(out.String())
}

func TestGoss(t *testing.T) {
	dir := buildFolder(t)
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		testConformance(t, dir)
	})
	// As gild runs it: in a process of its own, the program from its folder.
	step := sdktest.Installed(t, dir)["gild/goss"]
	for name, test := range map[string]func(*testing.T, sdk.Step){
		"holds": testHolds, "reports everything": testReports, "one file": testOneFile, "tries again": testTriesAgain, "errors": testErrors,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, step)
		})
	}
}

func testHolds(t *testing.T, step sdk.Step) {
	target := newTarget(t, map[string]string{
		"goss.yaml": `
gossfile: {parts/users.yaml: {}}
file:
  /etc/debian_version: {exists: true, contains: ["{{.Vars.version}}"]}
package:
  bash: {installed: true}
  nginx: {installed: false}
command:
  "echo $GIVEN {{.Env.GIVEN}}": {exit-status: 0, stdout: ["yes yes"]}
  "pwd": {exit-status: 0, stdout: [/var/lib/gild-goss/spec]}
`,
		"parts/users.yaml": "user: {root: {exists: true, uid: 0, home: /root}}\n",
		"vars.yaml":        "version: '12.'\n",
	})
	target.Env = map[string]string{"GIVEN": "yes"}
	res := target.Run(t, step, "{file: ./spec, vars: ./vars.yaml}")
	if res.Err != nil {
		t.Fatalf("%v\n%s", res.Err, res.Log)
	}
	if d := cmp.Diff(sdk.Outputs{"count": 11.0, "skipped": 0.0}, res.Outputs); d != "" {
		t.Errorf("outputs (-want +got)\n%s\n%s", d, res.Log)
	}
	for _, want := range []string{"ok      User: root: uid: matches expectation: 0\n", "Count: 11, Failed: 0, Skipped: 0"} {
		if !strings.Contains(res.Log, want) {
			t.Errorf("the log doesn't say %q:\n%s", want, res.Log)
		}
	}
	if got := sh(t, target, "ls -d /var/lib/gild-goss 2>/dev/null || true"); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func testReports(t *testing.T, step sdk.Step) {
	target := newTarget(t, map[string]string{"goss.yaml": `
file:
  /etc/passwd: {title: accounts, exists: true, mode: "0600"}
  /nosuch: {exists: true, mode: "0644"}
package: {nginx: {installed: true}}
user: {root: {exists: true, uid: 4}}
command:
  "printf 'a\\nb\\n'; exit 3": {exit-status: 0, stdout: [c]}
  "sleep 60": {exit-status: 0, timeout: 200}
`})
	res := target.Run(t, step, "{file: ./goss.yaml}")
	var failed *sdk.TestFailed
	if !errors.As(res.Err, &failed) {
		t.Fatalf("got %v, want a TestFailed\n%s", res.Err, res.Log)
	}
	want := []string{
		`Command: printf 'a\nb\n'; exit 3: exit-status: Expected 3 to be numerically eq 0`,
		`Command: printf 'a\nb\n'; exit 3: stdout: Expected "object: *bytes.Reader" to have patterns ["c"] the missing elements were ["c"]`,
		`Command: sleep 60: exit-status: Error Command execution timed out (200ms)`,
		`File: /nosuch: exists: Expected false to equal true`,
		`Package: nginx: installed: Expected false to equal true`,
		`User: root: uid: Expected 0 to be numerically eq 4`,
		`accounts: File: /etc/passwd: mode: Expected "0644" to equal "0600"`,
	}
	got := map[string]bool{}
	for _, c := range failed.Checks {
		got[c] = true
	}
	for _, w := range want {
		if !got[w] {
			t.Errorf("no check says %s", w)
		}
	}
	if len(failed.Checks) != len(want) {
		t.Errorf("the checks are\n%s", strings.Join(failed.Checks, "\n"))
	}
	if want := "skipped File: /nosuch: mode: skipped\n"; !strings.Contains(res.Log, want) {
		t.Errorf("the log doesn't say %q:\n%s", want, res.Log)
	}
}

func testOneFile(t *testing.T, step sdk.Step) {
	target := newTarget(t, map[string]string{"goss.yaml": "file: {/etc/passwd: {exists: true}}\n"})
	if res := target.Run(t, step, "{file: ./goss.yaml}"); res.Err != nil {
		t.Fatalf("%v\n%s", res.Err, res.Log)
	}
}

func testTriesAgain(t *testing.T, step sdk.Step) {
	target := newTarget(t, map[string]string{"goss.yaml": "command: {'echo x >>/n; test $(wc -l </n) -ge 3': {exit-status: 0}}\n"})
	if res := target.Run(t, step, "{file: ./goss.yaml, within: 1m}"); res.Err != nil {
		t.Fatalf("%v\n%s", res.Err, res.Log)
	}
	if got := sh(t, target, "wc -l </n"); got != "3" {
		t.Errorf("it ran %s times", got)
	}
}

func testErrors(t *testing.T, step sdk.Step) {
	for name, tc := range map[string]struct {
		files  map[string]string
		config string
		want   string
	}{
		"no YAML":      {map[string]string{"goss.yaml": "file: ["}, "{file: ./goss.yaml}", "goss ended with status 78: yaml: line 1: did not find expected node content"},
		"no tests":     {map[string]string{"goss.yaml": "{}"}, "{file: ./goss.yaml}", "found 0 tests"},
		"no such key":  {map[string]string{"goss.yaml": "file: {/x: {mod: 1, exists: true}}"}, "{file: ./goss.yaml}", "invalid Attribute for File:/x: mod"},
		"no variable":  {map[string]string{"goss.yaml": "file: {'{{.Vars.a}}': {exists: true}}", "vars.yaml": "b: 1"}, "{file: ./goss.yaml, vars: ./vars.yaml}", `map has no entry for key "a"`},
		"no goss.yaml": {map[string]string{"other.yaml": "{}"}, "{file: ./spec}", "the folder ./spec has no goss.yaml"},
	} {
		res := newTarget(t, tc.files).Run(t, step, tc.config)
		var permanent *sdk.Permanent
		if !errors.As(res.Err, &permanent) || !strings.Contains(res.Err.Error(), tc.want) {
			t.Errorf("%s: the error is %v, want a lasting one with %q", name, res.Err, tc.want)
		}
		var failed *sdk.TestFailed
		if errors.As(res.Err, &failed) {
			t.Errorf("%s: %v counts as a failed test", name, res.Err)
		}
	}
}

func TestOtherArchitecture(t *testing.T) {
	t.Parallel()
	machine := sdktest.NewMachine()
	machine.SetFacts(sdk.Facts{OS: "debian", Version: "12", Arch: "riscv64", PackageManager: "apt"})
	target := sdktest.Target{Machine: &sdktest.Guest{MachineHandle: machine}, Inputs: map[string]string{"./goss.yaml": "plugin.yaml"}}
	res := target.Run(t, plugin(t.TempDir()).Steps[0], "{file: ./goss.yaml}")
	if res.Err == nil || !strings.Contains(res.Err.Error(), "built without a goss for riscv64") {
		t.Errorf("the error is %v", res.Err)
	}
	if len(machine.Commands()) > 0 || len(machine.Files()) > 0 {
		t.Errorf("the guest was touched: %v %v", machine.Commands(), machine.Files())
	}
}

func TestSchema(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]int{"{file: f}": 0, "{file: f, within: 90s}": 0, "{within: 1s}": 1, "{file: f, fiel: f}": 1} {
		got := sdktest.Problems(t, plugin(t.TempDir()).Steps[0], config)
		if len(got) != want {
			t.Errorf("%s has the problems %v", config, got)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"results": [{"successful": false, "title": "t", "summary-line-compact": "a\nb"}], "summary": {"summary-line": "x"}}`))
	f.Add([]byte(`{"results": null}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseReport(text)
		if err != nil {
			return
		}
		if n := r.count(held) + r.count(missed) + r.count(skipped); n != len(r.Results) || r.count(missed) != len(r.failed()) {
			t.Errorf("%d results have %d outcomes", len(r.Results), n)
		}
		var log bytes.Buffer
		r.log(&log)
		for _, line := range r.failed() {
			if strings.Contains(line, "\n") || len(line) > maxLine+len(" …") {
				t.Errorf("the check %q is no line", line)
			}
		}
	})
}

func testConformance(t *testing.T, dir string) {
	report, err := conformance.Check(t.Context(), conformance.Options{Path: dir, Fixtures: conformance.FixturesName})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		// It has no Validate, adds nothing to the key, and claims nothing.
		skipped := c.Status == conformance.Skipped && c.Name != "validate" && c.Name != "key-parts" && c.Name != "cleanup"
		if c.Status == conformance.Failed || skipped {
			t.Errorf("%s: %s: %s", c.Name, c.Status, c.Detail)
		}
	}
}
