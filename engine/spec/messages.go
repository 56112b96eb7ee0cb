package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

func (r *report) badText(n *node, schema *jsonschema.Schema, location string) {
	pos, where := r.source.value(n), "here"
	if n.key != nil {
		where = fmt.Sprintf("for %q", lastToken(location))
	}
	if r.inSecrets(n) {
		r.diags.Addf(pos, "bad-text", hintOf(schema), "this is not allowed %s", where)
		return
	}
	r.diags.Addf(pos, "bad-text", hintOf(schema), "%s is not allowed %s", written(n), where)
}

// inSecrets tells whether a value stands under `secrets`, and if so keeps its line from
// being shown: it may be a secret that shouldn't be there.
func (r *report) inSecrets(n *node) bool {
	return r.secrets && r.source.hideSecret(r.root, n)
}

// lastToken is the last key of an instance location.
func lastToken(location string) string {
	last := ""
	for token := range pointerTokens(instancePointer(location)) {
		last = token
	}
	return last
}

func (r *report) badName(n *node, schema *jsonschema.Schema, location string) {
	r.diags.Addf(r.source.name(n), "bad-name", hintOf(schema), "%q is not a name that can be used here", lastToken(location))
}

func (r *report) missing(schema *jsonschema.Schema, n *node) []string {
	var names []string
	if schema == nil {
		return nil
	}
	for _, name := range schema.Required {
		if n.fields[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

func (r *report) missingKey(n *node, schema *jsonschema.Schema, name string) {
	hint := ""
	if p := schema.Properties[name]; p != nil {
		if hint = hintOf(p); hint != "" {
			hint = fmt.Sprintf("%s: %s", name, hint)
		}
	}
	r.diags.Addf(r.source.name(n), "missing-key", hint, "the key %q is missing", name)
}

func (r *report) unknownKeys(n *node, schema *jsonschema.Schema) {
	known := keys(schema)
	for _, name := range n.names {
		if schema.Properties[name] != nil || matchesAny(schema, name) {
			continue
		}
		otherwise := ""
		if len(known) > 0 {
			otherwise = "keys are " + strings.Join(known, ", ")
		}
		field := n.fields[name]
		if r.inSecrets(field) {
			otherwise = "say where the secret comes from; keys are " + strings.Join(known, ", ")
		}
		r.diags.Addf(r.source.name(field), "unknown-key", keyHint(name, known, n, otherwise), "unknown key %q", name)
	}
}

// keyHint suggests a key that the object doesn't have yet before one that it has.
func keyHint(name string, known []string, n *node, otherwise string) string {
	unused := slices.DeleteFunc(slices.Clone(known), func(name string) bool { return n.fields[name] != nil })
	if s := Suggest(name, unused); s != "" {
		return fmt.Sprintf("did you mean %q?", s)
	}
	if s := Suggest(name, known); s != "" {
		return fmt.Sprintf("did you mean %q, which is already on line %d?", s, n.fields[s].key.Line)
	}
	return otherwise
}

func matchesAny(schema *jsonschema.Schema, name string) bool {
	for re := range schema.PatternProperties {
		if re.MatchString(name) {
			return true
		}
	}
	return false
}

func (r *report) badFormat(n *node, schema *jsonschema.Schema) {
	f, ok := formats[schema.Format]
	if !ok {
		r.diags.Addf(r.source.value(n), "bad-text", hintOf(schema), "%s is not a valid %s", written(n), schema.Format)
		return
	}
	if err := f.check(n.text()); err != nil {
		r.diags.Addf(r.source.value(n), f.code, hintOf(schema), "%v", err)
	}
}

func (r *report) tooFew(n *node, schema *jsonschema.Schema, keyword string) {
	pos := r.source.name(n)
	switch {
	case keyword == "minLength" && n.text() == "":
		r.diags.Addf(pos, "empty-value", hintOf(schema), "the text is empty")
	case keyword == "minLength":
		r.diags.Addf(pos, "bad-text", hintOf(schema), "%s is shorter than %d characters", written(n), schema.MinLength)
	case keyword == "minItems":
		r.diags.Addf(pos, "too-few", hintOf(schema), "the list has %s; at least %d", plural(len(n.items), "item"), schema.MinItems)
	case schema.MinProperties == 1 && schema.MaxProperties == 1:
		r.diags.Addf(pos, "missing-key", "", "one of %s is needed", quoted(keys(schema), "or"))
	default:
		r.diags.Addf(pos, "too-few", hintOf(schema), "%s; at least %d", plural(len(n.names), "key"), schema.MinProperties)
	}
}

func (r *report) tooMuch(n *node, schema *jsonschema.Schema, keyword string) {
	pos := r.source.name(n)
	switch {
	case keyword == "maxLength":
		r.diags.Addf(r.source.value(n), "bad-text", hintOf(schema), "the text has %d characters; at most %d",
			len([]rune(n.text())), schema.MaxLength)
	case keyword == "maxItems":
		r.diags.Addf(pos, "too-many", hintOf(schema), "the list has %s; at most %d", plural(len(n.items), "item"), schema.MaxItems)
	case schema.MaxProperties == 1 && len(n.names) > 1:
		r.diags.Addf(r.source.name(n.fields[n.names[1]]), "conflicting-keys", "remove all but one",
			"only one of %s can be given", quoted(n.names, "and"))
	default:
		r.diags.Addf(pos, "too-many", hintOf(schema), "%s; at most %d", plural(len(n.names), "key"), schema.MaxProperties)
	}
}

func (r *report) repeated(n *node) {
	seen := map[string]int{}
	for _, item := range n.items {
		text := string(canonical(item.value))
		if line, ok := seen[text]; ok {
			r.diags.Addf(r.source.value(item), "repeated-item", "remove one of the two",
				"%s is already on line %d", written(item), line)
			continue
		}
		seen[text] = item.at.Line
	}
}

// jsonTypes are the JSON Schema types of the kinds of expressions.
var jsonTypes = map[string]string{
	"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "list": "array",
}

var typeNames = map[string]string{
	"string": "a string", "integer": "an integer", "number": "a number", "boolean": "true or false",
	"array": "a list", "object": "a mapping", "null": "nothing",
}

func (r *report) wrongType(n *node, types []string, format string) {
	pos := r.source.value(n)
	want := oneOfTypes(types)
	switch {
	case n.value == nil:
		r.diags.Addf(pos, "empty-value", "give it a value, or remove the key", "expected %s, but there is nothing", want)
		return
	case r.inSecrets(n) && slices.Contains(types, "object"):
		r.diags.Addf(pos, codeSecretLiteral, "say where it comes from, such as {env: NAME} or {file: path}; and change the secret if it was real",
			"a secret can't be written into the file")
		return
	case r.inSecrets(n):
		r.diags.Addf(pos, "wrong-type", "", "expected %s", want)
		return
	}
	r.diags.Addf(pos, "wrong-type", typeHint(n, types, format), "expected %s, but got %s", want, described(n))
}

func oneOfTypes(types []string) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = typeNames[t]
		if t == "boolean" && len(types) > 1 {
			names[i] = "a boolean"
		}
	}
	names = slices.Compact(names)
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// typeHint says how to write a value so that it has one of the types.
func typeHint(n *node, types []string, format string) string {
	is := func(t string) bool { return slices.Contains(types, t) }
	scalar := n.fields == nil && n.items == nil
	_, isText := n.value.(string)
	switch {
	case n.tmpl != nil && is("string"):
		return "write string(…) inside the expression"
	case n.tmpl != nil:
		return ""
	case format == "gild-duration" && scalar:
		return fmt.Sprintf("give it a unit: %[1]ss or %[1]sm", cut(n.at.Value))
	case format == "gild-size" && scalar:
		return fmt.Sprintf("give it a unit: %[1]sMiB or %[1]sGiB", cut(n.at.Value))
	case is("string") && scalar:
		return fmt.Sprintf("quote it: %q", cut(n.at.Value))
	case is("boolean") && isText:
		return wordHint(n.text())
	case (is("integer") || is("number")) && isText:
		if _, err := strconv.ParseFloat(n.text(), 64); err == nil {
			return "remove the quotes"
		}
	case is("array") && scalar:
		return fmt.Sprintf("write a list: [%s]", cut(n.at.Value))
	}
	return ""
}

func wordHint(word string) string {
	switch strings.ToLower(word) {
	case "yes", "on", "true":
		return "write true"
	case "no", "off", "false":
		return "write false"
	}
	return ""
}

// described names a value of the wrong type the way it stands in the file.
func described(n *node) string {
	switch v := n.value.(type) {
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case *waiting:
		return typeNames[jsonTypes[v.kind()]]
	case string:
		return fmt.Sprintf("the string %s", written(n))
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	default:
		return fmt.Sprintf("the number %s", written(n))
	}
}

// written is a scalar as it stands in the file: numbers unquoted, texts in quotes and
// cut when long. A value that came from an expression is shown as what it came to.
func written(n *node) string {
	switch v := n.value.(type) {
	case string:
		return fmt.Sprintf("%q", cut(v))
	case map[string]any, []any:
		return string(cut(string(canonical(v))))
	case nil:
		return "null"
	}
	if n.tmpl != nil {
		return string(canonical(n.value))
	}
	return n.at.Value
}

func cut(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

func bound(keyword string, s *jsonschema.Schema) string {
	switch keyword {
	case "minimum":
		return "less than " + s.Minimum.RatString()
	case "exclusiveMinimum":
		return "not more than " + s.ExclusiveMinimum.RatString()
	case "maximum":
		return "more than " + s.Maximum.RatString()
	case "exclusiveMaximum":
		return "not less than " + s.ExclusiveMaximum.RatString()
	default:
		return "not a multiple of " + s.MultipleOf.RatString()
	}
}

// hintOf is what a schema says of itself, made into a hint.
func hintOf(s *jsonschema.Schema) string {
	text := s.Description
	if text == "" && s.Ref != nil {
		text = s.Ref.Description
	}
	text, _, _ = strings.Cut(text, ". ")
	return strings.TrimSuffix(lowerFirst(text), ".")
}

// lowerFirst lowers the first letter of a sentence, unless its first word is a name in capitals.
func lowerFirst(s string) string {
	if len(s) < 2 || s[1] < 'a' || s[1] > 'z' {
		if !strings.HasPrefix(s, "A ") {
			return s
		}
	}
	return strings.ToLower(s[:1]) + s[1:]
}

func texts(values []any) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = fmt.Sprint(v)
	}
	return all
}

func quoted(names []string, word string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = strconv.Quote(name)
	}
	if len(all) < 2 {
		return strings.Join(all, "")
	}
	return strings.Join(all[:len(all)-1], ", ") + " " + word + " " + all[len(all)-1]
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
