package ui

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/displaywidth"
)

// cells measures text as a terminal shows it, colours taking no room.
var cells = displaywidth.Options{ControlSequences: true}

// clean makes a line of output harmless for a terminal: escape sequences, control
// characters and marks that reorder text are taken out, tabs become spaces, and of a
// line that was drawn over with carriage returns the last version is kept.
func clean(s string) string {
	s = strings.TrimRight(s, "\r\n")
	if plain(s) {
		return s
	}
	s = stripEscapes(strings.ToValidUTF8(s, "\uFFFD"))
	for _, version := range strings.Split(s, "\r") {
		if version != "" {
			s = version
		}
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case unicode.IsControl(r), reorders(r):
			return -1
		}
		return r
	}, s)
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// reorders tells the marks that change the direction in which text is read.
func reorders(r rune) bool {
	return r >= 0x202A && r <= 0x202E || r >= 0x2066 && r <= 0x2069 || r == 0x200E || r == 0x200F
}

// stripEscapes takes out ECMA-48 escape sequences, whole: CSI, OSC and the like, and
// two-character ones. An unfinished sequence takes the rest of the line with it.
func stripEscapes(s string) string {
	var out strings.Builder
	for s != "" {
		i := strings.IndexAny(s, "\x1b\u009b\u009d\u0090")
		if i < 0 {
			break
		}
		out.WriteString(s[:i])
		s = s[i+escapeLen(s[i:]):]
	}
	out.WriteString(s)
	return out.String()
}

// escapeLen is the length in bytes of the sequence that s begins with.
func escapeLen(s string) int {
	first, n := utf8.DecodeRuneInString(s)
	if first == 0x1b {
		if n == len(s) {
			return n
		}
		first = rune(s[n]) + 0x40 // the 8-bit form of what ESC introduces
		n++
	}
	switch first {
	case 0x9b: // CSI ends at a letter
		for n < len(s) && (s[n] < '@' || s[n] > '~') {
			n++
		}
		return min(n+1, len(s))
	case 0x9d, 0x90, 0x98, 0x9e, 0x9f: // OSC, DCS, SOS, PM, APC end at BEL or ST
		for n < len(s) {
			switch {
			case s[n] == '\a':
				return n + 1
			case strings.HasPrefix(s[n:], "\x1b\\"), strings.HasPrefix(s[n:], "\u009c"):
				return n + 2
			}
			n++
		}
	}
	return min(n, len(s))
}

// fit cuts text to a width in cells, showing that it was cut.
func fit(s string, width int, more string) string {
	if width <= 0 {
		return ""
	}
	return cells.TruncateString(s, width, more)
}

// pad fills text with spaces up to a width in cells.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-cells.String(s)))
}

// Span renders a finished duration: 3.2s, 42s, 1m02s, 1h02m.
func Span(d time.Duration) string {
	if d < 9950*time.Millisecond {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return clock(d.Round(time.Second))
}

// clock renders a duration that is still growing, in whole seconds.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	default:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
}

// Size renders a size in bytes with a binary unit.
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	for f >= 1023.95 && unit < len("KMGTPE")-1 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[unit])
}

// String renders "45%", "512.0 MiB" or "3 tests"; empty when nothing was reported.
func (p progress) String() string {
	switch {
	case p.total > 0:
		return fmt.Sprintf("%d%%", min(100, p.done*100/p.total))
	case p.done <= 0:
		return ""
	case p.unit == "bytes":
		return Size(p.done)
	default:
		return strings.TrimSpace(fmt.Sprintf("%d %s", p.done, p.unit))
	}
}

// quote renders a command so that it can be pasted into a shell.
func quote(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = quoteWord(a)
	}
	return strings.Join(words, " ")
}

func quoteWord(a string) string {
	safe := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("@%+=:,./-_", r)
	}
	if a != "" && strings.IndexFunc(a, func(r rune) bool { return !safe(r) }) < 0 {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}
