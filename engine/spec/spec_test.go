package spec_test

import (
	"sync"
	"testing"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// steps are small stand-ins, so that these tests don't depend on any built-in step.
func steps() []step.Step {
	machine := []step.Section{step.Customize}
	tests := []step.Section{step.Tests}
	return []step.Step{
		{
			Name: "packages", Sections: machine,
			Schema: []byte(`{"type": "object", "description": "d", "additionalProperties": false, "required": ["install"], "properties": {
				"install": {"description": "Packages to install.", "type": "array", "minItems": 1, "items": {"description": "A package.", "type": "string"}},
				"recommends": {"description": "Whether recommended packages are installed too.", "type": "boolean"}}}`),
			Outputs: map[string]string{"installed": "list", "count": "integer"},
		},
		{
			Name: "file", Sections: machine,
			Schema: []byte(`{"type": "object", "description": "d", "additionalProperties": false, "required": ["to"], "properties": {
				"to": {"description": "Where.", "type": "string", "pattern": "^/"},
				"content": {"description": "What.", "type": "string"},
				"from": {"description": "A file.", "type": "string", "format": "gild-path"},
				"mode": {"description": "Permission bits, in quotes.", "type": "string", "pattern": "^0[0-7]{3}$"}},
				"oneOf": [{"required": ["content"]}, {"required": ["from"]}]}`),
			Outputs: map[string]string{"sha256": "string"},
		},
		{
			Name: "shell", Sections: []step.Section{step.Customize, step.Tests},
			Schema: []byte(`{"type": "object", "description": "d", "additionalProperties": false, "required": ["run"], "properties": {
				"run": {"description": "A script.", "type": "string", "format": "gild-script"},
				"args": {"description": "Arguments.", "type": "array", "items": {"description": "One.", "type": ["string", "integer"]}},
				"level": {"description": "How loud.", "type": "integer", "minimum": 0, "maximum": 9},
				"workdir": {"description": "Where.", "type": "string"}}}`),
			Outputs: map[string]string{"stdout": "string", "exit-status": "integer"},
		},
		{
			Name: "boot", Sections: tests,
			Schema: []byte(`{"type": "object", "description": "d", "additionalProperties": false, "properties": {
				"within": {"description": "How long.", "type": "string", "format": "gild-duration"}}}`),
			Outputs: map[string]string{"seconds": "number"},
		},
		{
			Name: "sleep", Sections: []step.Section{step.Customize, step.Tests},
			Schema:  []byte(`{"type": "object", "description": "d", "additionalProperties": false}`),
			Outputs: map[string]string{},
		},
	}
}

var compiled = sync.OnceValues(func() (*spec.Catalog, error) { return spec.NewCatalog(steps()) })

// catalog is the catalog of all tests, compiled once: it is safe for concurrent use.
func catalog(t testing.TB) *spec.Catalog {
	t.Helper()
	c, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
