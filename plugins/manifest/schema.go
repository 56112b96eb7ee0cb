package manifest

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/spec"
	"github.com/santhosh-tekuri/jsonschema/v5"
	"gopkg.in/yaml.v3"
)

// maxDepth bounds how deep a schema may be nested.
const maxDepth = 64

// schema returns a step's schema as JSON, once it has proved to be one.
func (r *reader) schema(n *yaml.Node) []byte {
	if !r.is(n, yaml.MappingNode, "schema", "a mapping") {
		return nil
	}
	before := len(r.mistakes)
	value := r.value(n, 0)
	if len(r.mistakes) > before {
		return nil
	}
	text, err := json.Marshal(value)
	if err == nil {
		err = compile(text)
	}
	var wrong *jsonschema.ValidationError
	if errors.As(err, &wrong) {
		for len(wrong.Causes) > 0 {
			wrong = wrong.Causes[0]
		}
		r.mistake(find(n, wrong.InstanceLocation), "no JSON Schema: %s", wrong.Message)
		return nil
	}
	if err != nil {
		r.mistake(n, "no JSON Schema: %v", err)
		return nil
	}
	if value.(map[string]any)["type"] != "object" {
		r.mistake(n, "the schema has no type: object, which is what with is")
	}
	return text
}

func compile(text []byte) error {
	_, err := spec.CompileSchema("gild:///schema", text)
	var failed *jsonschema.SchemaError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}

// find returns the node that a JSON Pointer leads to, or the last one on the way.
func find(n *yaml.Node, pointer string) *yaml.Node {
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		next := child(n, strings.NewReplacer("~1", "/", "~0", "~").Replace(token))
		if next == nil {
			break
		}
		n = next
	}
	return n
}

func child(n *yaml.Node, token string) *yaml.Node {
	if n.Kind == yaml.SequenceNode {
		if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == token {
			return n.Content[i+1]
		}
	}
	return nil
}

// value converts a YAML value into what JSON knows.
func (r *reader) value(n *yaml.Node, depth int) any {
	switch {
	case depth > maxDepth:
		r.mistake(n, "values are nested more than %d deep", maxDepth)
	case n.Kind == yaml.MappingNode:
		object := map[string]any{}
		for key, f := range r.fields(n, "a value", nil) {
			object[key] = r.value(f.value, depth+1)
		}
		return object
	case n.Kind == yaml.SequenceNode && r.is(n, yaml.SequenceNode, "", ""):
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			list[i] = r.value(item, depth+1)
		}
		return list
	case r.is(n, yaml.ScalarNode, "a value", "a text or a number"):
		return r.scalar(n)
	}
	return nil
}

func (r *reader) scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!str", "!!timestamp":
		return n.Value
	}
	var v any
	err := n.Decode(&v)
	if err == nil {
		_, err = json.Marshal(v)
	}
	if err != nil {
		r.mistake(n, "%q has no equal in JSON", n.Value)
		return nil
	}
	return v
}
