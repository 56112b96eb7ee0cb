package spec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
)

// Catalog is the set of steps a pipeline may use, with their schemas compiled.
// It never changes once made, and is safe for concurrent use.
type Catalog struct {
	envelope *shape
	// step is the envelope of one step.
	step  *shape
	kinds map[string]*kind
	// names are the names of the steps that a file may use, sorted.
	names []string
	// missing are the plugins that can't be used, and why.
	missing map[string]error
}

// Names are the names of the steps that a file may use, sorted.
func (c *Catalog) Names() []string { return slices.Clone(c.names) }

// kind is one step with the schema of its `with`.
type kind struct {
	step step.Step
	with *shape
	// formats tells that the schema has formats of gild's own in it.
	formats bool
}

const envelopeURL = "gild:///pipeline"

// NewCatalog compiles the schemas of the steps. It fails for two steps with one name, and
// for a schema that isn't a valid JSON Schema of an object or refers outside itself.
func NewCatalog(steps []step.Step) (*Catalog, error) {
	envelope, err := newShape(envelopeURL, schemas.Pipeline())
	if err != nil {
		return nil, err
	}
	c := &Catalog{envelope: envelope, step: envelope.part("#/$defs/step"), kinds: make(map[string]*kind, len(steps))}
	if err := c.add(steps); err != nil {
		return nil, err
	}
	return c, nil
}

// With returns a catalog with more steps, those of plugins, and the plugins that can't
// be used, with the reason.
func (c *Catalog) With(steps []step.Step, missing map[string]error) (*Catalog, error) {
	more := *c
	more.kinds, more.names, more.missing = maps.Clone(c.kinds), slices.Clone(c.names), missing
	if err := more.add(steps); err != nil {
		return nil, err
	}
	return &more, nil
}

func (c *Catalog) add(steps []step.Step) error {
	for _, s := range steps {
		if _, ok := c.kinds[s.Name]; ok {
			return fmt.Errorf("two steps have the name %q", s.Name)
		}
		k, err := newKind(s)
		if err != nil {
			return err
		}
		c.kinds[s.Name] = k
		if !s.Internal {
			c.names = append(c.names, s.Name)
		}
	}
	slices.Sort(c.names)
	return nil
}

func newKind(s step.Step) (*kind, error) {
	with, err := newShape("gild:///steps/"+s.Name, s.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema of step %q: %w", s.Name, err)
	}
	return &kind{step: s, with: with, formats: bytes.Contains(s.Schema, []byte(`"gild-`))}, nil
}

// CheckSchema tells what keeps a catalog from taking a step's schema.
func CheckSchema(s step.Step) error {
	_, err := newKind(s)
	return err
}

// CompileSchema compiles a JSON Schema (2020-12) of somebody else's. It fails for one that
// isn't valid, and for one that refers outside itself: nothing is read but text. Formats
// are not asserted.
func CompileSchema(url string, text []byte) (*jsonschema.Schema, error) {
	return compile(newCompiler(), url, text)
}

func newCompiler() *jsonschema.Compiler {
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft2020
	c.LoadURL = func(url string) (io.ReadCloser, error) {
		return nil, fmt.Errorf("%s is outside of the schema", url)
	}
	return c
}

// compile also makes an error of the panics that some texts cause in the compiler.
func compile(c *jsonschema.Compiler, url string, text []byte) (_ *jsonschema.Schema, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it can't be compiled: %v", r)
		}
	}()
	if err := c.AddResource(url, bytes.NewReader(text)); err != nil {
		return nil, err
	}
	return c.Compile(url)
}

// Step returns the declaration of a step.
func (c *Catalog) Step(name string) (s step.Step, ok bool) {
	k, ok := c.kinds[name]
	if ok {
		s = k.step
	}
	return s, ok
}

// shape is a compiled schema together with its parts by location.
type shape struct {
	schema *jsonschema.Schema
	parts  map[string]*jsonschema.Schema
}

func newShape(url string, text []byte) (*shape, error) {
	compiler := newCompiler()
	compiler.AssertFormat = true
	compiler.ExtractAnnotations = true
	for name, f := range formats {
		compiler.Formats[name] = func(v any) bool {
			s, ok := v.(string)
			return !ok || f.check(s) == nil
		}
	}
	schema, err := compile(compiler, url, text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "jsonschema: "))
	}
	c := &shape{schema: schema, parts: map[string]*jsonschema.Schema{}}
	c.index(schema)
	return c, nil
}

// part is the shape of what a definition of the schema describes.
func (c *shape) part(fragment string) *shape {
	return &shape{schema: c.parts[c.schema.Location+strings.TrimPrefix(fragment, "#")], parts: c.parts}
}

// index records a schema and all its parts by their location.
func (c *shape) index(s *jsonschema.Schema) {
	if s == nil || c.parts[s.Location] != nil {
		return
	}
	c.parts[s.Location] = s
	for _, part := range parts(s) {
		c.index(part)
	}
}

// parts returns the schemas directly inside a schema.
func parts(s *jsonschema.Schema) []*jsonschema.Schema {
	all := inPlace(s)
	all = append(all, s.Not, s.If, s.PropertyNames, s.Items2020, s.Contains, s.UnevaluatedItems, s.UnevaluatedProperties)
	all = append(all, s.PrefixItems...)
	for _, p := range s.Properties {
		all = append(all, p)
	}
	for _, p := range s.PatternProperties {
		all = append(all, p)
	}
	for _, extra := range []any{s.AdditionalProperties, s.Items, s.AdditionalItems} {
		if p, ok := extra.(*jsonschema.Schema); ok {
			all = append(all, p)
		}
	}
	return all
}

// inPlace returns the schemas that apply to the same value as s.
func inPlace(s *jsonschema.Schema) []*jsonschema.Schema {
	all := []*jsonschema.Schema{s.Ref, s.DynamicRef, s.Then, s.Else}
	all = append(all, s.AllOf...)
	all = append(all, s.AnyOf...)
	all = append(all, s.OneOf...)
	for _, d := range s.DependentSchemas {
		all = append(all, d)
	}
	return all
}

// keys returns the property names a schema knows, sorted.
func keys(s *jsonschema.Schema) []string {
	known := map[string]bool{}
	seen := map[*jsonschema.Schema]bool{}
	var walk func(s *jsonschema.Schema)
	walk = func(s *jsonschema.Schema) {
		if s == nil || seen[s] {
			return
		}
		seen[s] = true
		for name := range s.Properties {
			known[name] = true
		}
		for _, part := range inPlace(s) {
			walk(part)
		}
	}
	walk(s)
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// at returns the schemas that describe a key of an object, or an item of a list.
func at(s *jsonschema.Schema, token string, list bool, seen map[*jsonschema.Schema]bool) []*jsonschema.Schema {
	if s == nil || seen[s] {
		return nil
	}
	seen[s] = true
	var found []*jsonschema.Schema
	add := func(v any) {
		if p, ok := v.(*jsonschema.Schema); ok && p != nil {
			found = append(found, p)
		}
	}
	if list {
		add(s.Items2020)
		add(s.Items)
	} else if p, ok := s.Properties[token]; ok {
		add(p)
	} else {
		for re, p := range s.PatternProperties {
			if re.MatchString(token) {
				add(p)
			}
		}
		add(s.AdditionalProperties)
	}
	for _, part := range inPlace(s) {
		found = append(found, at(part, token, list, seen)...)
	}
	return found
}

// hasFormat tells whether one of the schemas, or one that applies in the same place,
// has a format.
func hasFormat(all []*jsonschema.Schema, format string) bool {
	seen := map[*jsonschema.Schema]bool{}
	var walk func(s *jsonschema.Schema) bool
	walk = func(s *jsonschema.Schema) bool {
		if s == nil || seen[s] {
			return false
		}
		seen[s] = true
		return s.Format == format || slices.ContainsFunc(inPlace(s), walk)
	}
	return slices.ContainsFunc(all, walk)
}
