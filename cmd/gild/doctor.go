package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that this machine can build",
		Long: `Doctor looks for everything that building needs on this machine, and gives the one
command that installs what is missing. It changes nothing, and exits with 1 when
something that every build needs is missing.`,
		Example: "  gild doctor",
		Args:    argsBetween(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

type jsonFinding struct {
	Name     string   `json:"name"`
	OK       bool     `json:"ok"`
	Optional bool     `json:"optional"`
	Detail   string   `json:"detail"`
	Packages []string `json:"packages"`
	Fix      string   `json:"fix,omitempty"`
}

type jsonDoctor struct {
	OK       bool          `json:"ok"`
	Install  string        `json:"install,omitempty"`
	Findings []jsonFinding `json:"findings"`
}

func (a *app) doctor(ctx context.Context, asJSON bool) error {
	makers, _, err := a.builders()
	if err != nil {
		return err
	}
	d := engine.Examine(ctx, makers)
	if asJSON {
		err = a.printJSON(doctorJSON(d))
	} else {
		err = a.print(doctorText(d))
	}
	if err == nil && !d.OK() {
		err = exitWith(exitFailed)
	}
	return err
}

func doctorText(d engine.Doctor) string {
	var rows [][]string
	for _, f := range d.Findings {
		detail := f.Detail
		if !f.OK && f.Fix != "" {
			detail += "; " + f.Fix
		}
		rows = append(rows, []string{f.Name, verdict(f), detail})
	}
	text := ui.Table(rows)
	if d.Install != "" {
		text += fmt.Sprintf("\nto install what is missing:\n  %s\n", d.Install)
	}
	return text
}

func verdict(f builder.Finding) string {
	switch {
	case f.OK:
		return "ok"
	case f.Optional:
		return "missing, but optional"
	default:
		return "missing"
	}
}

func doctorJSON(d engine.Doctor) jsonDoctor {
	out := jsonDoctor{OK: d.OK(), Install: d.Install, Findings: []jsonFinding{}}
	for _, f := range d.Findings {
		out.Findings = append(out.Findings, jsonFinding{f.Name, f.OK, f.Optional, f.Detail, orEmpty(f.Packages), f.Fix})
	}
	return out
}
