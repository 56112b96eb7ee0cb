package spec

import (
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/diag"
)

// place is a line and column, both from 1.
type place struct{ line, column int }

// inside is the place of a part of a string value, given its offset and width in code
// points. Where escapes or folding make the exact place unclear, it is that of the value.
func (s *source) inside(n *node, offset, width int) diag.Pos {
	places := s.places(n.at)
	if offset >= len(places) {
		return s.value(n)
	}
	p := places[offset]
	pos := diag.Pos{File: s.path, Line: p.line, Column: p.column, Width: 1}
	for i := offset + 1; i < min(offset+width, len(places)) && places[i].line == p.line; i++ {
		pos.Width = places[i].column - p.column + 1
	}
	return pos
}

// scalarEnd is the place just behind a plain or quoted scalar, or that of the node itself
// when it can't be told.
func (s *source) scalarEnd(y *yaml.Node) place {
	sc := s.scan(y)
	if string(sc.got) != y.Value {
		return place{y.Line, y.Column}
	}
	return sc.at
}

// flowEnd is the place just behind the bracket that closes a flow collection.
func (s *source) flowEnd(y *yaml.Node) place {
	at := place{y.Line, y.Column}
	for _, item := range y.Content {
		switch item.Kind {
		case yaml.ScalarNode:
			at = s.scalarEnd(item)
		case yaml.AliasNode:
			at = place{item.Line, item.Column}
		default:
			at = s.flowEnd(item)
		}
	}
	closing := map[yaml.Kind]rune{yaml.SequenceNode: ']', yaml.MappingNode: '}'}[y.Kind]
	for line := at.line; line <= len(s.lines); line, at.column = line+1, 1 {
		runes := []rune(s.line(line))
		for i := at.column - 1; i < len(runes); i++ {
			if runes[i] == closing {
				return place{line, i + 2}
			}
			if runes[i] == '#' && (i == 0 || runes[i-1] == ' ' || runes[i-1] == '\t') {
				break
			}
		}
	}
	return at
}

// places returns where each code point of a scalar's value is written, or nil when
// that can't be told: it reads the scalar again and trusts itself only when it comes to
// the same value as the YAML library.
func (s *source) places(y *yaml.Node) []place {
	sc := s.scan(y)
	if string(sc.got) != y.Value {
		return nil
	}
	return sc.places
}

// scan reads a scalar again, as far as it understands it.
func (s *source) scan(y *yaml.Node) scalarScanner {
	sc := scalarScanner{source: s, at: place{y.Line, y.Column}, want: []rune(y.Value)}
	sc.skipProperties()
	switch {
	case y.Style&yaml.DoubleQuotedStyle != 0:
		sc.quoted('"')
	case y.Style&yaml.SingleQuotedStyle != 0:
		sc.quoted('\'')
	case y.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		sc.block(y.Style&yaml.FoldedStyle != 0)
	default:
		sc.plain()
	}
	return sc
}

// scalarScanner reads one scalar from the source, remembering where each part was.
type scalarScanner struct {
	source *source
	at     place
	// line is the text of the line numbered loaded.
	line   []rune
	loaded int
	want   []rune
	got    []rune
	places []place
}

func (sc *scalarScanner) add(r rune, at place) {
	sc.got = append(sc.got, r)
	sc.places = append(sc.places, at)
}

// rest is the current line from the current column on.
func (sc *scalarScanner) rest() []rune {
	if sc.loaded != sc.at.line {
		sc.line, sc.loaded = []rune(sc.source.line(sc.at.line)), sc.at.line
	}
	if sc.at.column < 1 || sc.at.column > len(sc.line) {
		return nil
	}
	return sc.line[sc.at.column-1:]
}

// skipProperties passes anchors and tags in front of the scalar.
func (sc *scalarScanner) skipProperties() {
	for {
		rest := sc.rest()
		if len(rest) == 0 || rest[0] != '&' && rest[0] != '!' {
			return
		}
		i := 0
		for i < len(rest) && rest[i] != ' ' && rest[i] != '\t' {
			i++
		}
		for i < len(rest) && (rest[i] == ' ' || rest[i] == '\t') {
			i++
		}
		sc.at.column += i
	}
}

func (sc *scalarScanner) quoted(quote rune) {
	sc.at.column++
	for len(sc.got) <= len(sc.want) {
		rest := sc.rest()
		switch {
		case len(rest) == 0:
			if !sc.fold() {
				return
			}
		case rest[0] == '\\' && quote == '"' && len(rest) == 1:
			sc.at = place{sc.at.line + 1, 1}
			sc.skipBlanks()
		case rest[0] == '\\' && quote == '"':
			r, n := escape(rest)
			sc.add(r, sc.at)
			sc.at.column += n
		case rest[0] == quote && quote == '\'' && len(rest) > 1 && rest[1] == quote:
			sc.add(quote, sc.at)
			sc.at.column += 2
		case rest[0] == quote:
			return
		default:
			sc.add(rest[0], sc.at)
			sc.at.column++
		}
	}
}

func (sc *scalarScanner) plain() {
	for len(sc.got) < len(sc.want) {
		rest := sc.rest()
		if len(rest) == 0 {
			if !sc.fold() {
				return
			}
			continue
		}
		sc.add(rest[0], sc.at)
		sc.at.column++
	}
}

// fold passes a line break: blanks around it are dropped, and it stands for a space, or
// for one newline less than there are.
func (sc *scalarScanner) fold() bool {
	for n := len(sc.got); n > 0 && (sc.got[n-1] == ' ' || sc.got[n-1] == '\t') && sc.places[n-1].line == sc.at.line; n-- {
		sc.got, sc.places = sc.got[:n-1], sc.places[:n-1]
	}
	end := sc.at
	breaks := 0
	for sc.at.line < len(sc.source.lines) {
		sc.at = place{sc.at.line + 1, 1}
		breaks++
		sc.skipBlanks()
		if len(sc.rest()) > 0 {
			break
		}
	}
	if breaks == 1 {
		sc.add(' ', end)
	}
	for i := 1; i < breaks; i++ {
		sc.add('\n', end)
	}
	return len(sc.rest()) > 0
}

func (sc *scalarScanner) skipBlanks() {
	for rest := sc.rest(); len(rest) > 0 && (rest[0] == ' ' || rest[0] == '\t'); rest = sc.rest() {
		sc.at.column++
	}
}

// block reads a literal or folded block. Its indentation is that of its first line
// with text in it.
func (sc *scalarScanner) block(folded bool) {
	first := sc.at.line + 1
	indent := -1
	for n := first; n <= len(sc.source.lines) && indent < 0; n++ {
		line := sc.source.line(n)
		if strings.Trim(line, " ") != "" {
			indent = len(line) - len(strings.TrimLeft(line, " "))
		}
	}
	for n := first; n <= len(sc.source.lines) && len(sc.got) < len(sc.want); n++ {
		line := []rune(sc.source.line(n))
		for i := max(indent, 0); i < len(line); i++ {
			sc.add(line[i], place{n, i + 1})
		}
		if len(sc.got) < len(sc.want) {
			// What a break stands for in a folded block depends on its neighbours;
			// the library has already worked that out.
			r := sc.want[len(sc.got)]
			switch {
			case r == '\n' || folded && r == ' ':
				sc.add(r, place{n, len(line) + 1})
			case !folded || len(line) > indent:
				return
			}
		}
	}
}

var escapes = map[rune]rune{
	'0': 0, 'a': '\a', 'b': '\b', 't': '\t', '\t': '\t', 'n': '\n', 'v': '\v', 'f': '\f', 'r': '\r', 'e': 0x1b,
	' ': ' ', '"': '"', '/': '/', '\\': '\\', 'N': 0x85, '_': 0xa0, 'L': 0x2028, 'P': 0x2029,
}

// escape decodes one escape of a double-quoted scalar and returns how long it is.
func escape(rest []rune) (rune, int) {
	digits := map[rune]int{'x': 2, 'u': 4, 'U': 8}[rest[1]]
	if digits == 0 {
		return escapes[rest[1]], 2
	}
	var r rune
	for i := 2; i < min(2+digits, len(rest)); i++ {
		r = r<<4 | hexDigit(rest[i])
	}
	return r, 2 + digits
}

func hexDigit(r rune) rune {
	switch {
	case r >= '0' && r <= '9':
		return r - '0'
	case r >= 'a' && r <= 'f':
		return r - 'a' + 10
	case r >= 'A' && r <= 'F':
		return r - 'A' + 10
	}
	return 0
}
