package spec_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// seed adds every file of testdata to a fuzz target.
func seed(f *testing.F) {
	f.Helper()
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml", "testdata/format/*.yaml"} {
		for _, path := range files(f, pattern) {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
}

// checkDiagnostics holds what must be true of every diagnostic of any input.
func checkDiagnostics(t *testing.T, src []byte, diags diag.List) {
	t.Helper()
	checkPlaces(t, src, diags)
	for _, d := range diags {
		if strings.Trim(d.Code, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			t.Errorf("code %q", d.Code)
		}
		if d.Pos.Column < 1 || d.Pos.Column > utf8.RuneCountInString(d.Source)+1 && d.Source != "" {
			t.Errorf("column %d of %q", d.Pos.Column, d.Source)
		}
	}
	var out bytes.Buffer
	if err := diag.WriteText(&out, diags, false); err != nil {
		t.Error(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x00\a\b\r") {
		t.Errorf("control characters in %q", out.String())
	}
}

func FuzzParse(f *testing.F) {
	seed(f)
	c := catalog(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		pipelines, diags := validate("x.yaml", src, c, spec.Inputs{})
		checkDiagnostics(t, src, diags)
		if diags.HasErrors() != (pipelines == nil) {
			t.Errorf("%d pipelines with %v", len(pipelines), diags)
		}
		for _, p := range pipelines {
			ids := map[string]bool{}
			for _, s := range p.Steps {
				if ids[s.ID] {
					t.Errorf("two steps have the id %q", s.ID)
				}
				ids[s.ID] = true
				s.With.Canonical()
				if pos := s.With.Pos("/no/such/place"); pos.Line < 1 {
					t.Errorf("with has no place: %+v", pos)
				}
				if s.With.Steps() == nil && s.With.Secrets() == nil {
					if _, err := s.With.Eval(nil, nil); err != nil {
						t.Errorf("with waits for nothing, but: %v", err)
					}
				}
			}
		}
		again, diagsAgain := validate("x.yaml", src, c, spec.Inputs{})
		if len(again) != len(pipelines) || cmp.Diff(diags, diagsAgain) != "" {
			t.Errorf("the second time is different:\n%s", cmp.Diff(diags, diagsAgain))
		}
	})
}

// expressionFile is a pipeline with one expression, in the given quoting.
func expressionFile(expr string) []byte {
	quoted := strings.ReplaceAll(expr, "'", "''")
	return []byte("gild: 1\nname: web\nrelease: 1.0.0\nbase: debian/12\n" +
		"params:\n  port: {type: integer, default: 80}\n  name: {type: string, default: x}\n" +
		"  ratio: {type: number, default: 0.5}\n  flag: {type: boolean, default: true}\n  names: {type: list, default: [a, b]}\n" +
		"secrets: {key: {env: KEY}}\nmatrix: {level: [1, high]}\ncustomize:\n" +
		"  - {id: a-b, uses: shell, with: {run: x}}\n" +
		"  - uses: file\n    env: {X: '${{" + quoted + "}}'}\n    with: {to: /x, content: 'é ${{" + quoted + "}} z'}\n    when: '" + quoted + "'\n")
}

func FuzzExpression(f *testing.F) {
	for _, e := range []string{
		"params.port", "params.port + 1", `matrix.level == "high"`, "steps.a-b.outputs.exit-status", "secrets.key",
		`join(params.names, "-")`, "split(params.name, ',')[0]", "params.flag ? 1 : 2", "params.names[99]", "1..1000000",
		`replace("aaaa", "a", "aaaa")`, "int('x')", "len(params.names) > 1 and not params.flag", "{a: {b: 1}}.a.b", "$env",
		"let a = 1; a", "map(1..9, #)", "params['port']", "params.name[1:2]", "`x` matches `(`", "nil ?? 1", "1 / 0", "2 ** 999999999",
		"params?.port", "params.ratio % 2", `"\u00e9" contains "x"`, "}}", "'", "steps.a-b.outputs.stdout-1", "toJSON(params.names)",
		`upper(lower(trim(" x ")))`, "max(1, 2.5)", "-params.port", "9223372036854775807 + 1", "0x", "1e999", "params.names | join(' ')",
	} {
		f.Add(e)
	}
	c := catalog(f)
	f.Fuzz(func(t *testing.T, expr string) {
		if strings.ContainsAny(expr, "\n\r\u0085\u2028\u2029") {
			return
		}
		src := expressionFile(expr)
		pipelines, diags := validate("x.yaml", src, c, spec.Inputs{})
		checkDiagnostics(t, src, diags)
		for _, p := range pipelines {
			outputs := map[string]map[string]any{"a-b": {"stdout": "text", "exit-status": 3.0}}
			s := p.Steps[1]
			v, err := s.With.Eval(outputs, map[string]string{"key": "hunter2"})
			if err != nil {
				continue
			}
			if text := v.(map[string]any)["content"].(string); len(text) > 1<<20 {
				t.Errorf("a short expression made %d bytes", len(text))
			}
			if strings.Contains(string(s.With.Canonical()), "hunter2") {
				t.Error("the canonical form has the secret")
			}
		}
	})
}

func FuzzFormat(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		out, diags := spec.Format("x.yaml", src)
		checkDiagnostics(t, src, diags)
		if out == nil {
			if !diags.HasErrors() {
				t.Error("no output, and no error")
			}
			return
		}
		before, _ := spec.ParseParams("x.yaml", src)
		after, more := spec.ParseParams("x.yaml", out)
		if more.HasErrors() && before != nil {
			t.Fatalf("the output is not YAML: %v\n%s", more, out)
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("the meaning changed (-before +after):\n%s", d)
		}
		again, diags := spec.Format("x.yaml", out)
		if d := cmp.Diff(string(out), string(again)); d != "" {
			t.Errorf("formatting twice is different (-once +twice):\n%s\n%v", d, diags)
		}
	})
}

func FuzzParams(f *testing.F) {
	for _, p := range []struct{ file, name, value string }{
		{"port: 80\nname: x\n", "port", "8080"},
		{"{\"names\": [a, 1]}", "names", "[a, {b: 1}]"},
		{"flag: yes", "flag", "true"},
		{"ratio: .inf", "ratio", "1e400"},
		{"", "names", "a,b,,c"},
		{"- a", "prot", "-0"},
		{"name: 2024-01-02", "name", "\x00\xff"},
	} {
		f.Add([]byte(p.file), p.name, p.value)
	}
	c := catalog(f)
	pipeline := expressionFile("params.port")
	file, diags := spec.Parse("x.yaml", pipeline, c)
	if file == nil || diags.HasErrors() {
		f.Fatal(diags)
	}
	f.Fuzz(func(t *testing.T, src []byte, name, value string) {
		values, diags := spec.ParseParams("params.yaml", src)
		checkDiagnostics(t, src, diags)
		if diags.HasErrors() != (values == nil) {
			t.Errorf("values %v with %v", values, diags)
		}
		pipelines, diags := file.Resolve(spec.Inputs{Params: map[string]string{name: value}, ParamValues: values})
		checkDiagnostics(t, pipeline, diags)
		for _, p := range pipelines {
			if _, ok := p.Params["port"].(int64); !ok {
				t.Errorf("port is %T", p.Params["port"])
			}
		}
	})
}
