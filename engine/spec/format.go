package spec

import (
	"bytes"
	"slices"
	"strings"
	"unicode"

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
		if l := &f.lines[n]; l.kind == anchored && l.first() == column && l.column > 0 {
			return l.column
		}
	}
	return max(next, 0)
}
