package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps"
)

const root = "../.."

// yamlBlock is a fenced block of YAML in Markdown.
var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestDocumentedPipelines validates every YAML block of the documents, and every
// pipeline of the repository.
func TestDocumentedPipelines(t *testing.T) {
	t.Parallel()
	language, err := engine.NewLanguage(steps.All(), documentedPlugins{}, unsupported)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, lock.Name), []byte(documentedLock), 0o644); err != nil {
		t.Fatal(err)
	}
	files := []string{filepath.Join(root, "pipelines")}
	for _, doc := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md"} {
		text, err := os.ReadFile(filepath.Join(root, doc))
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range yamlBlock.FindAllStringSubmatch(string(text), -1) {
			path := filepath.Join(dir, doc+"."+string(rune('a'+i))+".yaml")
			if err := os.WriteFile(path, []byte(block[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			files = append(files, path)
		}
	}
	if len(files) < 2 {
		t.Fatal("the documents have no YAML blocks; the test would prove nothing")
	}
	diags, err := language.Validate(t.Context(), engine.Request{Files: files})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diags {
		t.Errorf("%s: %s [%s]", d.Pos, d.Message, d.Code)
	}
}

const documentedLock = `gild: 1
plugins:
  acme/motd: {source: ./motd, version: 1.0.0}
  acme/upload: {source: ./upload, version: 1.0.0}
`

// documentedPlugins stands in for the plugins that the documents make up.
type documentedPlugins struct{}

func (documentedPlugins) Steps(_ context.Context, name string, _ lock.Plugin) ([]step.Step, error) {
	known := map[string]step.Step{
		"acme/motd":   {Sections: []step.Section{step.Customize}, Schema: []byte(`{"type": "object", "additionalProperties": false, "properties": {"text": {"type": "string"}}}`)},
		"acme/upload": {Sections: []step.Section{step.Publish}, Schema: []byte(`{"type": "object", "additionalProperties": false, "properties": {"url": {"type": "string"}}}`)},
	}
	s, ok := known[name]
	if !ok {
		return nil, fmt.Errorf("the documents have no plugin %s", name)
	}
	s.Name = name
	return []step.Step{s}, nil
}

func (documentedPlugins) Cleanup(context.Context, string, step.Resource) error { return nil }

func (documentedPlugins) Withhold([]string) {}

func (documentedPlugins) Sweep(context.Context, bool) ([]step.Resource, error) { return nil, nil }

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath, Doc string
	Imports         []string
	GoFiles         []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// TestImportsPointOneWay: cmd uses steps and engine, steps use engine, engine uses neither.
func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	const module = "github.com/gildhq/gild/"
	forbidden := map[string][]string{
		"engine":  {"steps", "plugins", "cmd"},
		"steps":   {"plugins", "cmd"},
		"plugins": {"cmd"},
		"schemas": {"engine", "steps", "plugins", "cmd"},
	}
	for _, p := range listPackages(t) {
		top, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imported := range p.Imports {
			for _, bad := range forbidden[top] {
				if imported == module+bad || strings.HasPrefix(imported, module+bad+"/") {
					t.Errorf("%s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
}

// TestPackagesSayWhatTheyAre: every package has a package comment.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// TestPipelinePlans compares the plan of every pipeline of the repository, on a builder
// that has stored nothing, with the one in testdata/plans.
func TestPipelinePlans(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(root, "pipelines", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the repository's pipelines: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs, getenv: func(string) string { return "" }, makeBuilders: newFakeBuilder}
			if code := a.run(t.Context(), []string{"plan", "--json", "--state", t.TempDir(), file}); code != 0 {
				t.Fatalf("gild plan: exit status %d\n%s", code, errs.String())
			}
			// Keys and architecture are the host's.
			got := hostly.ReplaceAllString(out.String(), `"$1": "…"`)
			golden := filepath.Join("testdata", "plans", strings.TrimSuffix(filepath.Base(file), ".yaml")+".json")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("plan of %s (-want +got); if it is meant, go test ./cmd/gild -update:\n%s", file, diff)
			}
		})
	}
}

var hostly = regexp.MustCompile(`"(key|arch)": "[^"]*"`)
