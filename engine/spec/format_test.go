package spec_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/spec"
)

// TestFormat holds each file in testdata/format against its canonical layout.
func TestFormat(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/format/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			src := readFile(t, path)
			out, diags := spec.Format(path, src)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".out", out)
			again, _ := spec.Format(path, out)
			if d := cmp.Diff(string(out), string(again)); d != "" {
				t.Errorf("formatting twice is different (-once +twice):\n%s", d)
			}
		})
	}
}

func TestFormatLeavesGoodFilesAlone(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/good/*.yaml") {
		src := readFile(t, path)
		out, diags := spec.Format(path, src)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if d := cmp.Diff(string(src), string(out)); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
}

func TestFormatRefusesWhatIsNoYAML(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]string{
		"a syntax error": "a: [\n",
		"a second file":  "a: 1\n---\nb: 2\n",
		"nothing":        "",
		"bytes":          "a: \xff\n",
		"a complex key":  "? [a]\n: b\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, diags := spec.Format("x.yaml", []byte(src))
			if out != nil || !diags.HasErrors() || !bytes.Equal(out, nil) {
				t.Errorf("got %q and %v", out, diags)
			}
		})
	}
}
