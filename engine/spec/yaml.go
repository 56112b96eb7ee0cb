package spec

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/gildhq/gild/engine/diag"
)

const (
	// maxFile bounds the size of a file in bytes.
	maxFile = 1 << 20
	// maxNodes bounds how many values a file may unfold to, aliases counted each time.
	maxNodes = 100_000
	// maxDepth bounds how deep values may be nested.
	maxDepth = 64
	// maxRefine bounds the size in bytes up to which the line of a syntax error is
	// looked for more closely than the YAML library does.
	maxRefine = 32 << 10
	// maxTries bounds how many beginnings of a file are tried for that.
	maxTries = 200
)

// readYAML decodes one YAML document. The node is nil when there is none to work with.
func readYAML(path string, src []byte, diags *diag.List) (*node, *source) {
	text := strings.TrimPrefix(string(src), "\ufeff")
	s := &source{path: path}
	if len(text) > maxFile {
		diags.Addf(diag.Pos{File: path, Line: 1, Column: 1}, "file-too-large",
			"put long content into files of its own and name them here",
			"the file has %d bytes; at most %d are read", len(text), maxFile)
		return nil, s
	}
	s.lines = splitLines(text)
	if !checkBytes(s, text, diags) {
		return nil, s
	}
	root := decode(s, text, diags)
	if root == nil {
		return nil, s
	}
	c := converter{source: s, diags: diags}
	n := c.convert(nil, root)
	if c.full {
		// What was left out would only cause mistakes that aren't there.
		return nil, s
	}
	return n, s
}

// checkBytes reports the first byte that is no UTF-8, or a character YAML forbids.
func checkBytes(s *source, text string, diags *diag.List) bool {
	line, column := 1, 1
	for i, r := range text {
		bad := ""
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], "\ufffd"):
			bad = fmt.Sprintf("byte 0x%02x is not valid UTF-8", text[i])
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f, r > 0x7f && r < 0xa0 && r != 0x85,
			r == 0xfffe, r == 0xffff:
			bad = fmt.Sprintf("the character U+%04X can't stand in YAML", r)
		}
		if bad != "" {
			code, hint := "control-character", `write it as an escape in double quotes, such as "\e" or "\x07"`
			if strings.HasPrefix(bad, "byte") {
				code, hint = "not-utf8", "save the file as UTF-8"
			}
			diags.Addf(diag.Pos{File: s.path, Line: line, Column: column}, code, hint, "%s", bad)
			return false
		}
		column++
		if r == '\n' || r == '\u0085' || r == '\u2028' || r == '\u2029' || r == '\r' && !strings.HasPrefix(text[i+1:], "\n") {
			line, column = line+1, 1
		}
	}
	return true
}

// decode returns the content of the file's only document, or nil.
func decode(s *source, text string, diags *diag.List) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(text))
	var doc yaml.Node
	err := dec.Decode(&doc)
	switch {
	case errors.Is(err, io.EOF), err == nil && emptyDocument(&doc):
		diags.Addf(diag.Pos{File: s.path, Line: 1, Column: 1}, "empty-file",
			"`gild init` writes one to start from", "the file is empty")
		return nil
	case err != nil:
		syntaxError(s, text, err, diags)
		return nil
	}
	var second yaml.Node
	switch err := dec.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		syntaxError(s, text, err, diags)
		return nil
	default:
		pos := documentStart(s, second.Line)
		diags.Addf(pos, "second-document", "one file is one image: move it to a file of its own",
			"a second YAML document begins here")
	}
	return doc.Content[0]
}

func emptyDocument(doc *yaml.Node) bool {
	if len(doc.Content) == 0 {
		return true
	}
	c := doc.Content[0]
	return c.Kind == yaml.ScalarNode && c.ShortTag() == "!!null" && c.Value == ""
}

// documentStart is the place of the `---` at or above a line.
func documentStart(s *source, line int) diag.Pos {
	for n := min(line, len(s.lines)); n > 1; n-- {
		if strings.HasPrefix(s.line(n), "---") {
			return diag.Pos{File: s.path, Line: n, Column: 1, Width: 3}
		}
	}
	return diag.Pos{File: s.path, Line: max(line, 1), Column: 1}
}

var yamlError = regexp.MustCompile(`(?s)^yaml: (?:line (\d+): )?(.*)$`)

// syntaxError reports an error of the YAML library. It gives a line at best, and for
// some mistakes the one where the surrounding mapping begins.
func syntaxError(s *source, text string, err error, diags *diag.List) {
	line, message := 1, err.Error()
	if m := yamlError.FindStringSubmatch(err.Error()); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
	}
	line = min(max(refineLine(s, text, line), 1), len(s.lines))
	if n := tabLine(s, line); n > 0 {
		indent := s.line(n)
		column := utf8.RuneCountInString(indent[:strings.IndexByte(indent, '\t')]) + 1
		diags.Addf(diag.Pos{File: s.path, Line: n, Column: column}, "tab",
			"indent with spaces", "YAML doesn't allow a tab in the indentation")
		return
	}
	column, message, hint := explainSyntax(s.line(line), message)
	diags.Addf(diag.Pos{File: s.path, Line: line, Column: column}, "yaml-syntax", hint, "%s", message)
}

// explainSyntax finds the column that a message of the YAML library is most likely about,
// and says what it means in the words of somebody who writes YAML.
func explainSyntax(line, message string) (column int, text, hint string) {
	at := len(line) - len(strings.TrimLeft(line, " "))
	text = message
	switch {
	case strings.Contains(message, "mapping values are not allowed"):
		if i := strings.LastIndex(line, ": "); i > 0 {
			at = i
		}
		text, hint = `": " can't stand here`, "put the text into quotes, or correct the indentation"
	case strings.Contains(message, "unexpected end of stream"):
		at = max(strings.IndexAny(line, `"'`), at)
		text, hint = "this is never closed", "close the quotes or brackets"
	case strings.Contains(message, "cannot start any token"):
		hint = "put the text into quotes"
	case strings.Contains(message, "did not find expected key"), strings.Contains(message, "did not find expected '-' indicator"):
		text, hint = "this line doesn't continue what is above it", "correct the indentation"
	case strings.Contains(message, "could not find expected ':'"):
		text, hint = `this is no "key: value"`, "add the colon, or correct the indentation"
	case strings.HasPrefix(message, "did not find expected"):
		text = strings.TrimPrefix(message, "did not find ")
	}
	return utf8.RuneCountInString(line[:at]) + 1, text, hint
}

// tabLine returns the line at or next to line whose indentation has a tab, or 0.
func tabLine(s *source, line int) int {
	for _, n := range []int{line, line + 1, line - 1} {
		text := s.line(n)
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if strings.Contains(indent, "\t") && strings.TrimSpace(text) != "" {
			return n
		}
	}
	return 0
}

// refineLine looks for the first line after which no beginning of the file is valid
// YAML any more: that is where a reader would look for the mistake.
func refineLine(s *source, text string, reported int) int {
	if len(text) > maxRefine || len(s.lines) < 2 {
		return reported
	}
	tries := 0
	valid := func(n int) bool {
		tries++
		var doc yaml.Node
		err := yaml.Unmarshal([]byte(strings.Join(s.lines[:n], "\n")+"\n"), &doc)
		return err == nil
	}
	good, bad := 0, len(s.lines)
	for {
		for bad-good > 1 {
			if mid := (good + bad) / 2; valid(mid) {
				good = mid
			} else {
				bad = mid
			}
		}
		// A flow collection or a quoted text of several lines is only valid once it is
		// closed, so a later beginning may be fine again.
		next := 0
		for n := bad + 1; n < min(bad+40, len(s.lines)) && next == 0 && tries < maxTries; n++ {
			if valid(n) {
				next = n
			}
		}
		if next == 0 {
			return bad
		}
		good, bad = next, len(s.lines)
	}
}

// converter turns YAML nodes into nodes of ours, once, and checks on the way what the
// library lets pass.
type converter struct {
	source *source
	diags  *diag.List
	count  int
	// open are the collections being converted, to find an alias inside its own anchor.
	open []*yaml.Node
	// full tells that the rest was left out.
	full bool
}

func (c *converter) convert(key, y *yaml.Node) *node {
	at := y
	for at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	n := &node{key: key, at: at}
	c.count++
	switch {
	case c.full:
		return n
	case c.count > maxNodes:
		c.full = true
		c.diags.Addf(c.source.pos(y), "too-many-values", "aliases are counted each time they are used",
			"the file has more than %d values", maxNodes)
		return n
	case len(c.open) >= maxDepth:
		c.full = true
		c.diags.Addf(c.source.pos(y), "too-deep", "", "values are nested more than %d deep", maxDepth)
		return n
	case y.Kind == yaml.AliasNode && c.isOpen(at):
		c.full = true
		c.diags.Addf(c.source.pos(y), "alias-cycle", "", "*%s stands inside the value it refers to", y.Value)
		return n
	}
	if at.Kind == yaml.ScalarNode {
		c.scalar(n)
		return n
	}
	c.open = append(c.open, at)
	defer func() { c.open = c.open[:len(c.open)-1] }()
	if at.Kind == yaml.SequenceNode {
		c.list(n)
	} else {
		c.object(n)
	}
	return n
}

func (c *converter) isOpen(y *yaml.Node) bool {
	for _, o := range c.open {
		if o == y {
			return true
		}
	}
	return false
}

func (c *converter) list(n *node) {
	c.checkTag(n.at, "!!seq")
	values := make([]any, len(n.at.Content))
	n.items = make([]*node, len(n.at.Content))
	for i, y := range n.at.Content {
		item := c.convert(nil, y)
		n.items[i], values[i] = item, item.value
		n.dynamic = n.dynamic || item.dynamic
	}
	n.value = values
}

func (c *converter) object(n *node) {
	c.checkTag(n.at, "!!map")
	values := make(map[string]any, len(n.at.Content)/2)
	n.fields = make(map[string]*node, len(n.at.Content)/2)
	n.value = values
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.at.Content); i += 2 {
		key, y := n.at.Content[i], n.at.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, y)
			continue
		}
		name, ok := c.keyName(key)
		if !ok {
			continue
		}
		if first, ok := n.fields[name]; ok {
			c.diags.Addf(c.source.pos(key), "duplicate-key", "remove one of the two",
				"the key %q is already on line %d", name, first.key.Line)
			continue
		}
		c.add(n, values, name, c.convert(key, y))
	}
	for _, y := range merges {
		c.merge(n, values, y)
	}
}

func (c *converter) add(n *node, values map[string]any, name string, field *node) {
	n.names = append(n.names, name)
	n.fields[name], values[name] = field, field.value
	n.dynamic = n.dynamic || field.dynamic
}

// merge adds what `<<` names, except for keys that are there already.
func (c *converter) merge(n *node, values map[string]any, y *yaml.Node) {
	from := c.convert(nil, y)
	sources := []*node{from}
	if from.items != nil {
		sources = from.items
	}
	for _, m := range sources {
		if m.fields == nil {
			if !c.full {
				c.diags.Addf(c.source.pos(y), "bad-merge", "write `<<: *anchor`, where the anchor is a mapping",
					"<< merges mappings only")
			}
			continue
		}
		for _, name := range m.names {
			if _, ok := n.fields[name]; !ok {
				c.add(n, values, name, m.fields[name])
			}
		}
	}
}

func (c *converter) keyName(key *yaml.Node) (string, bool) {
	at := key
	for at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	if at.Kind != yaml.ScalarNode {
		c.diags.Addf(c.source.pos(key), "bad-key", "", "a key must be a text")
		return "", false
	}
	if strings.Contains(at.Value, "${{") {
		c.diags.Addf(c.source.pos(key), "expression-not-allowed", "write the key itself",
			"an expression can't be a key")
		return "", false
	}
	c.warnWord(at)
	return at.Value, true
}

func (c *converter) checkTag(y *yaml.Node, want string) {
	if tag := y.ShortTag(); tag != want {
		c.diags.Addf(c.source.pos(y), "unknown-tag", "remove the tag", "the YAML tag %q has no meaning here", y.Tag)
	}
}

func (c *converter) scalar(n *node) {
	y := n.at
	switch y.ShortTag() {
	case "!!null":
		return
	case "!!str", "!!timestamp":
		n.value = y.Value
		c.warnWord(y)
		if strings.Contains(y.Value, "${{") {
			n.dynamic = true
			n.tmpl = &template{}
		}
	case "!!bool":
		n.value = strings.EqualFold(y.Value, "true")
	case "!!int", "!!float":
		c.number(n)
	default:
		n.value = y.Value
		c.checkTag(y, "!!str")
	}
}

func (c *converter) number(n *node) {
	y := n.at
	var v any
	if err := y.Decode(&v); err != nil {
		c.diags.Addf(c.source.pos(y), "bad-number", "", "%q is not a number", y.Value)
		return
	}
	switch v := v.(type) {
	case int:
		n.value = int64(v)
	case int64:
		n.value = v
	case uint64:
		n.value = float64(v)
	case float64:
		n.value = v
		if math.IsInf(v, 0) || math.IsNaN(v) {
			n.value = 0.0
			c.diags.Addf(c.source.pos(y), "not-finite", "", "%s is no number that can be used here", y.Value)
		}
	}
	if leadingZero.MatchString(y.Value) && y.Style == 0 {
		c.diags.Warnf(c.source.pos(y), "leading-zero", fmt.Sprintf("quote it if it is a text: %q", y.Value),
			"%s is read as the number %v", y.Value, n.value)
	}
}

var leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]+$`)

// warnWord warns of a plain word that YAML 1.1 tools take for a boolean.
func (c *converter) warnWord(y *yaml.Node) {
	if y.Style != 0 || len(y.Value) > 3 {
		return
	}
	switch strings.ToLower(y.Value) {
	case "y", "yes", "on", "n", "no", "off":
		c.diags.Warnf(c.source.pos(y), "yaml-word", fmt.Sprintf("write true or false for a boolean, %q for a text", y.Value),
			"%s is a text here, but a boolean in older YAML tools", y.Value)
	}
}
