package main

import (
	"fmt"

	"github.com/gildhq/gild/engine/diag"
)

// diagnosticFormats are the values of validate's --format.
var diagnosticFormats = []string{"text", "json", "sarif", "github"}

// diagnostics shows mistakes and warnings to people, on standard error.
func (a *app) diagnostics(l diag.List) {
	if err := diag.WriteText(a.stderr, l, a.look(a.stderr).Color); err != nil {
		// With standard error gone there is nowhere to say so; the exit code still tells.
		return
	}
}

// report writes diagnostics in one of diagnosticFormats. Text is for people and goes to
// standard error; the others are results.
func (a *app) report(format string, l diag.List) (err error) {
	switch format {
	case "json":
		err = diag.WriteJSON(a.stdout, l)
	case "sarif":
		err = diag.WriteSARIF(a.stdout, l)
	case "github":
		err = diag.WriteGitHub(a.stdout, l)
	default:
		a.diagnostics(l)
	}
	if err != nil {
		return fmt.Errorf("write the diagnostics: %w", err)
	}
	return nil
}
