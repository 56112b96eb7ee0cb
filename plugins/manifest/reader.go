package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/spec"
)

// reader collects the mistakes of one file.
type reader struct {
	path     string
	mistakes []mistake
	programs []program
}

type mistake struct {
	line, column int
	text         string
}

// program is a path that must be an executable file of the plugin's folder.
type program struct {
	node *yaml.Node
	path string
}

// maxMistakes is how many mistakes are told of one file.
const maxMistakes = 50

func (r *reader) mistake(at *yaml.Node, format string, args ...any) {
	r.mistakes = append(r.mistakes, mistake{at.Line, at.Column, fmt.Sprintf(format, args...)})
}

// err returns the mistakes in the order of their places, or nil.
func (r *reader) err() error {
	slices.SortStableFunc(r.mistakes, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	var errs []error
	for i, m := range r.mistakes {
		if i == maxMistakes {
			errs = append(errs, fmt.Errorf("%s: and %d more", r.path, len(r.mistakes)-i))
			break
		}
		errs = append(errs, fmt.Errorf("%s:%d:%d: %s", r.path, m.line, m.column, m.text))
	}
	return errors.Join(errs...)
}

// document returns the content of the file's only YAML document, or nil.
func (r *reader) document(text []byte) *yaml.Node {
	start := &yaml.Node{Line: 1, Column: 1}
	if len(text) > maxFile {
		r.mistake(start, "the file is larger than %d bytes", maxFile)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 0:
		r.mistake(start, "the file is empty")
		return nil
	case err != nil:
		r.syntax(err)
		return nil
	}
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(err)
	default:
		r.mistake(&second, "a second YAML document begins here")
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML library, which begins with "yaml: line N: ".
func (r *reader) syntax(err error) {
	at := &yaml.Node{Line: 1, Column: 1}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if number, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok {
		if n, err := strconv.Atoi(number); err == nil {
			at.Line, text = n, rest
		}
	}
	r.mistake(at, "%s", text)
}

// field is one key of a mapping.
type field struct{ key, value *yaml.Node }

// fields returns a mapping's values by key. Keys that aren't known, or stand twice, are
// mistakes; any key is known when known is nil.
func (r *reader) fields(n *yaml.Node, what string, known []string) map[string]field {
	if !r.is(n, yaml.MappingNode, what, "a mapping") {
		return nil
	}
	found := make(map[string]field, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !r.is(key, yaml.ScalarNode, "a key", "a text") {
			continue
		}
		if first, ok := found[key.Value]; ok {
			r.mistake(key, "the key %q stands twice, first on line %d", key.Value, first.key.Line)
			continue
		}
		if known != nil && !slices.Contains(known, key.Value) {
			r.unknown(key, "key", key.Value, known)
			continue
		}
		found[key.Value] = field{key, value}
	}
	return found
}

func (r *reader) unknown(at *yaml.Node, what, got string, known []string) {
	if near := spec.Suggest(got, known); near != "" {
		r.mistake(at, "unknown %s %q; did you mean %q?", what, got, near)
		return
	}
	r.mistake(at, "unknown %s %q; known are %s", what, got, strings.Join(known, ", "))
}

func (r *reader) is(n *yaml.Node, kind yaml.Kind, what, want string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.mistake(n, "anchors and aliases aren't allowed here")
		return false
	case n.Kind != kind:
		r.mistake(n, "%s is not %s", what, want)
		return false
	}
	return true
}

// text reads a text that isn't empty; a mapping without the key gives "".
func (r *reader) text(fields map[string]field, key string) string {
	f, ok := fields[key]
	if !ok || !r.isText(f.value, key) {
		return ""
	}
	return f.value.Value
}

func (r *reader) isText(n *yaml.Node, what string) bool {
	if !r.is(n, yaml.ScalarNode, what, "a text") {
		return false
	}
	switch n.ShortTag() {
	case "!!null":
		r.mistake(n, "%s has no value", what)
	case "!!str":
		if n.Value != "" {
			return true
		}
		r.mistake(n, "%s is empty", what)
	default:
		r.mistake(n, "%s is not a text; put it into quotes", what)
	}
	return false
}

func (r *reader) boolean(fields map[string]field, key string) bool {
	f, ok := fields[key]
	if !ok || !r.is(f.value, yaml.ScalarNode, key, "true or false") {
		return false
	}
	var b bool
	if f.value.ShortTag() != "!!bool" || f.value.Decode(&b) != nil {
		r.mistake(f.value, "%s is %q, not true or false", key, f.value.Value)
	}
	return b
}

// integer reads a whole number that is at least least, or otherwise when there is none.
func (r *reader) integer(fields map[string]field, key string, least, otherwise int) int {
	f, ok := fields[key]
	if !ok || !r.is(f.value, yaml.ScalarNode, key, "a number") {
		return otherwise
	}
	n, err := strconv.Atoi(f.value.Value)
	if err != nil || n < least {
		r.mistake(f.value, "%s is %q, not a whole number of at least %d", key, f.value.Value, least)
		return otherwise
	}
	return n
}

// one reads a text that is one of a few, or otherwise when there is none.
func (r *reader) one(fields map[string]field, key string, known []string, otherwise string) string {
	got := r.text(fields, key)
	switch {
	case got == "":
		return otherwise
	case !slices.Contains(known, got):
		r.unknown(fields[key].value, key, got, known)
		return otherwise
	}
	return got
}

// list returns the texts of a list, at most most of them, together with their nodes.
func (r *reader) list(fields map[string]field, key string, most int) (texts []string, nodes []*yaml.Node) {
	f, ok := fields[key]
	if !ok || !r.is(f.value, yaml.SequenceNode, key, "a list") {
		return nil, nil
	}
	if len(f.value.Content) > most {
		r.mistake(f.value, "%s has %d entries; at most %d are allowed", key, len(f.value.Content), most)
		return nil, nil
	}
	for _, n := range f.value.Content {
		if r.isText(n, "an entry of "+key) {
			texts, nodes = append(texts, n.Value), append(nodes, n)
		}
	}
	return texts, nodes
}
