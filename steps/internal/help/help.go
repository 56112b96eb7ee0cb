// Package help turns the package comment of a step into its help text.
//
// A step embeds its own doc.go and passes it to [Text]; what Go's documentation shows
// and what `gild` prints are then the same words. It reads nothing else.
package help

import "strings"

// Text returns the comment in front of the package clause as Markdown: headings, and
// examples indented by a tab, mean the same in both. Without such a comment it is empty.
func Text(docGo string) string {
	comment, _, found := strings.Cut(docGo, "\npackage ")
	if !found {
		return ""
	}
	var text strings.Builder
	for line := range strings.Lines(comment + "\n") {
		line, isComment := strings.CutPrefix(line, "//")
		if !isComment {
			text.Reset()
			continue
		}
		text.WriteString(strings.TrimPrefix(line, " "))
	}
	return text.String()
}
