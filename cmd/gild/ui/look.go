package ui

import (
	"strings"

	"github.com/gildhq/gild/engine/event"
)

// Look is what the place that is written to can show. The zero Look is plain ASCII.
type Look struct {
	// Color allows ANSI colours.
	Color bool
	// Unicode allows characters outside ASCII in what gild itself draws.
	Unicode bool
}

// LookOf decides from the environment: NO_COLOR, TERM=dumb and noColor forbid colours
// (so does anything that is no terminal), and a locale that isn't UTF-8 forbids Unicode.
func LookOf(terminal, noColor bool, getenv func(string) string) Look {
	locale := getenv("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = getenv(name)
		}
	}
	locale = strings.ToLower(locale)
	return Look{
		Color:   terminal && !noColor && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb",
		Unicode: strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8"),
	}
}

const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)

func (l Look) paint(sgr, s string) string {
	if !l.Color || sgr == "" || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// sign is a state's mark and its colour.
type sign struct{ unicode, ascii, sgr string }

var signs = map[event.State]sign{
	event.Pending:   {"·", ".", dim},
	event.Running:   {"▸", ">", yellow},
	event.Done:      {"✓", "+", green},
	event.Cached:    {"=", "=", cyan},
	event.Skipped:   {"-", "-", dim},
	event.Failed:    {"✗", "x", red},
	event.Cancelled: {"!", "!", yellow},
	event.Undone:    {"↶", "u", yellow},
}

func (l Look) mark(s event.State) string {
	g := signs[s]
	if l.Unicode {
		return l.paint(g.sgr, g.unicode)
	}
	return l.paint(g.sgr, g.ascii)
}

func (l Look) state(s event.State, text string) string { return l.paint(signs[s].sgr, text) }

// more shows that something was cut off.
func (l Look) more() string {
	if l.Unicode {
		return "…"
	}
	return "..."
}

// bar is drawn before lines of a build's output.
func (l Look) bar() string {
	if l.Unicode {
		return l.paint(dim, "│")
	}
	return l.paint(dim, "|")
}
