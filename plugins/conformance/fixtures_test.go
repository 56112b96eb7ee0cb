package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

func TestFixtures(t *testing.T) {
	t.Parallel()
	all, err := parseFixtures("f.yaml", []byte(testFixtures))
	if err != nil {
		t.Fatal(err)
	}
	s := all.Steps["test/motd"]
	if len(s.Good) != 2 || len(s.Bad) != 3 || len(s.Runs) != 2 {
		t.Fatalf("got %d good, %d bad and %d runs", len(s.Good), len(s.Bad), len(s.Runs))
	}
	if r := s.Runs[0]; r.Expect.Outcome != succeeded || r.Machine != inMemory || string(r.With) != `{"text":"hello"}` {
		t.Errorf("the first run is %+v", r)
	}
}

func TestBadFixtures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {`stepps: {}`, "field stepps not found"},
		"unknown run key":  {`steps: {a/b: {runs: [{wiht: {}}]}}`, "field wiht not found"},
		"config":           {`steps: {a/b: {good: [[1]]}}`, `step "a/b": good config 1: a config is a mapping`},
		"bad without with": {`steps: {a/b: {bad: [{pointer: /a}]}}`, `bad config 1: the key "with" is missing`},
		"outcome":          {`steps: {a/b: {runs: [{name: x, expect: {outcome: fine}}]}}`, `run 1 (x): the outcome is "fine", not one of [succeeded`},
		"machine":          {`steps: {a/b: {runs: [{machine: big}]}}`, `the machine is "big", not memory or real`},
		"real commands":    {`steps: {a/b: {runs: [{machine: real, commands: [{argv: [a]}]}]}}`, "are of a machine in memory"},
		"argv":             {`steps: {a/b: {runs: [{commands: [{status: 1}]}]}}`, "a command has no argv"},
		"relative file":    {`steps: {a/b: {runs: [{files: {etc: x}}]}}`, `the file "etc" isn't absolute`},
		"input outside":    {`steps: {a/b: {runs: [{inputs: [../x]}]}}`, `"../x" lies outside`},
		"not a number":     {`steps: {a/b: {good: [{a: .inf}]}}`, "no number that JSON has"},
		"key twice":        {`steps: {a/b: {good: [{a: 1, a: 2}]}}`, `the key "a" is there twice`},
		"syntax":           {"steps:\n\t- x", "f.yaml: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseFixtures("f.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{a: 1, b: [x, true, null, 1.5]}": `{"a":1,"b":["x",true,null,1.5]}`,
		"{when: 2026-01-02}":              `{"when":"2026-01-02"}`,
		"{a: &x {b: 1}, c: *x}":           `{"a":{"b":1},"c":{"b":1}}`,
	} {
		var d document
		if err := yaml.Unmarshal([]byte(text), &d); err != nil || string(d) != want {
			t.Errorf("%s: got %s, %v, want %s", text, d, err, want)
		}
	}
	bomb := "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
	for _, pair := range []string{"ba", "cb", "dc", "ed"} {
		bomb += pair[:1] + ": &" + pair[:1] + " [" + strings.Repeat("*"+pair[1:]+",", 10) + "]\n"
	}
	var d document
	if err := yaml.Unmarshal([]byte(bomb), &d); err == nil || !strings.Contains(err.Error(), "more than 10000 parts") {
		t.Errorf("a bomb of aliases gives %v", err)
	}
}

func FuzzFixtures(f *testing.F) {
	f.Add([]byte(testFixtures))
	f.Add([]byte("steps: {a/b: {good: [&a {b: *a}]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parseFixtures("f.yaml", text)
		if err != nil {
			return
		}
		for _, s := range all.Steps {
			for _, r := range s.Runs {
				if config, err := r.With.config(); err != nil || !json.Valid(config) {
					t.Errorf("a run's config is %q, %v", config, err)
				}
			}
		}
	})
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	doc := "Text.\n\n    a: 1\n\n    b: 2\n\nMore:\n\n```yaml\nc: 3\n\nd: 4\n```\n\tlast: 5\n~~~\ne: |\n  ```\n~~~\nend"
	want := []string{"a: 1\n\nb: 2\n\n", "c: 3\n\nd: 4\n", "last: 5\n", "e: |\n  ```\n"}
	got := blocks(doc)
	if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fail := func(want string) {
		t.Helper()
		if _, err := locate(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	fail("build it first")
	program := func(name string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	program("gild-plugin-test.yaml", 0o755)
	program("gild-plugin-a.go", 0o644)
	fail("build it first")
	program("gild-plugin-a", 0o755)
	found, err := locate(dir)
	want := located{path: filepath.Join(dir, "gild-plugin-a"), fixtures: filepath.Join(dir, FixturesName)}
	if err != nil || found != want {
		t.Errorf("got %+v, %v", found, err)
	}
	program("gild-plugin-b", 0o755)
	fail("name the one to test")
	dir = filepath.Join(dir, "none")
	fail("find the plugin")
}
