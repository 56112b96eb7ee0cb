package spec

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/diag"
)

// node is one value of a YAML document: as plain data, and with its place in the file.
type node struct {
	// value is the value as plain data: nil, bool, string, int64, float64, []any or
	// map[string]any. A template that was evaluated has its result here, and one that
	// can't be evaluated yet is a *waiting.
	value any
	// key is where the value's key is written; nil for list items and the root.
	key *yaml.Node
	// at is where the value is written; for an alias, what it refers to.
	at *yaml.Node
	// names are the keys in file order, fields the values by key. Nil unless an object.
	names  []string
	fields map[string]*node
	// items are the entries of a list.
	items []*node
	// tmpl is set for a string with an expression in it.
	tmpl *template
	// dynamic tells that this value, or one inside it, has an expression.
	dynamic bool
}

// get returns the value at a path of keys, or nil.
func (n *node) get(path ...string) *node {
	for _, name := range path {
		if n == nil {
			return nil
		}
		n = n.fields[name]
	}
	return n
}

// text returns the value as text, or "" for a nil node or any other type.
func (n *node) text() string {
	if n == nil {
		return ""
	}
	s, _ := n.value.(string)
	return s
}

// truth returns the value as a boolean, or otherwise for a nil node or any other type.
func (n *node) truth(otherwise bool) bool {
	if n == nil {
		return otherwise
	}
	if b, ok := n.value.(bool); ok {
		return b
	}
	return otherwise
}

// integer returns the value as an integer, or otherwise.
func (n *node) integer(otherwise int) int {
	if n == nil {
		return otherwise
	}
	switch v := n.value.(type) {
	case int64:
		return int(v)
	case float64:
		return int(v)
	}
	return otherwise
}

// texts returns the items that are text, or nil for a nil node.
func (n *node) texts() []string {
	if n == nil {
		return nil
	}
	var all []string
	for _, item := range n.items {
		if s, ok := item.value.(string); ok {
			all = append(all, s)
		}
	}
	return all
}

// find follows a JSON pointer as far as it goes and returns the last node reached,
// with whether that is the one asked for.
func (n *node) find(pointer string) (*node, bool) {
	for token := range pointerTokens(pointer) {
		next := n.child(token)
		if next == nil {
			return n, false
		}
		n = next
	}
	return n, true
}

func (n *node) child(token string) *node {
	if n.fields != nil {
		return n.fields[token]
	}
	i, err := strconv.Atoi(token)
	if err != nil || i < 0 || i >= len(n.items) {
		return nil
	}
	return n.items[i]
}

var (
	pointerUnescaper = strings.NewReplacer("~1", "/", "~0", "~")
	pointerEscaper   = strings.NewReplacer("~", "~0", "/", "~1")
)

func pointerTokens(pointer string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if pointer == "" {
			return
		}
		for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if !yield(pointerUnescaper.Replace(token)) {
				return
			}
		}
	}
}

// join appends a key to a JSON pointer.
func join(pointer, key string) string {
	return pointer + "/" + pointerEscaper.Replace(key)
}

// joinIndex appends a list index to a JSON pointer.
func joinIndex(pointer string, i int) string {
	return pointer + "/" + strconv.Itoa(i)
}

// source is the text of a file, for positions and for the lines shown with diagnostics.
type source struct {
	path  string
	lines []string
	// hidden are lines that hold secrets and are not shown with diagnostics.
	hidden map[int]bool
}

// hideSecret tells whether a value stands under `secrets`, and if so keeps its line from
// being shown.
func (s *source) hideSecret(root, n *node) bool {
	secrets := root.get("secrets")
	if secrets == nil {
		return false
	}
	for _, secret := range secrets.fields {
		for _, part := range append([]*node{secret}, fieldsOf(secret)...) {
			if part != n {
				continue
			}
			if s.hidden == nil {
				s.hidden = map[int]bool{}
			}
			s.hidden[n.at.Line] = true
			return true
		}
	}
	return false
}

func fieldsOf(n *node) []*node {
	all := make([]*node, 0, len(n.names))
	for _, name := range n.names {
		all = append(all, n.fields[name])
	}
	return all
}

// line returns a line by its number from 1, or "" past the end.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// pos is the place of a YAML node, as wide as its text on the first line.
func (s *source) pos(y *yaml.Node) diag.Pos {
	if y == nil {
		return diag.Pos{File: s.path, Line: 1, Column: 1}
	}
	if y.Line > len(s.lines) {
		// An empty value at the end of the file.
		last := len(s.lines)
		return diag.Pos{File: s.path, Line: last, Column: utf8.RuneCountInString(s.line(last)) + 1, Width: 1}
	}
	return diag.Pos{File: s.path, Line: y.Line, Column: y.Column, Width: s.width(y)}
}

// value is the place of a node's value, or of its key when the value is an empty one.
func (s *source) value(n *node) diag.Pos {
	if n == nil {
		return s.pos(nil)
	}
	if n.at.Kind == yaml.ScalarNode && n.at.Value == "" && n.at.Style == 0 && n.key != nil {
		return s.pos(n.key)
	}
	return s.pos(n.at)
}

// name is the place of a node's key, or of its value when it has none.
func (s *source) name(n *node) diag.Pos {
	if n == nil || n.key == nil {
		return s.value(n)
	}
	return s.pos(n.key)
}

func (s *source) width(y *yaml.Node) int {
	if y.Kind != yaml.ScalarNode {
		return 1
	}
	rest := []rune(s.line(y.Line))
	if y.Column-1 >= len(rest) || y.Column < 1 {
		return 1
	}
	rest = rest[y.Column-1:]
	n := len(rest)
	switch y.Style &^ yaml.TaggedStyle {
	case 0:
		n = len([]rune(y.Value))
	case yaml.DoubleQuotedStyle, yaml.SingleQuotedStyle:
		n = closingQuote(rest)
	case yaml.LiteralStyle, yaml.FoldedStyle:
		n = 1
	}
	return max(1, min(n, len(rest)))
}

// closingQuote returns the length of a quoted text up to its closing quote, or all of it.
func closingQuote(rest []rune) int {
	quote := rest[0]
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && quote == '"':
			i++
		case rest[i] != quote:
		case quote == '\'' && i+1 < len(rest) && rest[i+1] == '\'':
			i++
		default:
			return i + 1
		}
	}
	return len(rest)
}

// splitLines splits text where YAML does: at LF, CRLF, CR, and Unicode's own breaks.
func splitLines(text string) []string {
	var lines []string
	start := 0
	for i, r := range text {
		switch r {
		case '\n', '\r', '\u0085', '\u2028', '\u2029':
		default:
			continue
		}
		if r == '\n' && i > 0 && text[i-1] == '\r' {
			start = i + 1
			continue
		}
		lines = append(lines, text[start:i])
		start = i + len(string(r))
	}
	return append(lines, text[start:])
}

// finish sets the source line of every diagnostic that has none, drops warnings about a
// value that has an error, and sorts the list.
func (s *source) finish(l diag.List) diag.List {
	wrong := map[diag.Pos]bool{}
	for _, d := range l {
		wrong[d.Pos] = wrong[d.Pos] || d.Severity == diag.Error
	}
	l = slices.DeleteFunc(l, func(d diag.Diagnostic) bool { return d.Severity == diag.Warning && wrong[d.Pos] })
	for i := range l {
		d := &l[i]
		if d.Source == "" && d.Pos.File == s.path && !s.hidden[d.Pos.Line] {
			d.Source = s.line(d.Pos.Line)
		}
	}
	l.Sort()
	return l
}
