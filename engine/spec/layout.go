package spec

import (
	"strings"

	"gopkg.in/yaml.v3"
)

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

// line returns a line by its number from 1. An empty value at the end of a file can be
// on the line after the last; that one is not kept.
func (f *formatter) line(n int) *formatLine {
	if n > len(f.lines) {
		return &formatLine{}
	}
	return &f.lines[n-1]
}

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
	last := min(f.lastLine(n), len(f.lines))
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
	header, _, _ := strings.Cut(string([]rune(f.line(n.Line).text)[n.Column-1:]), " #")
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
	switch {
	case indent < 0:
		// Nothing but blank lines.
		indent, delta = maxFile, 0
	case digit >= 0:
		delta = own.to - own.from
	}
	for line := n.Line + 1; line <= last; line++ {
		l := f.line(line)
		l.kind, l.delta, l.indent = content, delta, indent
	}
}
