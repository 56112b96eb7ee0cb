// Package plain tells text that can be shown to people from text that acts on a terminal, or
// that looks like other text. It is about what steps and plugins say.
//
// Strings go in; a verdict or a cleaned string comes out. The package doesn't know lengths.
package plain

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Is tells text without anything that acts on a terminal or reorders text, except for the
// control characters allowed. Text is valid UTF-8.
func Is(s, allowed string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return Acts(r) && !strings.ContainsRune(allowed, r)
	})
}

// Text returns what is plain of a text.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if Acts(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
}

// Acts tells of characters that act on a terminal, or that make text look like another.
// Invalid UTF-8 isn't among them.
func Acts(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}
