package spec

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/gildhq/gild/engine/diag"
)

// indentStep is how much deeper each level is, in spaces.
const indentStep = 2

// Format returns a pipeline file in canonical layout: indented by two spaces, one space
// after `key:` and `-`, no blanks at the ends of lines, at most one blank line in a row, and
// LF line ends. Nothing but white space changes; comments, quoting, order and single
// blank lines stay. Formatting twice gives the same as formatting once. Bytes are nil when
// the file isn't YAML that can be read, which the list then tells.
func Format(path string, src []byte) ([]byte, diag.List) {
	var diags diag.List
	text := strings.TrimPrefix(string(src), "\ufeff")
	before, s := readYAML(path, src, &diags)
	if diags.HasErrors() || before == nil {
		return nil, s.finish(diags)
	}
	root := decode(s, text, &diags)
	f := newFormatter(s, text)
	f.block(root, 0, owner{})
	out := f.render()
	var problems diag.List
	after, _ := readYAML(path, out, &problems)
	if after == nil || problems.HasErrors() || !bytes.Equal(canonical(before.value), canonical(after.value)) || !sameInk(text, string(out)) {
		diags = nil
		diags.Addf(diag.Pos{File: path, Line: 1, Column: 1}, "format-refused", "lay it out by hand, and report this file as a bug",
			"the layout can't be changed without changing what the file means")
		return nil, diags
	}
	return out, nil
}

// sameInk tells whether two texts differ in white space only.
func sameInk(a, b string) bool {
	strip := func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}
	return strings.Map(strip, a) == strings.Map(strip, b)
}

// owner is the key or dash that a value belongs to, with its old and new column from 0.
type owner struct{ from, to int }

// lineKind says how a line gets its indentation.
type lineKind int

const (
	// loose lines are blank or comments; they go where their neighbours go.
	loose lineKind = iota
	// anchored lines begin with a key or a dash, and have their own column.
	anchored
	// carried lines continue a value and move with its owner.
	carried
	// content lines are those of a block scalar, whose blanks are part of the value.
	content
)

// formatLine is one line of the file and what becomes of it.
type formatLine struct {
	text string
	// end is the line break as written.
	end  string
	kind lineKind
	// column is the new indentation of an anchored line.
	column int
	// delta moves a carried or content line.
	delta int
	// indent is the indentation of the block scalar a content line belongs to.
	indent int
	// solid lines are inside a value of several lines: a blank one is part of it.
	solid bool
	// gaps are where runs of spaces end that become one, in code points from 0.
	gaps []int
}

// first is the column of the first character that is no space, from 0.
func (l *formatLine) first() int {
	return len(l.text) - len(strings.TrimLeft(l.text, " "))
}

func (l *formatLine) blank() bool { return strings.TrimSpace(l.text) == "" }

type formatter struct {
	source *source
	lines  []formatLine
}

func newFormatter(s *source, text string) *formatter {
	f := &formatter{source: s, lines: make([]formatLine, len(s.lines))}
	for i, line := range s.lines {
		text = text[len(line):]
		end := ""
		if i+1 < len(s.lines) {
			n := len(string([]rune(text)[:1]))
			if strings.HasPrefix(text, "\r\n") {
				n = 2
			}
			end, text = text[:n], text[n:]
		}
		f.lines[i] = formatLine{text: line, end: end}
	}
	if last := len(f.lines) - 1; last > 0 && f.lines[last].text == "" {
		// What follows the last line break is no line.
		f.lines = f.lines[:last]
	}
	return f
}

// line returns a line by its number from 1.
func (f *formatter) line(n int) *formatLine { return &f.lines[n-1] }

// block lays out a node at a column. The owner is what the node is the value of.
func (f *formatter) block(n *yaml.Node, column int, own owner) {
	switch {
	case n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle == 0:
		f.mapping(n, column)
	case n.Kind == yaml.SequenceNode && n.Style&yaml.FlowStyle == 0:
		f.sequence(n, column)
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		f.blockScalar(n, own)
	default:
		f.carry(n, own)
	}
}

func (f *formatter) mapping(n *yaml.Node, column int) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f.anchor(key, column)
		f.closeGap(key, value, ':')
		f.block(value, column+indentStep, owner{from: key.Column - 1, to: column})
	}
}

func (f *formatter) sequence(n *yaml.Node, column int) {
	for i, item := range n.Content {
		dash := &yaml.Node{Line: n.Line, Column: n.Column}
		if i > 0 {
			dash.Line = f.dashLine(item.Line, n.Column-1)
		}
		f.anchor(dash, column)
		f.closeGap(dash, item, '-')
		f.block(item, column+indentStep, owner{from: n.Column - 1, to: column})
	}
}

// dashLine returns the line at or above an item's that has its dash.
func (f *formatter) dashLine(line, column int) int {
	for n := min(line, len(f.lines)); n > 1; n-- {
		l := f.line(n)
		if l.first() == column && strings.HasPrefix(l.text[column:], "-") {
			return n
		}
	}
	return line
}

// anchor gives the line that begins with a token its new column.
func (f *formatter) anchor(token *yaml.Node, column int) {
	l := f.line(token.Line)
	if l.first() == token.Column-1 {
		l.kind, l.column = anchored, column
	}
}

// closeGap makes one space of those between a mark and the value after it.
func (f *formatter) closeGap(token, value *yaml.Node, mark rune) {
	if value.Line != token.Line {
		return
	}
	runes := []rune(f.line(token.Line).text)
	end := value.Column - 1
	start := end
	for start > 0 && start <= len(runes) && (runes[start-1] == ' ' || runes[start-1] == '\t') {
		start--
	}
	if end > len(runes) || end-start < 1 || start == 0 || runes[start-1] != mark {
		return
	}
	l := f.line(token.Line)
	l.gaps = append(l.gaps, end)
}

// carry moves the lines that a flow collection or a scalar of several lines goes on over.
func (f *formatter) carry(n *yaml.Node, own owner) {
	last := f.lastLine(n)
	for line := n.Line; line <= last; line++ {
		l := f.line(line)
		if line > n.Line || l.first() == n.Column-1 && l.kind == loose {
			l.kind, l.delta = carried, own.to-own.from
		}
		l.solid = l.solid || line < last || line > n.Line
	}
}

// lastLine is the last line of a flow collection or of a plain or quoted scalar.
func (f *formatter) lastLine(n *yaml.Node) int {
	switch n.Kind {
	case yaml.ScalarNode:
		return f.source.scalarEnd(n).line
	case yaml.SequenceNode, yaml.MappingNode:
		return f.source.flowEnd(n).line
	}
	return n.Line
}

// blockScalar moves the content of a block scalar as a whole.
func (f *formatter) blockScalar(n *yaml.Node, own owner) {
	header := strings.TrimLeft(string([]rune(f.line(n.Line).text)[n.Column-1:]), "&!")
	header, _, _ = strings.Cut(header, " #")
	indicator := strings.LastIndexAny(header, "|>")
	header = header[max(indicator, 0):]
	indent, last := -1, n.Line
	digit := strings.IndexAny(header, "123456789")
	if digit >= 0 {
		indent = own.from + int(header[digit]-'0')
	}
	for line := n.Line + 1; line <= len(f.lines); line++ {
		l := f.line(line)
		if l.blank() && (indent < 0 || len(l.text) <= indent) {
			continue
		}
		if indent < 0 {
			indent = l.first()
			if indent <= own.from {
				return
			}
		}
		if l.first() < indent {
			break
		}
		last = line
	}
	if strings.Contains(header, "+") {
		for last < len(f.lines) && f.line(last+1).blank() {
			last++
		}
	}
	delta := own.to + indentStep - indent
	if digit >= 0 {
		delta = own.to - own.from
	}
	for line := n.Line + 1; line <= last; line++ {
		l := f.line(line)
		l.kind, l.delta, l.indent = content, delta, max(indent, 0)
	}
}

// render writes the lines in their new places.
func (f *formatter) render() []byte {
	var b strings.Builder
	blanks, started := 0, false
	for i := range f.lines {
		l := &f.lines[i]
		if l.kind != content && !l.solid && l.blank() {
			blanks++
			continue
		}
		if blanks > 0 && started {
			b.WriteByte('\n')
		}
		blanks, started = 0, true
		b.WriteString(f.rendered(i))
		b.WriteString(l.lineEnd())
	}
	return []byte(b.String())
}

// lineEnd is LF, unless the break is one that a value may have in it, or its absence
// means that a block scalar doesn't end with one.
func (l *formatLine) lineEnd() string {
	switch l.end {
	case "\r\n", "\r":
		return "\n"
	case "":
		if l.kind != content {
			return "\n"
		}
	}
	return l.end
}

func (f *formatter) rendered(i int) string {
	l := &f.lines[i]
	switch l.kind {
	case content:
		if l.blank() && len(l.text) <= l.indent {
			return ""
		}
		return shifted(l.text, l.delta)
	case anchored:
		text := strings.Repeat(" ", l.column) + strings.TrimLeft(l.closed(), " ")
		return l.trimmed(text)
	case carried:
		return l.trimmed(shifted(l.closed(), l.delta))
	}
	if strings.HasPrefix(l.text, "---") || strings.HasPrefix(l.text, "...") || strings.HasPrefix(l.text, "%") {
		return l.trimmed(l.closed())
	}
	return l.trimmed(strings.Repeat(" ", f.commentColumn(i)) + strings.TrimLeft(l.closed(), " \t"))
}

// trimmed drops blanks at the end, unless the value goes on behind them.
func (l *formatLine) trimmed(text string) string {
	if l.solid {
		return text
	}
	return strings.TrimRight(text, " \t")
}

// closed is the line's text with its gaps closed.
func (l *formatLine) closed() string {
	runes := []rune(l.text)
	slices.Sort(l.gaps)
	for i := len(l.gaps) - 1; i >= 0; i-- {
		end := l.gaps[i]
		start := end
		for start > 0 && (runes[start-1] == ' ' || runes[start-1] == '\t') {
			start--
		}
		runes = slices.Replace(runes, start, end, ' ')
	}
	return string(runes)
}

func shifted(text string, delta int) string {
	if delta >= 0 {
		return strings.Repeat(" ", delta) + text
	}
	n := min(-delta, len(text)-len(strings.TrimLeft(text, " ")))
	return text[n:]
}

// commentColumn is where a comment goes: with the line below or above it that it was
// aligned with, or else with the next one.
func (f *formatter) commentColumn(i int) int {
	column := f.lines[i].first()
	next := -1
	for n := i + 1; n < len(f.lines); n++ {
		l := &f.lines[n]
		if l.kind != anchored {
			continue
		}
		if next < 0 {
			next = l.column
		}
		if l.first() == column {
			return l.column
		}
		if l.first() < column {
			break
		}
	}
	for n := i - 1; n >= 0 && column > 0; n-- {
		if l := &f.lines[n]; l.kind == anchored && l.first() == column {
			return l.column
		}
	}
	return max(next, 0)
}
