package plugins

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// How deep and how far the documentation follows a schema.
const (
	maxDepth  = 6
	maxFields = 500
)

// Markdown is the documentation of a plugin, made of what it says of itself: for each step
// the summary, the help text, the fields of `with` and the outputs. Control characters are
// shown as escapes.
func Markdown(d Description) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "# %s %s\n", diag.Printable(d.GetName()), diag.Printable(d.GetVersion()))
	if len(d.Environment) > 0 {
		fmt.Fprintf(&out, "\nSees of gild's environment: %s.\n", diag.Printable(strings.Join(d.Environment, ", ")))
	}
	var errs []error
	for _, s := range d.GetSteps() {
		fields, err := fieldsOf(s.GetSchema())
		if err != nil {
			errs = append(errs, fmt.Errorf("the schema of step %s: %w", s.GetName(), err))
			continue
		}
		writeStep(&out, s, fields)
	}
	return out.String(), errors.Join(errs...)
}

func writeStep(out *strings.Builder, s *pluginv1.StepType, fields []field) {
	fmt.Fprintf(out, "\n## %s\n", diag.Printable(s.GetName()))
	if s.GetSummary() != "" {
		fmt.Fprintf(out, "\n%s\n", diag.Printable(s.GetSummary()))
	}
	if doc := strings.TrimSpace(s.GetDoc()); doc != "" {
		out.WriteString("\n" + printableLines(doc) + "\n")
	}
	out.WriteString("\nStands in " + strings.Join(s.GetSections(), ", "))
	if s.GetCacheable() {
		out.WriteString("; a step that is done isn't run again while its key stays the same")
	}
	out.WriteString(".\n")
	if len(fields) > 0 {
		out.WriteString("\n### with\n\n| field | type | required | description |\n|---|---|---|---|\n")
		for _, f := range fields {
			required := ""
			if f.required {
				required = "yes"
			}
			fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", cell(f.name), cell(f.typ), required, cell(f.description))
		}
	}
	if len(s.GetOutputs()) > 0 {
		out.WriteString("\n### outputs\n\n| name | type |\n|---|---|\n")
		for _, name := range slices.Sorted(maps.Keys(s.GetOutputs())) {
			fmt.Fprintf(out, "| `%s` | %s |\n", cell(name), cell(s.GetOutputs()[name]))
		}
	}
}

// printableLines keeps the lines of a text.
func printableLines(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range lines {
		lines[i] = diag.Printable(strings.ReplaceAll(line, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

// cell makes text fit into one cell of a table.
func cell(text string) string {
	return strings.ReplaceAll(diag.Printable(strings.Join(strings.Fields(text), " ")), "|", `\|`)
}

// field is one field of a step's `with`; those of objects in it are named "a.b", those of
// the items of a list "a[].b".
type field struct {
	name, typ, description string
	required               bool
}

// schema is what the documentation reads of a JSON Schema.
type schema struct {
	Ref         string            `json:"$ref"`
	Type        any               `json:"type"`
	Format      string            `json:"format"`
	Description string            `json:"description"`
	Default     json.RawMessage   `json:"default"`
	Enum        []json.RawMessage `json:"enum"`
	Const       json.RawMessage   `json:"const"`
	Minimum     *json.Number      `json:"minimum"`
	Maximum     *json.Number      `json:"maximum"`
	Pattern     string            `json:"pattern"`
	Required    []string          `json:"required"`
	// Schemas may also be true or false.
	Properties map[string]json.RawMessage `json:"properties"`
	Items      json.RawMessage            `json:"items"`
	OneOf      []json.RawMessage          `json:"oneOf"`
	AnyOf      []json.RawMessage          `json:"anyOf"`
	Defs       map[string]json.RawMessage `json:"$defs"`
}

func fieldsOf(text []byte) ([]field, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var root schema
	if err := json.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	w := &walker{defs: root.Defs}
	w.object("", root, 0)
	return w.fields, nil
}

type walker struct {
	defs   map[string]json.RawMessage
	fields []field
}

// read reads a schema in a schema; what is no object says nothing.
func (w *walker) read(text json.RawMessage) schema {
	var s schema
	for range maxDepth {
		s = schema{}
		if json.Unmarshal(text, &s) != nil {
			return schema{}
		}
		name, ok := strings.CutPrefix(s.Ref, "#/$defs/")
		if !ok {
			return s
		}
		text = w.defs[name]
	}
	return s
}

func (w *walker) object(prefix string, s schema, depth int) {
	if depth == maxDepth {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		if len(w.fields) == maxFields {
			return
		}
		p := w.read(s.Properties[name])
		w.fields = append(w.fields, field{prefix + name, w.typeOf(p, 0), describe(p), slices.Contains(s.Required, name)})
		w.object(prefix+name+".", p, depth+1)
		if p.Items != nil {
			w.object(prefix+name+"[].", w.read(p.Items), depth+1)
		}
	}
}

func (w *walker) typeOf(s schema, depth int) string {
	var names []string
	switch t := s.Type.(type) {
	case string:
		names = []string{t}
	case []any:
		for _, name := range t {
			names = append(names, fmt.Sprint(name))
		}
	}
	if depth < maxDepth {
		for _, one := range slices.Concat(s.OneOf, s.AnyOf) {
			if name := w.typeOf(w.read(one), depth+1); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	switch {
	case s.Format == "gild-path":
		return "path of the project"
	case s.Format == "gild-script":
		return "script, or path of one"
	case slices.Equal(names, []string{"array"}) && s.Items != nil && depth < maxDepth:
		return "list of " + w.typeOf(w.read(s.Items), depth+1)
	case len(names) == 0 && len(s.Enum) > 0 && s.Enum[0][0] == '"':
		return "string"
	case len(names) == 0:
		return "any"
	}
	return strings.Join(names, " or ")
}

// describe is the description with what else restricts the value.
func describe(s schema) string {
	parts := []string{}
	if s.Description != "" {
		parts = append(parts, strings.TrimRight(s.Description, ". \n")+".")
	}
	var values []string
	for _, v := range append(slices.Clone(s.Enum), s.Const) {
		if len(v) > 0 {
			values = append(values, "`"+string(v)+"`")
		}
	}
	if len(values) > 0 {
		parts = append(parts, "One of "+strings.Join(values, ", ")+".")
	}
	if s.Minimum != nil {
		parts = append(parts, "At least "+s.Minimum.String()+".")
	}
	if s.Maximum != nil {
		parts = append(parts, "At most "+s.Maximum.String()+".")
	}
	if s.Pattern != "" {
		parts = append(parts, "Matches `"+s.Pattern+"`.")
	}
	if len(s.Default) > 0 {
		parts = append(parts, "Default: `"+string(s.Default)+"`.")
	}
	return strings.Join(parts, " ")
}
