package spec_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// validate is all that is wrong with a file.
func validate(path string, src []byte, c *spec.Catalog, in spec.Inputs) ([]*spec.Pipeline, diag.List) {
	f, diags := spec.Parse(path, src, c)
	if f == nil {
		return nil, diags
	}
	pipelines, more := f.Resolve(in)
	diags = append(diags, more...)
	diags.Sort()
	return pipelines, diags
}

// golden compares got with a file, or rewrites the file under -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func files(t testing.TB, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no file matches %s", pattern)
	}
	return all
}

// TestBad holds each file in testdata/bad against all that is said of it.
func TestBad(t *testing.T) {
	t.Parallel()
	c := catalog(t)
	for _, path := range files(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			src := readFile(t, path)
			pipelines, diags := validate(filepath.Base(path), src, c, spec.Inputs{})
			if pipelines != nil || !diags.HasErrors() {
				t.Errorf("%s gave %d pipelines and %d diagnostics", path, len(pipelines), len(diags))
			}
			checkPlaces(t, src, diags)
			var out bytes.Buffer
			if err := diag.WriteText(&out, diags, false); err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".out", out.Bytes())
		})
	}
}

// checkPlaces checks that every diagnostic has a line of the file.
func checkPlaces(t *testing.T, src []byte, diags diag.List) {
	t.Helper()
	lines := 1
	for _, ending := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		lines += strings.Count(string(src), ending)
	}
	for _, d := range diags {
		if d.Pos.Line < 1 || d.Pos.Line > lines || d.Code == "" || d.Message == "" {
			t.Errorf("diagnostic without a place, code or message: %+v", d)
		}
	}
}

func hasCode(diags diag.List, code string) bool {
	return slices.ContainsFunc(diags, func(d diag.Diagnostic) bool { return d.Code == code })
}
