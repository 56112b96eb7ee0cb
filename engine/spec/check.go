package spec

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/diag"
)

// codeSecretLiteral marks a secret written into the file. Its source line is never shown.
const codeSecretLiteral = "secret-literal"

// report turns the errors of one schema validation into diagnostics.
type report struct {
	shape  *shape
	source *source
	root   *node
	diags  *diag.List
	// skip tells whether to leave out an error of a keyword at a node.
	skip func(n *node, keyword string) bool
	// secrets tells that root is a pipeline file, whose secrets must not be shown.
	secrets bool
}

// check validates value, the plain data of r.root.
func (r *report) check(value any) {
	err := r.validate(value)
	if err == nil {
		return
	}
	if ve, ok := err.(*jsonschema.ValidationError); ok {
		r.walk(ve)
		return
	}
	r.diags.Addf(r.source.value(r.root), "schema", "", "%v", err)
}

// validate guards against the schema library's panics for values it doesn't expect.
func (r *report) validate(value any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the value can't be checked: %v", p)
		}
	}()
	return r.shape.schema.Validate(value)
}

func (r *report) walk(ve *jsonschema.ValidationError) {
	location, keyword := splitLast(ve.AbsoluteKeywordLocation)
	if keyword == "anyOf" || keyword == "oneOf" {
		r.union(ve, location)
		return
	}
	if len(ve.Causes) == 0 {
		r.leaf(ve, location, keyword)
		return
	}
	for _, cause := range ve.Causes {
		r.walk(cause)
	}
}

// union reports a value that fits none of several schemas, or more than one: only the
// alternatives that have the value's type are worth talking about.
func (r *report) union(ve *jsonschema.ValidationError, location string) {
	schema := r.shape.parts[location]
	n, _ := r.root.find(instancePointer(ve.InstanceLocation))
	if r.skip(n, "type") {
		return
	}
	if len(ve.Causes) == 0 {
		r.tooMany(ve, schema, n)
		return
	}
	var fitting []*jsonschema.ValidationError
	var missing []string
	var types []string
	for _, cause := range ve.Causes {
		all := leaves(cause)
		if i := slices.IndexFunc(all, func(l *jsonschema.ValidationError) bool {
			_, keyword := splitLast(l.AbsoluteKeywordLocation)
			return keyword == "type" && l.InstanceLocation == ve.InstanceLocation
		}); i >= 0 {
			location, _ := splitLast(all[i].AbsoluteKeywordLocation)
			if part := r.shape.parts[location]; part != nil {
				types = append(types, part.Types...)
			}
			continue
		}
		fitting = append(fitting, cause)
		if location, keyword := splitLast(all[0].AbsoluteKeywordLocation); keyword == "required" && len(all) == 1 {
			missing = append(missing, r.missing(r.shape.parts[location], n)...)
		}
	}
	switch {
	case len(fitting) == 0:
		r.wrongType(n, types, "")
	case len(missing) >= len(fitting) && len(fitting) > 1:
		r.diags.Addf(r.source.name(n), "missing-key", "", "one of %s is needed", quoted(missing, "or"))
	default:
		best := slices.MinFunc(fitting, func(a, b *jsonschema.ValidationError) int {
			return len(leaves(a)) - len(leaves(b))
		})
		r.walk(best)
	}
}

// tooMany reports a value that fits several alternatives of which only one may hold.
func (r *report) tooMany(ve *jsonschema.ValidationError, schema *jsonschema.Schema, n *node) {
	var present []string
	if schema != nil {
		for _, alternative := range schema.OneOf {
			for _, name := range alternative.Required {
				if n.fields[name] != nil && !slices.Contains(present, name) {
					present = append(present, name)
				}
			}
		}
	}
	if len(present) < 2 {
		r.diags.Addf(r.source.name(n), "schema", "", "%s", ve.Message)
		return
	}
	r.diags.Addf(r.source.name(n.fields[present[1]]), "conflicting-keys", "remove all but one",
		"only one of %s can be given", quoted(present, "and"))
}

func leaves(ve *jsonschema.ValidationError) []*jsonschema.ValidationError {
	if len(ve.Causes) == 0 {
		return []*jsonschema.ValidationError{ve}
	}
	var all []*jsonschema.ValidationError
	for _, cause := range ve.Causes {
		all = append(all, leaves(cause)...)
	}
	return all
}

// splitLast splits a keyword location into the schema's location and the keyword.
func splitLast(location string) (schema, keyword string) {
	i := strings.LastIndexByte(location, '/')
	if i < 0 {
		return location, ""
	}
	return location[:i], location[i+1:]
}

// instancePointer undoes the percent-encoding of the library's instance locations,
// which leaves a plain JSON pointer.
func instancePointer(location string) string {
	tokens := strings.Split(location, "/")
	for i, t := range tokens {
		if plain, err := url.PathUnescape(t); err == nil {
			tokens[i] = plain
		}
	}
	return strings.Join(tokens, "/")
}

func (r *report) leaf(ve *jsonschema.ValidationError, location, keyword string) {
	n, exact := r.root.find(instancePointer(ve.InstanceLocation))
	schema := r.shape.parts[location]
	if schema == nil || !exact {
		r.diags.Addf(r.source.name(n), "schema", "", "%s", ve.Message)
		return
	}
	if r.skip(n, keyword) {
		return
	}
	if strings.Contains(ve.KeywordLocation, "/propertyNames/") {
		r.badName(n, schema, ve.InstanceLocation)
		return
	}
	pos, what := r.source.value(n), written(n)
	switch keyword {
	case "type":
		r.wrongType(n, schema.Types, schema.Format)
	case "enum":
		known := texts(schema.Enum)
		r.diags.Addf(pos, "bad-value", didYouMean(n.text(), known, ""), "%s is not one of %s", what, strings.Join(known, ", "))
	case "const":
		r.diags.Addf(pos, "bad-value", hintOf(schema), "%s is not %v", what, schema.Constant[0])
	case "required":
		for _, name := range r.missing(schema, n) {
			r.missingKey(n, schema, name)
		}
	case "additionalProperties":
		r.unknownKeys(n, schema)
	case "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf":
		r.diags.Addf(pos, "out-of-range", hintOf(schema), "%s is %s", what, bound(keyword, schema))
	case "pattern":
		r.badText(n, schema, ve.InstanceLocation)
	case "format":
		r.badFormat(n, schema)
	case "minItems", "minLength", "minProperties":
		r.tooFew(n, schema, keyword)
	case "maxItems", "maxLength", "maxProperties":
		r.tooMuch(n, schema, keyword)
	case "uniqueItems":
		r.repeated(n)
	default:
		r.diags.Addf(pos, "schema", hintOf(schema), "%s", ve.Message)
	}
}
