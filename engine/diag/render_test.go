package diag_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/diag"
)

// cycle is the example of a diagnostic that the project's style is described with.
func cycle() diag.Diagnostic {
	return diag.Diagnostic{
		Pos:  diag.Pos{File: "pipelines/web.yaml", Line: 14, Column: 13, Width: 5},
		Code: "graph-cycle", Message: `step "harden" needs "tests", which needs "harden" (line 9)`,
		Hint: "remove one of the two entries", Source: "    needs: [tests]",
	}
}

func TestWriteText(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		d    diag.Diagnostic
		want string
	}{
		{"the whole of it", cycle(), strings.Join([]string{
			`pipelines/web.yaml:14:13: step "harden" needs "tests", which needs "harden" (line 9) [graph-cycle]`,
			`   14 |     needs: [tests]`,
			`      |             ^~~~~`,
			`hint: remove one of the two entries`,
		}, "\n")},
		{"a warning without a column", diag.Diagnostic{
			Severity: diag.Warning, Code: "yaml-word", Message: "on is a text", Pos: diag.Pos{File: "a.yaml", Line: 3}, Source: "x: on",
		}, "a.yaml:3: warning: on is a text [yaml-word]\n    3 | x: on"},
		{"no file", diag.Diagnostic{Code: "usage", Message: "nothing to do"}, "nothing to do [usage]"},
		{"a tab before the caret", diag.Diagnostic{
			Code: "tab", Message: "m", Pos: diag.Pos{File: "a", Line: 1, Column: 2}, Source: "\tx",
		}, "a:1:2: m [tab]\n    1 | \tx\n      | \t^"},
		{"wide characters before and under the caret", diag.Diagnostic{
			Code: "c", Message: "m", Pos: diag.Pos{File: "a", Line: 1, Column: 4, Width: 2}, Source: "名: 東京",
		}, "a:1:4: m [c]\n    1 | 名: 東京\n      |     ^~~~"},
		{"a caret just after the end", diag.Diagnostic{
			Code: "c", Message: "m", Pos: diag.Pos{File: "a", Line: 1, Column: 3, Width: 9}, Source: "ab",
		}, "a:1:3: m [c]\n    1 | ab\n      |   ^"},
		{"a column past the end", diag.Diagnostic{
			Code: "c", Message: "m", Pos: diag.Pos{File: "a", Line: 1, Column: 9}, Source: "ab",
		}, "a:1:9: m [c]\n    1 | ab"},
		{"control characters", diag.Diagnostic{
			Code: "c", Message: "bad \x1b[31m\nname\u202e", Hint: "a\rb", Source: "x\x1b]0;t\ay",
			Pos: diag.Pos{File: "a\x1b.yaml", Line: 1, Column: 9},
		}, "a\\x1b.yaml:1:9: bad \\x1b[31m\\nname\\u202e [c]\n    1 | x\ufffd]0;t\ufffdy\n      |         ^\nhint: a\\x0db"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			if err := diag.WriteText(&b, diag.List{c.d}, false); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want+"\n", b.String()); d != "" {
				t.Errorf("text (-want +got):\n%s", d)
			}
		})
	}
}

func TestWriteTextCutsLongLines(t *testing.T) {
	t.Parallel()
	d := diag.Diagnostic{
		Code: "c", Message: "m", Pos: diag.Pos{File: "a", Line: 1, Column: 50_001, Width: 4},
		Source: strings.Repeat("a", 50_000) + "HERE" + strings.Repeat("b", 50_000),
	}
	var b bytes.Buffer
	if err := diag.WriteText(&b, diag.List{d}, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if n := len([]rune(lines[1])); n > 180 {
		t.Errorf("the source line has %d characters", n)
	}
	at := strings.IndexByte(string([]rune(lines[2])), '^')
	if got := string([]rune(lines[1])[at : at+4]); got != "HERE" {
		t.Errorf("the caret marks %q in\n%s", got, b.String())
	}
}

func TestWriteTextColor(t *testing.T) {
	t.Parallel()
	var plain, colored bytes.Buffer
	l := diag.List{cycle()}
	if err := diag.WriteText(&plain, l, false); err != nil {
		t.Fatal(err)
	}
	if err := diag.WriteText(&colored, l, true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[1;32m^~~~~\x1b[0m") {
		t.Errorf("plain:\n%q\ncolored:\n%q", plain.String(), colored.String())
	}
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := diag.WriteJSON(&b, diag.List{cycle(), {Code: "usage", Message: "m <x>"}}); err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "file": "pipelines/web.yaml",
    "line": 14,
    "column": 13,
    "width": 5,
    "severity": "error",
    "code": "graph-cycle",
    "message": "step \"harden\" needs \"tests\", which needs \"harden\" (line 9)",
    "hint": "remove one of the two entries",
    "source": "    needs: [tests]"
  },
  {
    "file": "",
    "severity": "error",
    "code": "usage",
    "message": "m <x>"
  }
]
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("JSON (-want +got):\n%s", d)
	}
	b.Reset()
	if err := diag.WriteJSON(&b, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("an empty list is %q, %v", b.String(), err)
	}
}

func TestWriteSARIF(t *testing.T) {
	t.Parallel()
	warning := diag.Diagnostic{Severity: diag.Warning, Code: "yaml-word", Message: "m", Pos: diag.Pos{File: "/tmp/my file.yaml", Line: 2}}
	var b bytes.Buffer
	if err := diag.WriteSARIF(&b, diag.List{cycle(), warning, cycle()}); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var want any
	const text = `{
	  "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
	  "version": "2.1.0",
	  "runs": [{
	    "tool": {"driver": {"name": "gild", "rules": [{"id": "graph-cycle"}, {"id": "yaml-word"}]}},
	    "columnKind": "unicodeCodePoints",
	    "results": [
	      {"ruleId": "graph-cycle", "ruleIndex": 0, "level": "error",
	       "message": {"text": "step \"harden\" needs \"tests\", which needs \"harden\" (line 9)\nhint: remove one of the two entries"},
	       "locations": [{"physicalLocation": {"artifactLocation": {"uri": "pipelines/web.yaml"},
	         "region": {"startLine": 14, "startColumn": 13, "endColumn": 18, "snippet": {"text": "    needs: [tests]"}}}}]},
	      {"ruleId": "yaml-word", "ruleIndex": 1, "level": "warning", "message": {"text": "m"},
	       "locations": [{"physicalLocation": {"artifactLocation": {"uri": "file:///tmp/my%20file.yaml"}, "region": {"startLine": 2}}}]},
	      {"ruleId": "graph-cycle", "ruleIndex": 0, "level": "error",
	       "message": {"text": "step \"harden\" needs \"tests\", which needs \"harden\" (line 9)\nhint: remove one of the two entries"},
	       "locations": [{"physicalLocation": {"artifactLocation": {"uri": "pipelines/web.yaml"},
	         "region": {"startLine": 14, "startColumn": 13, "endColumn": 18, "snippet": {"text": "    needs: [tests]"}}}}]}
	    ]
	  }]
	}`
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("SARIF (-want +got):\n%s", d)
	}
}

func TestWriteGitHub(t *testing.T) {
	t.Parallel()
	l := diag.List{
		cycle(),
		{Severity: diag.Warning, Code: "c", Message: "100%\n::error::injected\r", Pos: diag.Pos{File: "a,b:c%.yaml", Line: 1, Column: 2}},
		{Code: "usage", Message: "m"},
	}
	var b bytes.Buffer
	if err := diag.WriteGitHub(&b, l); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`::error file=pipelines/web.yaml,line=14,col=13,endColumn=18,title=graph-cycle::step "harden" needs "tests", which needs "harden" (line 9)%0Ahint: remove one of the two entries`,
		`::warning file=a%2Cb%3Ac%25.yaml,line=1,col=2,endColumn=3,title=c::100%25\n::error::injected\x0d`,
		`::error title=usage::m`,
		``,
	}, "\n")
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("annotations (-want +got):\n%s", d)
	}
}

// brokenPipe fails every write.
type brokenPipe struct{}

var errPipe = errors.New("broken pipe")

func (brokenPipe) Write([]byte) (int, error) { return 0, errPipe }

func TestWriteErrorsComeBack(t *testing.T) {
	t.Parallel()
	renderers := map[string]func(io.Writer, diag.List) error{
		"text":   func(w io.Writer, l diag.List) error { return diag.WriteText(w, l, false) },
		"json":   diag.WriteJSON,
		"sarif":  diag.WriteSARIF,
		"github": diag.WriteGitHub,
	}
	for name, write := range renderers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := write(brokenPipe{}, diag.List{cycle()}); !errors.Is(err, errPipe) {
				t.Errorf("err = %v, want %v", err, errPipe)
			}
		})
	}
}

func TestSort(t *testing.T) {
	t.Parallel()
	var l diag.List
	at := func(file string, line, column int) diag.Pos { return diag.Pos{File: file, Line: line, Column: column} }
	l.Addf(at("b", 1, 1), "x", "", "m")
	l.Addf(at("a", 2, 1), "x", "", "m")
	l.Addf(at("a", 1, 9), "x", "", "m")
	l.Addf(at("a", 1, 2), "y", "", "m")
	l.Warnf(at("a", 1, 2), "x", "", "m")
	l.Addf(at("b", 1, 1), "x", "", "m")
	l.Sort()
	var got []string
	for _, d := range l {
		got = append(got, d.Pos.String()+" "+d.Code)
	}
	want := []string{"a:1:2 x", "a:1:2 y", "a:1:9 x", "a:2:1 x", "b:1:1 x"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}
