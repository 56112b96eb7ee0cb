package manifest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
)

const motd = `gild-plugin: 1
name: acme/motd
version: 1.0.0-rc.1
kind: exec
command: [./bin/motd, --quiet]
environment: [HTTPS_PROXY]
limits: {memory: 512MiB, files: 256}
steps:
  - name: acme/motd
    summary: writes the message of the day
    doc: |
      Long.
    sections: [tests, publish]
    cacheable: true
    validates: true
    keyed: true
    schema:
      type: object
      additionalProperties: false
      properties:
        text: {type: string, maxLength: 0x10, default: 2026-01-01}
    outputs: {path: string}
  - name: acme/motd/remove
    summary: removes it
    sections: [publish]
    command: [remove]
    schema: {type: object}
`

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := manifest.Parse("plugin.yaml", []byte(motd))
	if err != nil {
		t.Fatal(err)
	}
	want := manifest.Manifest{
		Name: "acme/motd", Version: "1.0.0-rc.1",
		Command:     []string{"bin/motd", "--quiet"},
		TLS:         manifest.TLSAuto,
		Environment: []string{"HTTPS_PROXY"},
		Limits:      manifest.Limits{Memory: 512 << 20, Files: 256},
		Exec: &manifest.Exec{Steps: []manifest.Step{{
			Name: "acme/motd", Summary: "writes the message of the day", Doc: "Long.\n",
			Sections:  []step.Section{step.Tests, step.Publish},
			Cacheable: true, Validates: true, Keyed: true,
			Command: []string{"bin/motd", "--quiet"},
			Schema: []byte(`{"additionalProperties":false,"properties":{"text":` +
				`{"default":"2026-01-01","maxLength":16,"type":"string"}},"type":"object"}`),
			Outputs: map[string]string{"path": "string"},
		}, {
			Name: "acme/motd/remove", Summary: "removes it", Sections: []step.Section{step.Publish},
			Command: []string{"remove"}, Schema: []byte(`{"type":"object"}`),
		}}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestParseGRPC(t *testing.T) {
	t.Parallel()
	got, err := manifest.Parse("plugin.yaml", []byte("gild-plugin: 1\ncommand: [x]\ntls: none\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := manifest.Manifest{
		Command: []string{"x"}, TLS: manifest.TLSNone,
		Limits: manifest.Limits{Memory: manifest.DefaultMemory, Files: manifest.DefaultFiles},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// Each mistake is made in a file that is right otherwise.
func TestMistakes(t *testing.T) {
	t.Parallel()
	const steps = "steps:\n  - "
	for name, tc := range map[string]struct{ old, new, want string }{
		"format":             {"gild-plugin: 1", "gild-plugin: 2", `1:14: the format is "2", and this gild knows 1`},
		"no format":          {"gild-plugin: 1\n", "", `1:1: the key gild-plugin is missing: write gild-plugin: 1`},
		"unknown key":        {"version:", "verison:", "1:1: the key version is missing\np:3:1: unknown key \"verison\"; did you mean \"version\"?"},
		"unlike any key":     {"environment:", "x:", `6:1: unknown key "x"; known are gild-plugin, name, version, kind, command, tls, environment, limits, steps`},
		"twice":              {"version: 1.0.0-rc.1", "name: a/b", "1:1: the key version is missing\np:3:1: the key \"name\" stands twice, first on line 2"},
		"name":               {"name: acme/motd\nv", "name: Motd\nv", `2:7: "Motd" is no name of a plugin; one looks like acme/agent` + "\np:9:11: the step's name \"acme/motd\" is neither the plugin's, \"Motd\", nor that with a further part\np:23:11: the step's name \"acme/motd/remove\" is neither the plugin's, \"Motd\", nor that with a further part"},
		"version":            {"1.0.0-rc.1", "1.0", `3:10: version is not a text; put it into quotes`},
		"no semver":          {"1.0.0-rc.1", "v1.0.0", `3:10: "v1.0.0" is not a semantic version such as 1.4.0`},
		"empty":              {"version: 1.0.0-rc.1", "version: ''", `3:10: version is empty`},
		"null":               {"version: 1.0.0-rc.1", "version:", `3:9: version has no value`},
		"kind":               {"kind: exec", "kind: exce", "4:7: unknown kind \"exce\"; did you mean \"exec\"?\np:8:1: steps are for kind: exec; a plugin of kind grpc describes them itself"},
		"tls of exec":        {"kind: exec", "kind: exec\ntls: none", `5:1: tls is for kind: grpc; gild itself serves a plugin of kind exec`},
		"absolute":           {"./bin/motd", "/bin/motd", `5:11: "/bin/motd" is not a path inside of the plugin's folder`},
		"outside":            {"./bin/motd", "bin/../../motd", `5:11: "bin/../../motd" is not a path inside of the plugin's folder`},
		"the folder":         {"./bin/motd", "./bin/..", `5:11: "./bin/.." is not a path inside of the plugin's folder`},
		"command is text":    {"[./bin/motd, --quiet]", "motd", "5:10: command is not a list\np:9:5: neither the step nor the plugin has a command"},
		"empty command":      {"[./bin/motd, --quiet]", "[]", "5:10: the command is empty\np:9:5: neither the step nor the plugin has a command"},
		"no command":         {"command: [./bin/motd, --quiet]", "", "9:5: neither the step nor the plugin has a command"},
		"nul":                {"--quiet", `"a\0b"`, "5:23: a NUL byte can't stand in a command\np:9:5: neither the step nor the plugin has a command"},
		"argument":           {"--quiet", "7", `5:23: an entry of command is not a text; put it into quotes`},
		"variable":           {"HTTPS_PROXY", "A=b", `6:15: "A=b" is no name of a variable`},
		"variable twice":     {"HTTPS_PROXY", "A, B, A", `6:21: the variable A stands twice`},
		"memory":             {"512MiB", "512", `7:18: memory is not a text; put it into quotes`},
		"memory unit":        {"512MiB", "512mib", `7:18: the size "512mib" has the unit "mib"; write MiB`},
		"little memory":      {"512MiB", "1MiB", `7:18: 1MiB is less than 16MiB, which no plugin can start with`},
		"files":              {"256", "few", `7:33: files is "few", not a whole number of at least 16`},
		"few files":          {"256", "3", `7:33: files is "3", not a whole number of at least 16`},
		"alias":              {"1.0.0-rc.1", "&v 1.0.0", `3:10: anchors and aliases aren't allowed here`},
		"document":           {"kind: exec", "kind: exec\n---\na: b", "1:1: the key steps is missing\np:5:1: a second YAML document begins here"},
		"syntax":             {"kind: exec", "kind: exec: x", `4:1: mapping values are not allowed in this context`},
		"other step":         {"acme/motd/remove", "acme/other", `23:11: the step's name "acme/other" is neither the plugin's, "acme/motd", nor that with a further part`},
		"step name":          {"acme/motd/remove", "acme/motd/", `23:11: "acme/motd/" is no name of a step; one looks like acme/agent or acme/agent/upgrade`},
		"steps alike":        {"acme/motd/remove", "acme/motd", `23:5: a step named "acme/motd" stands on line 9 already`},
		"lines of a summary": {"removes it", `"a\nb"`, `24:14: the summary has more than one line; the rest belongs into doc`},
		"no schema":          {"    schema: {type: object}\n", "", `23:5: the key schema is missing`},
		"bad schema":         {"{type: object}", "{type: object, properties: {a: {type: 7}}}", "27:51: no JSON Schema: value must be one of \"array\","},
		"no sections":        {"[publish]", "[]", `25:15: a step stands in at least one section`},
		"unknown section":    {"[publish]", "[publsh]", `25:16: unknown section "publsh"; did you mean "publish"?`},
		"section twice":      {"[publish]", "[publish, publish]", `25:25: the section publish stands twice`},
		"mixed sections":     {"[tests, publish]", "[customize, tests]", `13:15: a step changes a machine, in customize, or works on an image, elsewhere; make it two steps`},
		"boolean":            {"cacheable: true", "cacheable: yes", `14:16: cacheable is "yes", not true or false`},
		"output type":        {"path: string", "path: text", `22:21: unknown path "text"; known are string, integer, number, boolean, list`},
		"no output type":     {"path: string", "path: ''", `22:21: path is empty`},
		"output name":        {"path: string", "a b: string", `22:15: "a b" is no name of an output: letters, digits, - and _`},
		"no JSON":            {"0x10", ".nan", `21:41: ".nan" has no equal in JSON`},
		"no object":          {"{type: object}", "{type: [object]}", `27:13: the schema has no type: object, which is what with is`},
		"outer reference":    {"{type: object}", "{$ref: 'other:///x'}", "27:13: no JSON Schema: other:///x is outside of the schema"},
		"steps are text":     {steps, "steps: none\nx:\n  - ", "8:8: steps is not a list\np:9:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(motd, tc.old, tc.new, 1)
			if text == motd {
				t.Fatalf("the file has no %q", tc.old)
			}
			m, err := manifest.Parse("p", []byte(text))
			if err == nil {
				t.Fatal("no mistake found")
			}
			if d := cmp.Diff(manifest.Manifest{}, m); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if want := "p:" + tc.want; !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

func TestNothing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "p:1:1: the file is empty",
		"# only a comment\n":             "p:1:1: the file is empty",
		"- a":                            "p:1:1: the file is not a mapping",
		"gild-plugin: 1":                 "p:1:1: the key command is missing",
		strings.Repeat(" ", 1<<20) + "x": "p:1:1: the file is larger than 1048576 bytes",
	} {
		if _, err := manifest.Parse("p", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%.20q: got %v, want %s", text, err, want)
		}
	}
}

// The list of mistakes has an end.
func TestManyMistakes(t *testing.T) {
	t.Parallel()
	text := strings.Builder{}
	for i := range 1000 {
		fmt.Fprintf(&text, "k%d: x\n", i)
	}
	_, err := manifest.Parse("p", []byte(text.String()))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 51 || lines[50] != "p: and 952 more" {
		t.Errorf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "#!/bin/sh\n", 0o755)
	for name, tc := range map[string]struct {
		prepare func(t *testing.T, dir string)
		want    string // of the error
	}{
		"fine": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, "run"), "", 0o755) }, ""},
		"a link inside": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "real"), "", 0o755)
			link(t, "real", filepath.Join(dir, "run"))
		}, ""},
		"no program": {func(*testing.T, string) {}, `DIR/plugin.yaml:2:11: "run" isn't in the plugin's folder`},
		"not executable": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, "run"), "", 0o644) },
			`DIR/plugin.yaml:2:11: "run" is not executable: chmod +x it`},
		"a folder": {func(t *testing.T, dir string) {
			if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, `DIR/plugin.yaml:2:11: "run" is no regular file`},
		"a link out": {func(t *testing.T, dir string) { link(t, outside, filepath.Join(dir, "run")) },
			`DIR/plugin.yaml:2:11: "run" can't be read: statat run: path escapes from parent`},
		"plugin.yaml leads out": {func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, manifest.Name)); err != nil {
				t.Fatal(err)
			}
			link(t, outside, filepath.Join(dir, manifest.Name))
		}, `read DIR/plugin.yaml: statat plugin.yaml: path escapes from parent`},
		"plugin.yaml is a folder": {func(t *testing.T, dir string) {
			path := filepath.Join(dir, manifest.Name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}, `read DIR/plugin.yaml: it is no regular file`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, manifest.Name), "gild-plugin: 1\ncommand: [run]\n", 0o644)
			tc.prepare(t, dir)
			m, ok, err := manifest.Read(dir)
			if got := strings.ReplaceAll(fmt.Sprint(err), dir, "DIR"); tc.want != "" && got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if tc.want == "" && (err != nil || !ok || m.Command[0] != "run") {
				t.Errorf("got %v, %v, %v", m, ok, err)
			}
		})
	}
}

func TestReadWithoutManifest(t *testing.T) {
	t.Parallel()
	if _, ok, err := manifest.Read(t.TempDir()); ok || err != nil {
		t.Errorf("got %v, %v, want nothing", ok, err)
	}
	if _, _, err := manifest.Read(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a folder that isn't there is no error")
	}
}

func TestSingle(t *testing.T) {
	t.Parallel()
	want := manifest.Manifest{
		Command: []string{"gild-plugin-motd"}, TLS: manifest.TLSAuto,
		Limits: manifest.Limits{Memory: 2 << 30, Files: 1024},
	}
	if d := cmp.Diff(want, manifest.Single("some/gild-plugin-motd")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// The example of the package's help is a manifest.
func TestDoc(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("manifest.go")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Builder{}
	for line := range strings.Lines(string(src)) {
		if rest, ok := strings.CutPrefix(line, "//\t"); ok && !strings.HasPrefix(rest, "tls:") {
			text.WriteString(rest)
		}
	}
	if _, err := manifest.Parse("doc", []byte(text.String())); err != nil {
		t.Error(err)
	}
}

var place = regexp.MustCompile(`^p:\d+:\d+: |^p: and \d+ more$`)

func FuzzParse(f *testing.F) {
	f.Add([]byte(motd))
	f.Add([]byte("gild-plugin: 1\ncommand: [x]\ntls: none\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("---\n---\n"))
	f.Add([]byte("steps: [{schema: {<<: {a: 1}, 1: !!binary aa, 2: 1e400}}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := manifest.Parse("p", text)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !place.MatchString(line) {
					t.Errorf("a mistake without a place: %q", line)
				}
			}
			return
		}
		for _, argv := range commands(m) {
			if len(argv) == 0 || !filepath.IsLocal(argv[0]) || argv[0] == "." {
				t.Errorf("the command %q", argv)
			}
		}
		if m.Exec == nil {
			return
		}
		for _, s := range m.Exec.Steps {
			if !json.Valid(s.Schema) || s.Name == "" || len(s.Sections) == 0 {
				t.Errorf("the step %+v", s)
			}
		}
	})
}

func commands(m manifest.Manifest) [][]string {
	if m.Exec == nil {
		return [][]string{m.Command}
	}
	var all [][]string
	for _, s := range m.Exec.Steps {
		all = append(all, s.Command)
	}
	return all
}

func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := manifest.Parse("p", []byte(motd)); err != nil {
			b.Fatal(err)
		}
	}
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
