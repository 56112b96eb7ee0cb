package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"
	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

func checkSchemas(_ context.Context, s *session) verdict {
	var wrong []string
	for _, t := range s.described.GetSteps() {
		schema, root, err := compile(t)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("step %q: %v", t.GetName(), err))
			continue
		}
		s.schemas[t.GetName()] = schema
		w := walker{root: root}
		if root["type"] != "object" {
			w.add("#", "its type isn't object")
		}
		w.walk("#", root, 0)
		for _, text := range w.wrong {
			wrong = append(wrong, fmt.Sprintf("step %q: %s", t.GetName(), text))
		}
	}
	if len(wrong) > 0 {
		return fails("%s", strings.Join(wrong, "\n"))
	}
	return holds()
}

func compile(t *pluginv1.StepType) (*jsonschema.Schema, map[string]any, error) {
	// What gild's own compiler refuses can't be used, whatever others say of it.
	if err := spec.CheckSchema(step.Step{Name: t.GetName(), Schema: t.GetSchema()}); err != nil {
		return nil, nil, err
	}
	var root map[string]any
	if err := json.Unmarshal(t.GetSchema(), &root); err != nil {
		return nil, nil, fmt.Errorf("read the schema: %w", err)
	}
	schema, err := spec.CompileSchema("gild:///with", t.GetSchema())
	if err != nil {
		return nil, nil, fmt.Errorf("compile the schema: %w", err)
	}
	return schema, root, nil
}

// walker looks at every schema within a schema.
type walker struct {
	root  map[string]any
	wrong []string
}

func (w *walker) add(at, format string, args ...any) {
	w.wrong = append(w.wrong, at+": "+fmt.Sprintf(format, args...))
}

// maxDepth bounds how deep a schema is looked at.
const maxDepth = 64

func (w *walker) walk(at string, schema map[string]any, depth int) {
	if depth > maxDepth {
		w.add(at, "it is nested more than %d deep", maxDepth)
		return
	}
	fields, _ := schema["properties"].(map[string]any)
	if len(fields) > 0 && schema["additionalProperties"] != false && schema["unevaluatedProperties"] != false {
		w.add(at, "additionalProperties isn't false, so mistyped names go unnoticed")
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if field, ok := fields[name].(map[string]any); !ok || !w.described(field, depth) {
			w.add(at+"/properties/"+name, "it has no description, which editors and mistakes show")
		}
	}
	for _, keyword := range []string{"properties", "patternProperties", "$defs"} {
		parts, _ := schema[keyword].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(parts)) {
			if part, ok := parts[name].(map[string]any); ok {
				w.walk(at+"/"+keyword+"/"+name, part, depth+1)
			}
		}
	}
	for _, keyword := range []string{"items", "additionalProperties"} {
		if part, ok := schema[keyword].(map[string]any); ok {
			w.walk(at+"/"+keyword, part, depth+1)
		}
	}
}

// described reports whether a field, or what it refers to, has a description.
func (w *walker) described(field map[string]any, depth int) bool {
	if text, _ := field["description"].(string); len(strings.TrimSpace(text)) >= 4 {
		return true
	}
	ref, ok := field["$ref"].(string)
	if !ok || depth > maxDepth {
		return false
	}
	at := w.root
	for token := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		if at, ok = at[token].(map[string]any); !ok {
			return false
		}
	}
	return w.described(at, depth+1)
}

func checkDocs(_ context.Context, s *session) verdict {
	var wrong []string
	for _, t := range s.described.GetSteps() {
		all, err := examples(t)
		switch schema := s.schemas[t.GetName()]; {
		case err != nil:
			wrong = append(wrong, fmt.Sprintf("step %q: %v", t.GetName(), err))
		case len(all) == 0:
			wrong = append(wrong, fmt.Sprintf("step %q: no YAML block of its help has `uses: %s`", t.GetName(), t.GetName()))
		case schema != nil:
			for _, with := range all {
				if err := accepts(schema, with); err != nil {
					wrong = append(wrong, fmt.Sprintf("step %q: the example %s: %v", t.GetName(), with, err))
				}
			}
		}
	}
	if len(wrong) > 0 {
		return fails("%s", strings.Join(wrong, "\n"))
	}
	return holds()
}

// examples returns every `with` of the step in the YAML blocks of its help, as JSON.
func examples(t *pluginv1.StepType) ([]json.RawMessage, error) {
	var all []json.RawMessage
	for _, block := range blocks(t.GetDoc()) {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(block), &doc); err != nil {
			if !strings.Contains(block, "uses: "+t.GetName()) {
				continue // a block of something else
			}
			return nil, fmt.Errorf("read an example of its help: %w", err)
		}
		if doc.Kind == 0 {
			continue
		}
		budget := maxNodes
		v, err := plain(&doc, &budget)
		if err != nil {
			return nil, fmt.Errorf("read an example of its help: %w", err)
		}
		all = append(all, withs(t.GetName(), v)...)
	}
	return all, nil
}

// blocks returns the fenced and the indented blocks of a Markdown text.
func blocks(doc string) []string {
	var all []string
	var block strings.Builder
	end := func() {
		if strings.TrimSpace(block.String()) != "" {
			all = append(all, block.String())
		}
		block.Reset()
	}
	fence, indented := "", false
	for line := range strings.Lines(doc) {
		bare := strings.TrimSpace(line)
		code, isCode := indentedCode(line)
		switch {
		case fence != "" && strings.HasPrefix(bare, fence):
			end()
			fence = ""
		case fence != "":
			block.WriteString(line)
		case strings.HasPrefix(bare, "```"), strings.HasPrefix(bare, "~~~"):
			end()
			fence, indented = bare[:3], false
		case isCode:
			block.WriteString(code)
			indented = true
		case indented && bare == "":
			block.WriteString("\n")
		default:
			end()
			indented = false
		}
	}
	end()
	return all
}

func indentedCode(line string) (string, bool) {
	if code, ok := strings.CutPrefix(line, "\t"); ok {
		return code, true
	}
	return strings.CutPrefix(line, "    ")
}

// withs finds the configs of a step in a part of a pipeline.
func withs(name string, v any) []json.RawMessage {
	var all []json.RawMessage
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			all = append(all, withs(name, item)...)
		}
	case map[string]any:
		if v["uses"] == name {
			with := v["with"]
			if with == nil {
				with = map[string]any{}
			}
			// What came out of plain can be encoded.
			text, _ := json.Marshal(with)
			return []json.RawMessage{text}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = append(all, withs(name, v[key])...)
		}
	}
	return all
}

var expression = regexp.MustCompile(`\$\{\{.*?\}\}`)

// accepts validates a config. A place with an expression in it may become anything, so
// that mistakes there don't count.
func accepts(schema *jsonschema.Schema, config json.RawMessage) error {
	var v any
	if err := json.Unmarshal(config, &v); err != nil {
		return err
	}
	for _, p := range violations(schema, config) {
		text, isText := lookup(v, p[0]).(string)
		if !isText || !expression.MatchString(text) {
			return fmt.Errorf("%s: %s", at(p[0]), p[1])
		}
	}
	return nil
}

// violations is what a schema has against a config.
func violations(schema *jsonschema.Schema, config json.RawMessage) problems {
	var v any
	dec := json.NewDecoder(bytes.NewReader(config))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return problems{{"", err.Error()}}
	}
	err := schema.Validate(v)
	var bad *jsonschema.ValidationError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &bad):
		return problems{{"", err.Error()}}
	}
	var all problems
	for _, leaf := range leaves(bad) {
		// The library escapes the parts of a pointer as in an address.
		pointer, err := url.PathUnescape(leaf.InstanceLocation)
		if err != nil {
			pointer = leaf.InstanceLocation
		}
		all = append(all, [2]string{pointer, leaf.Message})
	}
	return all
}

func at(pointer string) string {
	if pointer == "" {
		return "the whole"
	}
	return pointer
}

func leaves(e *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(e.Causes) == 0 {
		return []*jsonschema.ValidationError{e}
	}
	var all []*jsonschema.ValidationError
	for _, c := range e.Causes {
		all = append(all, leaves(c)...)
	}
	return all
}

// lookup finds a place in a value; nil when it isn't there.
func lookup(v any, pointer string) any {
	if pointer == "" {
		return v
	}
	for token := range strings.SplitSeq(pointer[1:], "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch at := v.(type) {
		case map[string]any:
			v = at[token]
		case []any:
			var i int
			if _, err := fmt.Sscan(token, &i); err != nil || i < 0 || i >= len(at) {
				return nil
			}
			v = at[i]
		}
	}
	return v
}
