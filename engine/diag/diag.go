// Package diag holds diagnostics: mistakes in a user's file, each with its
// place, a stable code and a hint.
//
// Parsers and checkers append to a [List]; the command line renders it as
// text, JSON, SARIF or CI annotations. The package never prints by itself.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells whether a diagnostic stops the work.
type Severity int

const (
	// Error stops the work. It is the zero value.
	Error Severity = iota
	// Warning is shown and stops nothing.
	Warning
)

// String returns "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// Pos is a place in a file. The zero Pos means the file as a whole.
type Pos struct {
	// File is the path as the user gave it, with forward slashes.
	File string
	// Line counts from 1; 0 means no line is known.
	Line int
	// Column counts Unicode code points from 1; 0 means no column is known.
	Column int
	// Width is how many code points the caret line marks, at least 1; 0 is taken as 1.
	Width int
}

// String renders file:line:column, leaving out what isn't known.
func (p Pos) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
}

// Diagnostic is one mistake, or one warning, in one place.
type Diagnostic struct {
	Pos      Pos
	Severity Severity
	// Code is a stable kebab-case name, such as "unknown-key". Never empty.
	Code string
	// Message says what is wrong: lower case, no full stop.
	Message string
	// Hint says what to do; empty when the message already does.
	Hint string
	// Source is the text of the line at Pos, without its newline; empty when unknown.
	Source string
}

// List collects diagnostics. The zero List is empty and ready to use.
type List []Diagnostic

// Addf appends an error at pos.
func (l *List) Addf(pos Pos, code, hint, format string, args ...any) {
	*l = append(*l, Diagnostic{Pos: pos, Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)})
}

// Warnf appends a warning at pos.
func (l *List) Warnf(pos Pos, code, hint, format string, args ...any) {
	*l = append(*l, Diagnostic{Pos: pos, Severity: Warning, Code: code, Hint: hint, Message: fmt.Sprintf(format, args...)})
}

// HasErrors reports whether any diagnostic is an error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Sort orders the list by file, line, column, then code, and drops exact repeats.
func (l *List) Sort() {
	slices.SortStableFunc(*l, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Message, b.Message),
		)
	})
	*l = slices.Compact(*l)
}

// Failed is the error of an operation that stopped because of diagnostics.
type Failed struct{ List List }

// Error counts the errors; the diagnostics themselves are rendered apart.
func (f *Failed) Error() string {
	n := 0
	for _, d := range f.List {
		if d.Severity == Error {
			n++
		}
	}
	if n == 1 {
		return "1 mistake in the input"
	}
	return fmt.Sprintf("%d mistakes in the input", n)
}

// Err returns a *Failed when the list has errors, else nil.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return &Failed{List: l}
}

// FillSource sets the source line of every diagnostic that has a line and no source
// yet from the text of its file. All of the list must be about that file.
func (l List) FillSource(text []byte) {
	var lines []string
	for i := range l {
		d := &l[i]
		if d.Source != "" || d.Pos.Line == 0 {
			continue
		}
		if lines == nil {
			lines = strings.Split(string(text), "\n")
		}
		if d.Pos.Line <= len(lines) {
			d.Source = strings.TrimSuffix(lines[d.Pos.Line-1], "\r")
		}
	}
}
