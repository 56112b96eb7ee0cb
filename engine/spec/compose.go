package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
)

// ComposedSchema returns one JSON Schema for all of a pipeline file, for editors: what
// `with` may hold depends on what `uses` says, and an expression may stand wherever one
// is evaluated. [Parse] itself checks in two passes, which gives better messages.
func ComposedSchema(c *Catalog) []byte {
	root := decodeObject(schemas.Pipeline())
	defs := root["$defs"].(map[string]any)
	kind := defs["step"].(map[string]any)
	props := kind["properties"].(map[string]any)
	keepStatic(root["properties"].(map[string]any), "params", "secrets", "matrix", "gild", "name", "builder")
	keepStatic(props, "id", "uses", "needs")
	// Definitions that only stand in parts without expressions stay as they are.
	for name, def := range defs {
		if !slices.Contains([]string{"identifier", "param", "secret"}, name) {
			defs[name] = allowExpressions(def)
		}
	}
	root["properties"] = allowExpressions(root["properties"])
	for _, name := range c.names {
		schema := decodeObject(c.kinds[name].step.Schema)
		delete(schema, "$schema")
		delete(schema, "$id")
		defs[withDef(name)] = moveRefs(allowExpressions(schema), "#/$defs/"+pointerEscaper.Replace(withDef(name)))
	}
	lists := map[step.Section]map[string]any{
		step.Customize: root["properties"].(map[string]any)["customize"].(map[string]any),
		step.Tests:     root["properties"].(map[string]any)["tests"].(map[string]any),
		step.Publish:   defs["publish"].(map[string]any)["properties"].(map[string]any)["to"].(map[string]any),
	}
	for section, list := range lists {
		list["items"] = map[string]any{"$ref": "#/$defs/step-" + string(section)}
		defs["step-"+string(section)] = c.sectionStep(kind, props, section)
	}
	delete(defs, "step")
	return encodeObject(unkeep(root))
}

// sectionStep is the schema of a step in one section: the envelope's, with the steps
// that may stand there.
func (c *Catalog) sectionStep(kind, props map[string]any, section step.Section) map[string]any {
	var names, conditions []any
	for _, name := range c.names {
		s := c.kinds[name].step
		if !slices.Contains(s.Sections, section) {
			continue
		}
		names = append(names, map[string]any{"const": name, "description": s.Summary})
		then := map[string]any{"properties": map[string]any{"with": map[string]any{"$ref": "#/$defs/" + pointerEscaper.Replace(withDef(name))}}}
		if required, ok := decodeObject(s.Schema)["required"].([]any); ok && len(required) > 0 {
			then["required"] = []any{"with"}
		}
		conditions = append(conditions, map[string]any{
			"if":   map[string]any{"required": []any{"uses"}, "properties": map[string]any{"uses": map[string]any{"const": name}}},
			"then": then,
		})
	}
	uses := map[string]any{"description": props["uses"].(keptStatic).schema.(map[string]any)["description"], "type": "string"}
	if len(names) > 0 {
		uses["anyOf"] = append(names, map[string]any{"pattern": "/", "description": "A plugin's step."})
	}
	own := map[string]any{}
	for name, v := range props {
		own[name] = v
	}
	own["uses"] = uses
	s := map[string]any{}
	for name, v := range kind {
		s[name] = v
	}
	s["properties"] = own
	if len(conditions) > 0 {
		s["allOf"] = conditions
	}
	return s
}

func withDef(name string) string { return "with-" + name }

// keptStatic wraps a schema that [allowExpressions] must not look into.
type keptStatic struct{ schema any }

func keepStatic(properties map[string]any, names ...string) {
	for _, name := range names {
		properties[name] = keptStatic{properties[name]}
	}
}

// unkeep removes the wrappers again.
func unkeep(v any) any {
	switch v := v.(type) {
	case keptStatic:
		return v.schema
	case map[string]any:
		for name, field := range v {
			v[name] = unkeep(field)
		}
	case []any:
		for i, item := range v {
			v[i] = unkeep(item)
		}
	}
	return v
}

const expressionPattern = `\$\{\{`

// allowExpressions lets every scalar of a schema also be a string with an expression.
func allowExpressions(v any) any {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			v[i] = allowExpressions(item)
		}
	case map[string]any:
		for name, field := range v {
			switch name {
			case "enum", "const", "default", "examples", "required", "if", "propertyNames", "description":
			default:
				v[name] = allowExpressions(field)
			}
		}
		if restricted(v) {
			return orExpression(v)
		}
	}
	return v
}

// restricted tells whether a schema of a scalar refuses strings with expressions.
func restricted(schema map[string]any) bool {
	switch schema["type"] {
	case "integer", "number", "boolean":
		return true
	case "string":
		for _, keyword := range []string{"enum", "const", "pattern", "maxLength"} {
			if _, ok := schema[keyword]; ok {
				return true
			}
		}
	}
	return false
}

func orExpression(schema map[string]any) any {
	expression := map[string]any{"type": "string", "pattern": expressionPattern}
	either := map[string]any{"anyOf": []any{schema, expression}}
	if description, ok := schema["description"]; ok {
		// Editors show the description of the alternative that fits.
		expression["description"], either["description"] = description, description
	}
	if v, ok := schema["default"]; ok {
		either["default"] = v
	}
	return either
}

// moveRefs makes references within a schema work from its place in a larger one.
func moveRefs(v any, to string) any {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			v[i] = moveRefs(item, to)
		}
	case map[string]any:
		for name, field := range v {
			if ref, ok := field.(string); ok && name == "$ref" && strings.HasPrefix(ref, "#") {
				v[name] = to + strings.TrimPrefix(ref, "#")
				continue
			}
			v[name] = moveRefs(field, to)
		}
	}
	return v
}

// decodeObject decodes a schema that has been compiled before.
func decodeObject(text []byte) map[string]any {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		panic(fmt.Sprintf("spec: decode a compiled schema: %v", err))
	}
	return object
}

func encodeObject(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("spec: encode a schema: %v", err))
	}
	return b.Bytes()
}
