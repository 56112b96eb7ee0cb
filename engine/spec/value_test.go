package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

const header = "gild: 1\nname: web\nrelease: 1.2.3\nbase: debian/12\n"

// resolve returns the images of a file that must be right.
func resolve(t *testing.T, src string, in spec.Inputs) []*spec.Pipeline {
	t.Helper()
	pipelines, diags := validate("x.yaml", []byte(src), catalog(t), in)
	if diags.HasErrors() {
		t.Fatalf("unexpected diagnostics: %v", diags)
	}
	return pipelines
}

// steps of the files below: a shell with outputs, then the one under test.
func lastStep(t *testing.T, with string) spec.Step {
	t.Helper()
	src := header + `
params:
  port: {type: integer, default: 80}
  names: {type: list, default: [a, b]}
  flag: {type: boolean, default: true}
secrets: {key: {env: KEY}, other: {env: OTHER}}
customize:
  - {id: pre-flight, uses: shell, with: {run: x}}
  - {id: pkgs, uses: packages, with: {install: [x]}}
  - uses: shell
` + with
	s := resolve(t, src, spec.Inputs{})[0].Steps
	return s[len(s)-1]
}

func TestValueCanonical(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, with, want string }{
		{"keys are sorted", `    with: {workdir: /x, run: y}`, `{"run":"y","workdir":"/x"}`},
		{"quoting, spacing and comments don't matter", "    with:\n      # why\n      \"run\":   'y'\n      workdir: \"/\\x78\"", `{"run":"y","workdir":"/x"}`},
		{"numbers that are the same", `    with: {run: y, level: 1.0, args: [0x10, 1e1]}`, `{"args":[16,10],"level":1,"run":"y"}`},
		{"no with is an empty object", `    with: {run: y, args: []}`, `{"args":[],"run":"y"}`},
		{"a whole value keeps its type", `    with: {run: y, level: "${{ params.port - 79 }}", args: "${{ params.names }}"}`, `{"args":["a","b"],"level":1,"run":"y"}`},
		{"within a text it becomes text", `    with: {run: y, workdir: "/${{ params.port }}/${{ params.flag }}${{ nil }}"}`, `{"run":"y","workdir":"/80/true"}`},
		{"what waits is an object", `    with: {run: y, level: '${{steps.pre-flight.outputs.exit-status   +1}}'}`,
			`{"level":{"$wait":"${{steps[\"pre-flight\"].outputs[\"exit-status\"] + 1}}"},"run":"y"}`},
		{"with the values it depends on", `    with: {run: y, workdir: "/${{ params.port }}/${{ steps.pkgs.outputs.count + params.port }}"}`,
			`{"run":"y","workdir":{"$known":{"params.port":80},"$wait":"/80/${{steps.pkgs.outputs.count + params.port}}"}}`},
		{"a literal that looks like an expression", `    with: {run: y, workdir: "${{ '${{' }}x}}${{ steps.pkgs.outputs.count }}"}`,
			`{"run":"y","workdir":{"$wait":"${{\"${{\"}}x}}${{steps.pkgs.outputs.count}}"}}`},
		{"an alias is what it stands for", "    with: {run: &r y, workdir: *r}", `{"run":"y","workdir":"y"}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(c.want, string(lastStep(t, c.with).With.Canonical())); d != "" {
				t.Errorf("canonical (-want +got):\n%s", d)
			}
		})
	}
}

func TestValueCanonicalIsUnambiguous(t *testing.T) {
	t.Parallel()
	waits := lastStep(t, `    with: {run: y, workdir: "${{ steps.pkgs.outputs.count }}/"}`).With
	users := spec.NewValue(map[string]any{"run": "y", "workdir": map[string]any{"$wait": "${{steps.pkgs.outputs.count}}/"}})
	if string(waits.Canonical()) == string(users.Canonical()) {
		t.Errorf("both are %s", waits.Canonical())
	}
	if want := `{"run":"y","workdir":{"$$wait":"${{steps.pkgs.outputs.count}}/"}}`; string(users.Canonical()) != want {
		t.Errorf("got %s, want %s", users.Canonical(), want)
	}
}

func TestValueEval(t *testing.T) {
	t.Parallel()
	outputs := map[string]map[string]any{
		"pre-flight": {"stdout": "hello", "exit-status": float64(3)},
		"pkgs":       {"count": int64(2), "installed": []any{"a", "b"}},
	}
	secrets := map[string]string{"key": "hunter2", "other": "s"}
	cases := []struct {
		name, with string
		want       any
		err        string
	}{
		{"nothing to wait for", `    with: {run: y}`, map[string]any{"run": "y"}, ""},
		{"an integer that came as JSON's number", `    with: {run: y, level: "${{ steps.pre-flight.outputs.exit-status }}"}`, map[string]any{"run": "y", "level": int64(3)}, ""},
		{"a list", `    with: {run: y, args: "${{ steps.pkgs.outputs.installed }}"}`, map[string]any{"run": "y", "args": []any{"a", "b"}}, ""},
		{"text around it", `    with: {run: y, workdir: "/${{ steps.pre-flight.outputs.stdout }}/${{ params.port + steps.pkgs.outputs.count }}"}`, map[string]any{"run": "y", "workdir": "/hello/82"}, ""},
		{"functions", `    with: {run: y, workdir: "${{ upper(join(steps.pkgs.outputs.installed, '-')) }}"}`, map[string]any{"run": "y", "workdir": "A-B"}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := lastStep(t, c.with).With.Eval(outputs, secrets)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("value (-want +got):\n%s", d)
			}
		})
	}
}

func TestValueEvalFails(t *testing.T) {
	t.Parallel()
	with := `    with: {run: y, level: "${{ steps.pre-flight.outputs.exit-status }}"}`
	cases := []struct {
		name    string
		outputs map[string]map[string]any
		want    string
	}{
		{"no such step", nil, `step "pre-flight" gave no output "exit-status"`},
		{"no such output", map[string]map[string]any{"pre-flight": {}}, `step "pre-flight" gave no output "exit-status"`},
		{"another type", map[string]map[string]any{"pre-flight": {"exit-status": "3"}}, "expected an integer"},
		{"a fraction", map[string]map[string]any{"pre-flight": {"exit-status": 3.5}}, "expected an integer"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v, err := lastStep(t, with).With.Eval(c.outputs, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v and error %v, want one with %q", v, err, c.want)
			}
		})
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	s := lastStep(t, `    with: {run: y}
    env:
      PLAIN: x
      PORT: ${{ params.port }}
      FLAG: ${{ params.flag }}
      KEY: ${{ secrets.key }}
      BOTH: ${{ secrets.other }}:${{ secrets.key }}@${{ params.port }}
      COUNT: ${{ steps.pkgs.outputs.count }}`)
	want := map[string]struct {
		canonical      string
		secrets, steps []string
		value          any
	}{
		"PLAIN": {`"x"`, nil, nil, "x"},
		"PORT":  {`"80"`, nil, nil, "80"},
		"FLAG":  {`"true"`, nil, nil, "true"},
		"KEY":   {`{"$text":true,"$wait":"${{secrets.key}}"}`, []string{"key"}, nil, "hunter2"},
		"BOTH":  {`{"$text":true,"$wait":"${{secrets.other}}:${{secrets.key}}@80"}`, []string{"key", "other"}, nil, "s:hunter2@80"},
		"COUNT": {`{"$text":true,"$wait":"${{steps.pkgs.outputs.count}}"}`, nil, []string{"pkgs"}, "2"},
	}
	if len(s.Env) != len(want) {
		t.Errorf("env has %d variables, want %d", len(s.Env), len(want))
	}
	for name, w := range want {
		v := s.Env[name]
		if d := cmp.Diff(w.canonical, string(v.Canonical())); d != "" {
			t.Errorf("%s canonical (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(w.secrets, v.Secrets()); d != "" {
			t.Errorf("%s secrets (-want +got):\n%s", name, d)
		}
		if d := cmp.Diff(w.steps, v.Steps()); d != "" {
			t.Errorf("%s steps (-want +got):\n%s", name, d)
		}
		got, err := v.Eval(map[string]map[string]any{"pkgs": {"count": 2}}, map[string]string{"key": "hunter2", "other": "s"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(w.value, got); d != "" {
			t.Errorf("%s value (-want +got):\n%s", name, d)
		}
	}
	if _, err := s.Env["KEY"].Eval(nil, nil); err == nil || !strings.Contains(err.Error(), `the secret "key" is not known`) {
		t.Errorf("a missing secret gives %v", err)
	}
}

func TestValuePos(t *testing.T) {
	t.Parallel()
	src := header + `
customize:
  - uses: shell
    with:
      run: x
      args:
        - one
        - "two"
`
	v := resolve(t, src, spec.Inputs{})[0].Steps[0].With
	cases := map[string]diag.Pos{
		"":               {File: "x.yaml", Line: 9, Column: 7, Width: 1},
		"/run":           {File: "x.yaml", Line: 9, Column: 12, Width: 1},
		"/args/1":        {File: "x.yaml", Line: 12, Column: 11, Width: 5},
		"/args/9":        {File: "x.yaml", Line: 11, Column: 9, Width: 1},
		"/args/0/x/y":    {File: "x.yaml", Line: 11, Column: 11, Width: 3},
		"/nothing/there": {File: "x.yaml", Line: 9, Column: 7, Width: 1},
	}
	for pointer, want := range cases {
		if d := cmp.Diff(want, v.Pos(pointer)); d != "" {
			t.Errorf("%q (-want +got):\n%s", pointer, d)
		}
	}
	if pos := spec.NewValue(1).Pos("/x"); pos != (diag.Pos{}) {
		t.Errorf("a made value has the place %v", pos)
	}
}

func TestNewValue(t *testing.T) {
	t.Parallel()
	type config struct {
		B int    `json:"b"`
		A []bool `json:"a"`
	}
	cases := []struct {
		name string
		in   any
		want string
	}{
		{"nothing", nil, "null"},
		{"a struct", config{B: 2, A: []bool{true}}, `{"a":[true],"b":2}`},
		{"numbers", []any{1, int64(2), 3.0, 4.5, uint8(5), float32(0.5)}, `[1,2,3,4.5,5,0.5]`},
		{"nested", map[string]any{"x": map[string]int{"y": 1}}, `{"x":{"y":1}}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(c.want, string(spec.NewValue(c.in).Canonical())); d != "" {
				t.Errorf("canonical (-want +got):\n%s", d)
			}
		})
	}
	if got := string(spec.Value{}.Canonical()); got != "null" {
		t.Errorf("the zero Value is %s", got)
	}
}
