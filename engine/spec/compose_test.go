package spec_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
)

// editorSchema compiles the composed schema the way an editor does: without gild's formats.
func editorSchema(t *testing.T, c *spec.Catalog) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.Draft = jsonschema.Draft2020
	if err := compiler.AddResource("gild:///composed", bytes.NewReader(spec.ComposedSchema(c))); err != nil {
		t.Fatal(err)
	}
	s, err := compiler.Compile("gild:///composed")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestComposedSchemaAccepts(t *testing.T) {
	t.Parallel()
	s := editorSchema(t, catalog(t))
	for _, path := range files(t, "testdata/good/*.yaml") {
		value, diags := spec.ParseParams(path, readFile(t, path))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if err := s.Validate(value); err != nil {
			t.Errorf("%s: %#v", path, err)
		}
	}
}

func TestComposedSchemaTellsSteps(t *testing.T) {
	t.Parallel()
	s := editorSchema(t, catalog(t))
	cases := []struct {
		name, src string
		ok        bool
	}{
		{"a key of the step", "customize: [{uses: packages, with: {install: [x], recommends: true}}]", true},
		{"a key of another step", "customize: [{uses: packages, with: {install: [x], to: /x}}]", false},
		{"no with where it is needed", "customize: [{uses: packages}]", false},
		{"no with where it isn't", "customize: [{uses: sleep}]", true},
		{"a step that can't stand there", "customize: [{uses: boot}]", false},
		{"a step that doesn't exist", "customize: [{uses: pakages, with: {}}]", false},
		{"a plugin", "customize: [{uses: acme/agent, with: {x: 1}}]", true},
		{"an expression for a boolean", `customize: [{uses: packages, with: {install: [x], recommends: "${{ params.x }}"}}]`, true},
		{"text for a boolean", `customize: [{uses: packages, with: {install: [x], recommends: "true"}}]`, false},
		{"an expression for a text with a pattern", `customize: [{uses: file, with: {to: "${{ params.x }}", content: x}}]`, true},
		{"a text that doesn't match", `customize: [{uses: file, with: {to: x, content: x}}]`, false},
		{"an expression for a number of the envelope", `retain: {keep: "${{ params.x }}"}`, true},
		{"an expression where none is evaluated", `name: "${{ params.x }}"`, false},
		{"an unknown key", "custmize: []", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			src := header + c.src
			if strings.HasPrefix(c.src, "name:") {
				src = strings.Replace(header, "name: web\n", "", 1) + c.src
			}
			value, diags := spec.ParseParams("x.yaml", []byte(src))
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			if err := s.Validate(value); (err == nil) != c.ok {
				t.Errorf("valid: %t, want %t (%v)", err == nil, c.ok, err)
			}
		})
	}
}

// TestComposedSchemaDescribesEveryField keeps the hover text in editors whole.
func TestComposedSchemaDescribesEveryField(t *testing.T) {
	t.Parallel()
	var root map[string]any
	if err := json.Unmarshal(spec.ComposedSchema(catalog(t)), &root); err != nil {
		t.Fatal(err)
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		object, ok := v.(map[string]any)
		if !ok {
			return
		}
		for name, part := range object {
			fields, ok := part.(map[string]any)
			if name == "properties" && ok && !strings.Contains(at, "/if") && !strings.Contains(at, "/then") && !strings.Contains(at, "/allOf") {
				for field, schema := range fields {
					if s := schema.(map[string]any); s["description"] == nil && s["$ref"] == nil {
						t.Errorf("%s/properties/%s has no description", at, field)
					}
				}
			}
			walk(at+"/"+name, part)
		}
	}
	walk("#", root)
}

func TestComposedSchemaIsStable(t *testing.T) {
	t.Parallel()
	c := catalog(t)
	if d := cmp.Diff(string(spec.ComposedSchema(c)), string(spec.ComposedSchema(c))); d != "" {
		t.Errorf("the second is different:\n%s", d)
	}
}

// TestBuiltInSchemas checks that every step schema there is can be used.
func TestBuiltInSchemas(t *testing.T) {
	t.Parallel()
	var all []step.Step
	for _, name := range schemas.Steps() {
		all = append(all, step.Step{Name: name, Schema: schemas.Step(name), Sections: []step.Section{step.Customize, step.Tests}})
	}
	c, err := spec.NewCatalog(all)
	if err != nil {
		t.Fatal(err)
	}
	editorSchema(t, c)
}
