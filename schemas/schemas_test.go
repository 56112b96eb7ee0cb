package schemas_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/schemas"
)

func all() map[string][]byte {
	m := map[string][]byte{"pipeline": schemas.Pipeline()}
	for _, name := range schemas.Steps() {
		m["steps/"+name] = schemas.Step(name)
	}
	return m
}

func TestSchemasCompile(t *testing.T) {
	t.Parallel()
	for name, text := range all() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := jsonschema.NewCompiler()
			c.Draft = jsonschema.Draft2020
			if err := c.AddResource("gild:///"+name, bytes.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Compile("gild:///" + name); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestEveryFieldIsDescribed keeps hover text in editors, and hints in diagnostics, whole.
func TestEveryFieldIsDescribed(t *testing.T) {
	t.Parallel()
	for name, text := range all() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var root map[string]any
			if err := json.Unmarshal(text, &root); err != nil {
				t.Fatal(err)
			}
			w := walker{t: t, root: root}
			w.described("#", root)
			w.walk("#", root)
		})
	}
}

// walker looks at every schema within a schema.
type walker struct {
	t    *testing.T
	root map[string]any
}

func (w walker) walk(at string, schema map[string]any) {
	for _, keyword := range []string{"properties", "patternProperties", "$defs"} {
		parts, _ := schema[keyword].(map[string]any)
		for name, part := range parts {
			if s, ok := part.(map[string]any); ok {
				w.described(at+"/"+keyword+"/"+name, s)
				w.walk(at+"/"+keyword+"/"+name, s)
			}
		}
	}
	for _, keyword := range []string{"items", "additionalProperties"} {
		if s, ok := schema[keyword].(map[string]any); ok {
			w.described(at+"/"+keyword, s)
			w.walk(at+"/"+keyword, s)
		}
	}
}

func (w walker) described(at string, schema map[string]any) {
	if ref, ok := schema["$ref"].(string); ok {
		schema = w.resolve(ref)
	}
	text, _ := schema["description"].(string)
	if len(strings.TrimSpace(text)) < 4 {
		w.t.Errorf("%s has no description", at)
	}
}

func (w walker) resolve(ref string) map[string]any {
	s := w.root
	for token := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		next, ok := s[token].(map[string]any)
		if !ok {
			w.t.Fatalf("reference %s leads nowhere", ref)
		}
		s = next
	}
	return s
}

// TestEnvelopeIsClosed finds objects that would let a misspelt key pass.
func TestEnvelopeIsClosed(t *testing.T) {
	t.Parallel()
	var root map[string]any
	if err := json.Unmarshal(schemas.Pipeline(), &root); err != nil {
		t.Fatal(err)
	}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		object, ok := v.(map[string]any)
		if !ok {
			return
		}
		if _, ok := object["properties"].(map[string]any); ok && object["additionalProperties"] == nil {
			t.Errorf("%s takes any key", at)
		}
		for name, part := range object {
			walk(at+"/"+name, part)
		}
	}
	walk("#", root)
}

func TestStepPanicsForAnUnknownName(t *testing.T) {
	t.Parallel()
	if !slices.IsSorted(schemas.Steps()) {
		t.Errorf("Steps() = %v, not sorted", schemas.Steps())
	}
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), "no-such-step") {
			t.Errorf("recovered %v", p)
		}
	}()
	schemas.Step("no-such-step")
}
