package diag

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/clipperhouse/displaywidth"
)

// lineBudget is how much of a source line is shown, in code points.
const lineBudget = 160

// WriteText renders the list for people: one block per diagnostic, in the list's order.
//
//	pipelines/web.yaml:14:13: step "harden" needs "tests", which needs "harden" (line 9) [graph-cycle]
//	   14 |     needs: [tests]
//	      |             ^~~~~
//	hint: remove one of the two entries
//
// Control characters in it are shown as escapes, so that a file can't write to the
// terminal. Colours are ANSI sequences. The error is that of w.
func WriteText(w io.Writer, l List, color bool) error {
	t := textWriter{w: bufio.NewWriter(w), color: color}
	for _, d := range l {
		t.diagnostic(d)
	}
	return t.w.Flush()
}

type textWriter struct {
	w     *bufio.Writer
	color bool
}

// The ANSI styles of the parts.
const (
	styleBold    = "1"
	styleError   = "1;31"
	styleWarning = "1;33"
	styleCode    = "2"
	styleCaret   = "1;32"
	styleHint    = "36"
)

func (t *textWriter) style(style, text string) string {
	if !t.color || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (t *textWriter) diagnostic(d Diagnostic) {
	if d.Pos.File != "" {
		fmt.Fprintf(t.w, "%s: ", t.style(styleBold, Printable(d.Pos.String())))
	}
	switch {
	case d.Severity == Warning:
		fmt.Fprintf(t.w, "%s ", t.style(styleWarning, "warning:"))
	case t.color:
		fmt.Fprintf(t.w, "%s ", t.style(styleError, "error:"))
	}
	fmt.Fprintf(t.w, "%s %s\n", Printable(d.Message), t.style(styleCode, "["+d.Code+"]"))
	if d.Source != "" && d.Pos.Line > 0 {
		t.source(d)
	}
	if d.Hint != "" {
		fmt.Fprintf(t.w, "%s %s\n", t.style(styleHint, "hint:"), Printable(d.Hint))
	}
}

// source writes the source line and the marks below it.
func (t *textWriter) source(d Diagnostic) {
	line, column := window([]rune(d.Source), d.Pos.Column)
	shown := strings.Map(oneCell, string(line))
	fmt.Fprintf(t.w, "%5d | %s\n", d.Pos.Line, shown)
	if column < 1 || column > len(line)+1 {
		return
	}
	cells := []rune(shown)
	width := min(max(d.Pos.Width, 1), max(len(cells)-column+1, 1))
	marked := displaywidth.String(string(cells[column-1 : min(column-1+width, len(cells))]))
	marks := "^" + strings.Repeat("~", max(marked, 1)-1)
	fmt.Fprintf(t.w, "      | %s%s\n", blank(cells[:column-1]), t.style(styleCaret, marks))
}

// window cuts a long line to what is around the column, and returns the column in it.
func window(line []rune, column int) ([]rune, int) {
	if len(line) <= lineBudget {
		return line, column
	}
	from := min(max(column-lineBudget/2, 0), len(line)-lineBudget)
	to := from + lineBudget
	cut := append([]rune(nil), line[from:to]...)
	if from > 0 {
		cut[0] = '…'
	}
	if to < len(line) {
		cut[len(cut)-1] = '…'
	}
	return cut, column - from
}

// blank is as wide as the text and shows nothing. Tabs stay, so that what follows lines up.
func blank(text []rune) string {
	var b strings.Builder
	start := 0
	for i, r := range text {
		if r == '\t' {
			b.WriteString(strings.Repeat(" ", displaywidth.String(string(text[start:i]))))
			b.WriteByte('\t')
			start = i + 1
		}
	}
	b.WriteString(strings.Repeat(" ", displaywidth.String(string(text[start:]))))
	return b.String()
}

// oneCell replaces what a terminal would act upon by a mark of the same width.
func oneCell(r rune) rune {
	if r != '\t' && hidden(r) {
		return unicode.ReplacementChar
	}
	return r
}

// hidden tells whether a terminal would act upon a character, or hide it.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

// Printable returns text with control and formatting characters written as escapes, such
// as \x1b and \u202e, so that it can be shown on a terminal in one line.
func Printable(text string) string {
	if !strings.ContainsFunc(text, hidden) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !hidden(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteByte(' ')
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}
