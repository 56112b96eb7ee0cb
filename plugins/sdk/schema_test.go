package sdk_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/sdk"
)

//go:embed schema_test.go
var source string

var update = flag.Bool("update", false, "rewrite golden files")

// rich has a field of every kind.
type rich struct {
	common
	// Name of the service,
	// over two lines.
	Name string `json:"name" jsonschema:"minLength=1,pattern=^[a-z]+$"`
	Port int    `json:"port,omitempty" jsonschema:"minimum=1,maximum=65535,default=80"` // To listen on.
	// Kind says what it is.
	Kind    string            `json:"kind,omitempty" jsonschema:"enum=simple,enum=forking"`
	Config  string            `json:"config" jsonschema:"format=gild-path"`
	Script  string            `json:"script,omitempty" jsonschema:"format=gild-script"`
	Files   []string          `json:"files,omitempty" jsonschema:"format=gild-path,minItems=1"`
	Wait    sdk.Duration      `json:"wait,omitzero"`
	Within  *sdk.Duration     `json:"within"`
	Size    string            `json:"size,omitempty" jsonschema:"format=gild-size"`
	Ratio   float64           `json:"ratio,omitempty"`
	Force   *bool             `json:"force"`
	Labels  map[string]string `json:"labels,omitempty"`
	Any     any               `json:"any,omitempty"`
	Nested  nested            `json:"nested"`
	Pointer *nested           `json:"pointer"`
	List    []nested          `json:"list,omitempty"`
	ByName  map[string]nested `json:"by_name,omitempty"`
	Bare    string
	hidden  int
	Ignored string `json:"-"`
	// Described has a comment, but its tag says more.
	Described string `json:"described,omitempty" jsonschema_description:"From the tag."`
}

type common struct {
	// Enabled is embedded.
	Enabled bool `json:"enabled,omitempty"`
}

type nested struct {
	// Path is inside.
	Path string `json:"path"`
	// Mode is optional.
	Mode *int `json:"mode"`
}

func nothing[C any](context.Context, *sdk.Target, C) (struct{}, error) { return struct{}{}, nil }

func TestSchema(t *testing.T) {
	t.Parallel()
	s := sdk.Define(sdk.Step{Name: "acme/rich", Summary: "have everything"}, nothing[rich], sdk.Source(source))
	const golden = "testdata/rich.json"
	if *update {
		if err := os.WriteFile(golden, append(s.Schema, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(s.Schema)+"\n"); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	// The engine takes it as it takes those of built-in steps.
	if _, err := spec.NewCatalog([]step.Step{s}); err != nil {
		t.Error(err)
	}
	_ = rich{}.hidden
}

// TestSchemaMatchesDecoding sends configs through the schema and the decoder of a step:
// what one takes the other takes too.
func TestSchemaMatchesDecoding(t *testing.T) {
	t.Parallel()
	s := sdk.Define(sdk.Step{Name: "acme/rich", Summary: "have everything"}, nothing[rich], sdk.Source(source))
	for config, want := range map[string]bool{
		`{"name": "a", "config": "./x", "nested": {"path": "p"}, "Bare": ""}`:                                                         true,
		`{"name": "a", "config": "./x", "nested": {"path": "p"}, "Bare": "", "wait": "5m", "within": "1h", "force": true, "port": 8}`: true,
		`{"name": "a", "config": "./x", "nested": {"path": "p", "more": 1}, "Bare": ""}`:                                              false,
		`{"name": "a", "config": "./x", "nested": {"path": "p"}, "Bare": "", "ignored": "x"}`:                                         false,
		`{"name": 1, "config": "./x", "nested": {"path": "p"}, "Bare": ""}`:                                                           false,
	} {
		var value any
		if err := json.Unmarshal([]byte(config), &value); err != nil {
			t.Fatal(err)
		}
		schemaErr := validateSchema(t, s.Schema, value)
		_, runErr := s.Run(t.Context(), &sdk.Target{}, []byte(config))
		if (schemaErr == nil) != want || (runErr == nil) != want {
			t.Errorf("%s: the schema says %v, the step %v", config, schemaErr, runErr)
		}
	}
}

func TestOwnSchemaAndDoc(t *testing.T) {
	t.Parallel()
	own := sdk.Step{Name: "acme/x", Summary: "x", Doc: "help", Schema: []byte(`{"type": "object"}`), Outputs: map[string]string{"a": "list"}}
	s := sdk.Define(own, nothing[chan int], sdk.Source("// Package x.\npackage x\n"))
	if s.Doc != "help" || string(s.Schema) != `{"type": "object"}` || s.Outputs["a"] != "list" {
		t.Errorf("what the step says of itself was replaced: %+v", s)
	}
	s = sdk.Define(sdk.Step{Name: "acme/x"}, nothing[struct{}], sdk.Source("package x\n", "// Package x does\n//\n//\tthis: too\npackage x\n"))
	if want := "Package x does\n\n\tthis: too\n"; s.Doc != want {
		t.Errorf("the doc is %q, want %q", s.Doc, want)
	}
}

type recursive struct {
	Inner []recursive `json:"inner,omitempty"`
}

// TestDefineRefuses asks each mistake for a panic that says what it is.
func TestDefineRefuses(t *testing.T) {
	t.Parallel()
	meta := sdk.Step{Name: "acme/x"}
	outputs := func(context.Context, *sdk.Target, struct{}) (o struct{ M map[string]int }, err error) { return o, nil }
	for want, define := range map[string]func(){
		`define step "acme/x": the config is a string, not a struct`:                           func() { sdk.Define(meta, nothing[string]) },
		"field Inner: the type sdk_test.recursive contains itself":                             func() { sdk.Define(meta, nothing[recursive]) },
		"field C: a chan int can't come out of YAML":                                           func() { sdk.Define(meta, nothing[struct{ C chan int }]) },
		"field D: a time.Duration is a number of nanoseconds in JSON; use sdk.Duration":        func() { sdk.Define(meta, nothing[struct{ D time.Duration }]) },
		"field M: the keys of map[int]string are no strings":                                   func() { sdk.Define(meta, nothing[struct{ M map[int]string }]) },
		`the output "M": a map[string]int is neither a string, a number, a boolean nor a list`: func() { sdk.Define(meta, outputs) },
		"read the comments: source 1:1:1: expected 'package'":                                  func() { sdk.Define(meta, nothing[struct{}], sdk.Source("no Go")) },
		"the outputs are a int, not a struct; use struct{} for none":                           func() { sdk.Define(meta, func(context.Context, *sdk.Target, struct{}) (int, error) { return 0, nil }) },
	} {
		func() {
			defer func() {
				got, _ := recover().(string)
				if !strings.Contains(got, want) {
					t.Errorf("got the panic %q, want %q", got, want)
				}
			}()
			define()
		}()
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := sdk.Define(sdk.Step{Name: "acme/x", Summary: "do x", Sections: []sdk.Section{sdk.Customize}}, nothing[struct{}])
	with := func(change func(*sdk.Step)) []sdk.Step {
		s := good
		change(&s)
		return []sdk.Step{s}
	}
	for name, tc := range map[string]struct {
		plugin sdk.Plugin
		want   string
	}{
		"good":             {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: []sdk.Step{good}}, ""},
		"further part":     {sdk.Plugin{Name: "acme/x", Version: "1.0.0-rc.1", Steps: with(func(s *sdk.Step) { s.Name = "acme/x/part" })}, ""},
		"name":             {sdk.Plugin{Name: "Acme", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Name = "Acme" })}, `the plugin's name "Acme" is not like acme/agent: lower-case letters, digits and dashes`},
		"version":          {sdk.Plugin{Name: "acme/x", Version: "1", Steps: []sdk.Step{good}}, `the plugin's version "1" is not like 1.2.0`},
		"no steps":         {sdk.Plugin{Name: "acme/x", Version: "1.0.0"}, "the plugin has no steps"},
		"twice":            {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: []sdk.Step{good, good}}, `two steps have the name "acme/x"`},
		"another's name":   {sdk.Plugin{Name: "acme/y", Version: "1.0.0", Steps: []sdk.Step{good}}, `step "acme/x": its name is neither "acme/y" nor begins with "acme/y/"`},
		"nearly its name":  {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Name = "acme/xx" })}, `step "acme/xx": its name is neither "acme/x" nor begins with "acme/x/"`},
		"no summary":       {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Summary = "" })}, `step "acme/x": it needs a summary of one line`},
		"no section":       {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Sections = nil })}, `step "acme/x": it has no section to stand in: customize, tests or publish`},
		"wrong section":    {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Sections = []sdk.Section{step.Seal} })}, `step "acme/x": it can't stand in the section "seal": a plugin's step stands in customize, tests or publish`},
		"both ways":        {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Sections = []sdk.Section{sdk.Customize, sdk.Tests} })}, `step "acme/x": it stands in customize and elsewhere: a step changes a machine or works on an image, not both; make it two`},
		"type of output":   {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Outputs = map[string]string{"a": "map"} })}, `step "acme/x": its output "a" has the type "map", not one of string, integer, number, boolean, list`},
		"schema":           {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Schema = []byte("[]") })}, `step "acme/x": its schema is no JSON object: json: cannot unmarshal array into Go value of type map[string]interface {}`},
		"schema of a list": {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Schema = []byte(`{"type": "array"}`) })}, `step "acme/x": its schema must have "type": "object", for that is what "with" is`},
		"nothing to run":   {sdk.Plugin{Name: "acme/x", Version: "1.0.0", Steps: with(func(s *sdk.Step) { s.Run = nil })}, `step "acme/x": it has no function to run`},
	} {
		got := ""
		if err := tc.plugin.Check(); err != nil {
			got = err.Error()
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
}

// FuzzSource takes any text as source.
func FuzzSource(f *testing.F) {
	f.Add(source)
	f.Add("package x\ntype rich struct { A, B int; nested }")
	f.Add("package x\ntype (\n// T\nT = struct{ F func() struct{ X int } }\n)")
	f.Fuzz(func(t *testing.T, text string) {
		defer func() {
			if p := recover(); p != nil && !strings.Contains(p.(string), "read the comments") {
				t.Errorf("panic: %v", p)
			}
		}()
		s := sdk.Define(sdk.Step{Name: "acme/x"}, nothing[rich], sdk.Source(text))
		if !json.Valid(s.Schema) {
			t.Errorf("no JSON: %s", s.Schema)
		}
	})
}
