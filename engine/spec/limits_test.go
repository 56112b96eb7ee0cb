package spec_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/spec"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// TestHostileFiles holds files made to cost much against a bound on memory; the test's
// own time limit is the bound on time.
func TestHostileFiles(t *testing.T) {
	const mib = 1 << 20
	cases := []struct {
		name string
		src  func() string
		code string
	}{
		{"a scalar of 10 MB", func() string { return header + "description: " + strings.Repeat("x", 10*mib) }, "file-too-large"},
		{"a quoted scalar just below the limit", func() string { return header + "description: \"" + strings.Repeat("x ", mib/2-100) }, "yaml-syntax"},
		{"20,000 keys in one mapping", func() string {
			var b strings.Builder
			for i := range 20_000 {
				fmt.Fprintf(&b, "key-%d: %d\n", i, i)
			}
			return b.String()
		}, "unknown-key"},
		{"lists 100,000 deep", func() string { return "a: " + strings.Repeat("[", 100_000) }, "yaml-syntax"},
		{"lists 5,000 deep", func() string { return "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) }, "too-deep"},
		{"dashes 5,000 deep", func() string { return "a:\n " + strings.Repeat("- ", 5000) + "x" }, "too-deep"},
		{"an alias bomb", func() string { return string(readFile(t, "testdata/bad/alias-bomb.yaml")) }, "too-many-values"},
		{"a merge bomb", func() string {
			b := "a0: &a0 {k: v}\n"
			for i := 1; i < 40; i++ {
				b += fmt.Sprintf("a%d: &a%d {<<: [*a%d, *a%d, *a%d]}\n", i, i, i-1, i-1, i-1)
			}
			return b
		}, "too-many-values"},
		{"a list of 200,000 items", func() string { return "a: [" + strings.Repeat("1,", 200_000) + "1]" }, "too-many-values"},
		{"an expression of 5 KB", func() string { return header + "description: ${{ " + strings.Repeat("1+", 2500) + "1 }}" }, "expression-too-long"},
		{"an expression 2,000 deep", func() string {
			return header + "description: ${{ " + strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000) + " }}"
		}, ""},
		{"nested replacements", func() string {
			return header + "description: ${{ " + strings.Repeat("replace(", 60) + `"a"` + strings.Repeat(`,"a","aaaaaaaaaa")`, 60) + " }}"
		}, "expression-failed"},
		{"nested joins", func() string {
			return header + "description: ${{ " + strings.Repeat("join(split(", 40) + `"ab"` + strings.Repeat(`,""),"xxxxxxxxxx")`, 40) + " }}"
		}, "expression-failed"},
		{"a huge power", func() string { return header + "description: ${{ string(2 ** 999999999) }}" }, ""},
		{"a loop in a loop", func() string {
			return header + "description: \"${{ all(1..1000000, all(1..1000000, # > 0)) }}\""
		}, "unknown-function"},
		{"a doubling variable", func() string {
			return header + "description: ${{ let a = \"xxxxxxxx\"; let b = a+a+a+a; let c = b+b+b+b; c }}"
		}, "expression-syntax"},
		{"a syntax error at the end of 60 KB", func() string { return strings.Repeat("a: [1,\n2]\n", 6000) + "b: ]" }, "yaml-syntax"},
		{"3,000 steps in a circle", func() string {
			var b strings.Builder
			b.WriteString(header + "customize:\n")
			for i := range 3000 {
				fmt.Fprintf(&b, "  - {id: s%d, uses: sleep, needs: [s%d]}\n", i, (i+1)%3000)
			}
			return b.String()
		}, "graph-cycle"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			src := []byte(c.src())
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, diags := validate("x.yaml", src, catalog(t), spec.Inputs{})
			runtime.ReadMemStats(&after)
			if used := (after.TotalAlloc - before.TotalAlloc) / mib; used > 600 {
				t.Errorf("%d MiB were allocated", used)
			}
			found := c.code == "" || diags.HasErrors()
			for _, d := range diags {
				found = found || d.Code == c.code
				if len(d.Message) > 4000 {
					t.Errorf("a message of %d bytes", len(d.Message))
				}
			}
			if !found || c.code != "" && !hasCode(diags, c.code) {
				t.Errorf("no %q in %d diagnostics, first %v", c.code, len(diags), diags[:min(3, len(diags))])
			}
		})
	}
}
