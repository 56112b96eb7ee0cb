package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine/diag"
)

// printJSON writes a result to standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// print writes text to standard output.
func (a *app) print(text string) error {
	if _, err := fmt.Fprint(a.stdout, text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// printTable writes rows in columns under their headings. Without rows it says so on
// standard error, so that a script that reads the table sees an empty one.
func (a *app) printTable(none string, headings []string, rows [][]string) error {
	if len(rows) == 0 {
		a.say("%s", none)
		return nil
	}
	return a.print(ui.Table(append([][]string{headings}, rows...)))
}

// printable is text whose lines can be shown on a terminal.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = diag.Printable(line)
	}
	return strings.Join(lines, "\n")
}

// when renders a time for people; a zero time is a dash.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// dash stands for an empty cell of a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// lines joins lines, each with its end.
func lines(ss []string) string {
	if len(ss) == 0 {
		return ""
	}
	return strings.Join(ss, "\n") + "\n"
}
