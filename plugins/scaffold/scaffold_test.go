package scaffold_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/scaffold"
)

const repository = "../.."

// TestWorksAtOnce makes each plugin there is and does what its author would do next.
func TestWorksAtOnce(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]scaffold.Options{
		"customize": {Name: "motd"},
		"test":      {Name: "acme/banner", Kind: scaffold.Test},
		"publish":   {Name: "archive", Owner: "acme", Kind: scaffold.Publish},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.SDK = repository
			dir := filepath.Join(t.TempDir(), scaffold.Folder(o.Name))
			created, err := scaffold.Create(t.Context(), dir, o)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"cd " + dir, "go test .", "go build .", "gild plugin test ."}
			if d := cmp.Diff(want, created.Next); d != "" {
				t.Errorf("next (-want +got):\n%s", d)
			}
			goTool(t, dir, "vet", ".")
			goTool(t, dir, "vet", "-tags", "machine", ".")
			goTool(t, dir, "test", "-tags", "machine", ".")
			goTool(t, dir, "build", ".")
			tidyText(t, dir)
			conforms(t, dir, nil)
		})
	}
}

// TestShell makes the plugin that nothing is compiled for.
func TestShell(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatal("this test needs jq: apt-get install jq")
	}
	gild := filepath.Join(t.TempDir(), "gild")
	goTool(t, repository, "build", "-o", gild, "./cmd/gild")
	dir := filepath.Join(t.TempDir(), scaffold.Folder("acme/motd"))
	created, err := scaffold.Create(t.Context(), dir, scaffold.Options{Name: "acme/motd", Lang: scaffold.Shell})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"cd " + dir, "gild plugin test ."}, created.Next); d != "" {
		t.Errorf("next (-want +got):\n%s", d)
	}
	conforms(t, dir, []string{gild, "plugin", "adapt"})
}

// conforms holds a plugin against everything that gild expects of one.
func conforms(t *testing.T, dir string, self []string) {
	t.Helper()
	r, err := conformance.Check(t.Context(), conformance.Options{Path: dir, Self: self, Within: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.Status == conformance.Failed || c.Status == conformance.Warning {
			t.Fatalf("the new plugin doesn't conform:\n%s", r.Text())
		}
	}
	t.Log(r.Text())
}

func goTool(t *testing.T, dir string, args ...string) {
	t.Helper()
	// A test that hangs shows where.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// tidyText checks what authors see of the files: gofmt's form, and no line of a template.
func tidyText(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "gofmt", "-l", dir).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("not as gofmt has it: %s %v", out, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "{{") {
		t.Error("main.go has a line of a template in it")
	}
}

func TestMainIsShort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, scaffold.Options{Name: "motd", SDK: repository})
	text, err := os.ReadFile(filepath.Join(dir, "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 40 {
		t.Errorf("main.go has %d lines, more than 40", n)
	}
}

func write(t *testing.T, dir string, o scaffold.Options) []string {
	t.Helper()
	files, err := scaffold.Write(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range files {
		if files[i], err = filepath.Rel(dir, files[i]); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		o    scaffold.Options
		want []string
	}{
		{scaffold.Options{Name: "motd", SDK: repository}, []string{
			".gitignore", "README.md", "gild-plugin-test.yaml", "go.mod", "machine_test.go", "main.go", "main_test.go"}},
		{scaffold.Options{Name: "motd", Lang: scaffold.Shell}, []string{
			"README.md", "gild-plugin-test.yaml", "motd", "plugin.yaml"}},
	} {
		if d := cmp.Diff(c.want, write(t, t.TempDir(), c.o)); d != "" {
			t.Errorf("%+v (-want +got):\n%s", c.o, d)
		}
	}
}

func TestOverwritesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	readme := filepath.Join(dir, "README.md")
	if err := os.WriteFile(readme, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := scaffold.Write(dir, scaffold.Options{Name: "motd", SDK: repository})
	var exists *scaffold.ExistsError
	if !errors.As(err, &exists) || exists.Path != readme {
		t.Fatalf("got %v, want that %s is there", err, readme)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %d files, not 1; %v", len(entries), err)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    scaffold.Options
		want string
	}{
		"development build": {scaffold.Options{Name: "motd"}, "pass --sdk FOLDER"},
		"name":              {scaffold.Options{Name: "Motd", SDK: repository}, `"Motd" is not like motd or acme/motd`},
		"path":              {scaffold.Options{Name: "../motd", SDK: repository}, "is not like"},
		"owner":             {scaffold.Options{Name: "motd", Owner: "a b", SDK: repository}, "is not like"},
		"kind":              {scaffold.Options{Name: "motd", Kind: "seal", SDK: repository}, "there is customize, test, publish"},
		"kind in shell":     {scaffold.Options{Name: "motd", Kind: scaffold.Test, Lang: scaffold.Shell}, "there is customize"},
		"language":          {scaffold.Options{Name: "motd", Lang: "cobol"}, "the languages are go and shell"},
		"no checkout":       {scaffold.Options{Name: "motd", SDK: "/"}, "read the checkout of gild"},
		"another checkout":  {scaffold.Options{Name: "motd", SDK: "testdata/other"}, "is no checkout of github.com/gildhq/gild"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "new")
			_, err := scaffold.Write(dir, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("the folder was made: %v", err)
			}
		})
	}
}

// TestGoVersion keeps the templates' version of Go that of gild.
func TestGoVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, scaffold.Options{Name: "motd", SDK: repository})
	line := regexp.MustCompile(`(?m)^go .*$`)
	var found []string
	for _, at := range []string{dir, repository} {
		text, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, line.FindString(string(text)))
	}
	if len(slices.Compact(found)) != 1 {
		t.Errorf("go.mod of a new plugin and of gild: %q", found)
	}
}
