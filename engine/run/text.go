package run

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/plain"
)

// sequence matches what a terminal takes as a command: CSI, strings such as a window's
// title, and the short ones.
var sequence = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-OQ-WYZ\\` + "`" + `-~])`)

// harmless makes text safe to print: terminal sequences are dropped, and other control
// characters, characters that reorder text, and invalid UTF-8 become U+FFFD. Tabs and
// newlines stay.
func harmless(text string) string {
	if isPlain(text) {
		return text
	}
	if strings.Contains(text, "\x1b") {
		text = sequence.ReplaceAllString(text, "")
	}
	return strings.Map(func(c rune) rune {
		if dangerous(c) {
			return utf8.RuneError
		}
		return c
	}, text)
}

func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < ' ' && c != '\t' && c != '\n') || c >= 0x7f {
			return false
		}
	}
	return true
}

// dangerous is [plain.Acts] but for what lays out a text: invalid UTF-8 is a RuneError already.
func dangerous(c rune) bool { return c != '\t' && c != '\n' && plain.Acts(c) }
