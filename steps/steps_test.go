package steps_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps"
	"github.com/gildhq/gild/steps/boot"
	"github.com/gildhq/gild/steps/check"
	"github.com/gildhq/gild/steps/command"
	"github.com/gildhq/gild/steps/copy"
	"github.com/gildhq/gild/steps/download"
	"github.com/gildhq/gild/steps/file"
	"github.com/gildhq/gild/steps/hostname"
	"github.com/gildhq/gild/steps/http"
	"github.com/gildhq/gild/steps/kernelargs"
	"github.com/gildhq/gild/steps/packages"
	"github.com/gildhq/gild/steps/publish"
	"github.com/gildhq/gild/steps/retain"
	"github.com/gildhq/gild/steps/seal"
	"github.com/gildhq/gild/steps/service"
	"github.com/gildhq/gild/steps/shell"
	"github.com/gildhq/gild/steps/user"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v5"
	"gopkg.in/yaml.v3"
)

// types are the Go types of each step's `with` and outputs.
var types = map[string]struct{ config, outputs any }{
	"check":       {check.Config{}, struct{}{}},
	"boot":        {boot.Config{}, boot.Outputs{}},
	"command":     {command.Config{}, struct{}{}},
	"copy":        {copy.Config{}, copy.Outputs{}},
	"download":    {download.Config{}, struct{}{}},
	"hostname":    {hostname.Config{}, struct{}{}},
	"kernel-args": {kernelargs.Config{}, struct{}{}},
	"service":     {service.Config{}, struct{}{}},
	"user":        {user.Config{}, struct{}{}},
	"file":        {file.Config{}, struct{}{}},
	"http":        {http.Config{}, struct{}{}},
	"packages":    {packages.Config{}, struct{}{}},
	"publish":     {publish.Config{}, publish.Outputs{}},
	"retain":      {retain.Config{}, retain.Outputs{}},
	"seal":        {seal.Config{}, struct{}{}},
	"shell":       {shell.Config{}, shell.Outputs{}},
}

func TestListed(t *testing.T) {
	t.Parallel()
	var names []string
	for _, s := range steps.All() {
		names = append(names, s.Name)
		if s.Run == nil || s.Summary == "" || s.Version == "" || len(s.Sections) == 0 || s.Effect == "" {
			t.Errorf("%s: its declaration isn't complete", s.Name)
		}
	}
	slices.Sort(names)
	if d := cmp.Diff(schemas.Steps(), names); d != "" {
		t.Errorf("schemas and steps differ (-schemas +steps)\n%s", d)
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(types)), names); d != "" {
		t.Errorf("this test's types and steps differ (-types +steps)\n%s", d)
	}
}

// TestExamples validates every YAML example of a step's help against its schema, so that
// what the help shows can be copied.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, s := range steps.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			schema := compile(t, s)
			n := 0
			for _, example := range examples(t, s) {
				var pipeline map[string]any
				if err := yaml.Unmarshal([]byte(example), &pipeline); err != nil {
					t.Fatalf("%v in\n%s", err, example)
				}
				for _, with := range withs(t, s, pipeline) {
					n++
					if err := schema.Validate(with); err != nil {
						t.Errorf("%#v in\n%s", err, example)
					}
				}
			}
			// A pipeline file can't name the step that the engine puts in front of every disk.
			if sealing := slices.Equal(s.Sections, []step.Section{step.Seal}); (n > 0) == sealing {
				t.Errorf("the help shows %d uses of the step", n)
			}
		})
	}
}

// expression is what is evaluated before a value reaches the schema.
var expression = regexp.MustCompile(`\$\{\{.*?\}\}`)

// examples returns the indented blocks of a step's help.
func examples(t *testing.T, s step.Step) []string {
	t.Helper()
	var blocks []string
	for block := range strings.SplitSeq(expression.ReplaceAllString(s.Doc, "x"), "\n\n") {
		if strings.HasPrefix(block, "\t") {
			blocks = append(blocks, strings.TrimPrefix(strings.ReplaceAll(block, "\n\t", "\n"), "\t"))
		}
	}
	return blocks
}

// withs finds what each use of a step in a pipeline passes to it. The engine makes the steps
// of publish, copy and retain from the sections of those names.
func withs(t *testing.T, s step.Step, pipeline map[string]any) []any {
	t.Helper()
	var found []any
	for section, content := range pipeline {
		if !slices.Contains(s.Sections, step.Section(section)) {
			t.Errorf("the help shows the step in the section %s, where it can't stand", section)
		}
		switch content := content.(type) {
		case []any:
			for _, entry := range content {
				use, ok := entry.(map[string]any)
				if !ok || use["uses"] != s.Name {
					t.Errorf("the help shows %v in a list of steps", entry)
					continue
				}
				with, given := use["with"]
				if !given {
					with = map[string]any{}
				}
				found = append(found, with)
			}
		case map[string]any:
			if regions, ok := content["regions"].([]any); ok {
				for _, region := range regions {
					found = append(found, map[string]any{"region": region})
				}
				continue
			}
			found = append(found, content)
		}
	}
	return found
}

func compile(t *testing.T, s step.Step) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft2020
	if err := c.AddResource(s.Name+".json", bytes.NewReader(s.Schema)); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(s.Name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaMatchesStruct compares the fields of each schema with those of the struct that
// the step decodes, at every depth.
func TestSchemaMatchesStruct(t *testing.T) {
	t.Parallel()
	for _, s := range steps.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			var schema map[string]any
			if err := json.Unmarshal(s.Schema, &schema); err != nil {
				t.Fatal(err)
			}
			compareFields(t, "with", schema, schema, reflect.TypeOf(types[s.Name].config))
		})
	}
}

func compareFields(t *testing.T, at string, root, schema map[string]any, typ reflect.Type) {
	t.Helper()
	if ref, ok := schema["$ref"].(string); ok {
		defs := root["$defs"].(map[string]any)
		schema = defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch {
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return // it reads a scalar, or one of several forms; its own test covers it
	case typ.Kind() == reflect.Slice:
		items, ok := schema["items"].(map[string]any)
		if !ok {
			t.Fatalf("%s: a list without items", at)
		}
		compareFields(t, at+"[]", root, items, typ.Elem())
	case typ.Kind() == reflect.Map:
		values, ok := schema["additionalProperties"].(map[string]any)
		if !ok {
			t.Fatalf("%s: a map whose values aren't described", at)
		}
		compareFields(t, at+".*", root, values, typ.Elem())
	case typ.Kind() == reflect.Struct:
		compareStruct(t, at, root, schema, typ)
	default:
		want := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number"}[typ.Kind()]
		if schema["type"] != want {
			t.Errorf("%s: the schema says %v, the struct %s", at, schema["type"], typ)
		}
	}
}

func compareStruct(t *testing.T, at string, root, schema map[string]any, typ reflect.Type) {
	t.Helper()
	if schema["additionalProperties"] != false {
		t.Errorf("%s: additionalProperties isn't false", at)
	}
	properties, ok := schema["properties"].(map[string]any)
	if !ok {
		t.Fatalf("%s: no properties", at)
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(typ) {
		if !f.Anonymous {
			fields[f.Tag.Get("json")] = f.Type
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(fields))); d != "" {
		t.Errorf("%s: (-schema +struct)\n%s", at, d)
	}
	for name, field := range fields {
		if p, ok := properties[name].(map[string]any); ok {
			compareFields(t, at+"."+name, root, p, field)
		}
	}
}

// TestSchemasAreDescribed asserts what an editor shows: every field has a description, as a
// sentence, and every name is in kebab case.
func TestSchemasAreDescribed(t *testing.T) {
	t.Parallel()
	for _, s := range steps.All() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			var schema map[string]any
			if err := json.Unmarshal(s.Schema, &schema); err != nil {
				t.Fatal(err)
			}
			if schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" || schema["title"] != s.Name {
				t.Error("$schema or title is wrong")
			}
			describe(t, s.Name, schema)
		})
	}
}

var kebab = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func describe(t *testing.T, at string, schema map[string]any) {
	t.Helper()
	// What it refers to is described itself.
	if text, _ := schema["description"].(string); text == "" && schema["$ref"] == nil {
		t.Errorf("%s has no description", at)
	}
	for _, group := range []string{"properties", "$defs"} {
		members, _ := schema[group].(map[string]any)
		for name, sub := range members {
			if !kebab.MatchString(name) {
				t.Errorf("%s.%s is not in kebab case", at, name)
			}
			describe(t, at+"."+name, sub.(map[string]any))
		}
	}
	for _, member := range []string{"items", "additionalProperties"} {
		if sub, ok := schema[member].(map[string]any); ok {
			describe(t, at+"."+member, sub)
		}
	}
}

// TestOutputs compares declared outputs with the fields of the struct that the step returns.
func TestOutputs(t *testing.T) {
	t.Parallel()
	for _, s := range steps.All() {
		got := map[string]string{}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(types[s.Name].outputs)) {
			got[f.Tag.Get("json")] = map[reflect.Kind]string{
				reflect.String: "string", reflect.Int: "integer", reflect.Float64: "number", reflect.Bool: "boolean", reflect.Slice: "list",
			}[f.Type.Kind()]
		}
		want := s.Outputs
		if want == nil {
			want = map[string]string{}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-declared +struct)\n%s", s.Name, d)
		}
	}
}

// TestHelp asserts that what `gild` shows is what Go's documentation shows.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, s := range steps.All() {
		dir := strings.ReplaceAll(s.Name, "-", "")
		f, err := parser.ParseFile(token.NewFileSet(), dir+"/doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		if d := cmp.Diff(f.Doc.Text(), s.Doc); d != "" {
			t.Errorf("%s (-package comment +help)\n%s", s.Name, d)
		}
		if want := fmt.Sprintf("Package %s is the ", dir); !strings.HasPrefix(s.Doc, want) {
			t.Errorf("%s: the help doesn't begin with %q", s.Name, want)
		}
	}
}
