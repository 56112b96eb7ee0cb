package spec

import (
	"strings"
	"unicode/utf8"
)

// maxExpression bounds the length of one expression in bytes.
const maxExpression = 4 << 10

// template is a string with expressions in it.
type template struct {
	pieces []piece
	// bare marks a condition written without ${{ }}.
	bare bool
	// broken marks a string that couldn't be split.
	broken bool
}

// piece is a literal text, or an expression.
type piece struct {
	literal string
	// expr is the text between ${{ and }}, as written; set when isExpr is.
	expr   string
	isExpr bool
	// offset is where expr begins in the whole string, in code points.
	offset int
}

// whole returns the only expression of a template that has nothing else.
func (t *template) whole() (piece, bool) {
	if len(t.pieces) == 1 && t.pieces[0].isExpr {
		return t.pieces[0], true
	}
	return piece{}, false
}

// unclosed is the mistake of a `${{` without its `}}`, at an offset in code points.
type unclosed struct{ offset int }

// parseTemplate splits a string at its expressions.
func parseTemplate(text string) (*template, *unclosed) {
	t := &template{}
	rest, offset := text, 0
	for {
		before, after, found := strings.Cut(rest, "${{")
		if before != "" {
			t.pieces = append(t.pieces, piece{literal: before})
		}
		if !found {
			return t, nil
		}
		offset += utf8.RuneCountInString(before)
		end := closing(after)
		if end < 0 {
			return t, &unclosed{offset}
		}
		expr := after[:end]
		t.pieces = append(t.pieces, piece{expr: expr, isExpr: true, offset: offset + 3})
		offset += utf8.RuneCountInString(expr) + 5
		rest = after[end+2:]
	}
}

// closing returns the index of the `}}` that ends an expression, which may have texts
// and braces of its own, or -1.
func closing(expr string) int {
	depth := 0
	for i := 0; i < len(expr); i++ {
		switch c := expr[i]; c {
		case '"', '\'', '`':
			end := closingText(expr[i:])
			if end < 0 {
				// A text that never ends: take the next }} as the end, so that the
				// expression's own parser says what is wrong.
				if j := strings.Index(expr[i:], "}}"); j >= 0 {
					return i + j
				}
				return -1
			}
			i += end
		case '{':
			depth++
		case '}':
			if depth == 0 && strings.HasPrefix(expr[i:], "}}") {
				return i
			}
			depth--
		}
	}
	return -1
}

// closingText returns the index of the quote that ends a text, or -1.
func closingText(text string) int {
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && text[0] != '`':
			i++
		case text[i] == text[0]:
			return i
		}
	}
	return -1
}
