package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	var inputs requestOptions
	cmd := &cobra.Command{
		Use:   "doctor [FILE...]",
		Short: "Check that this machine, or AWS, can build",
		Long: `Doctor looks for everything that building needs on this machine, and gives the one
command that installs what is missing. It changes nothing, and exits with 1 when
something that every build needs is missing.

With pipeline files that build on AWS it looks for all that they need there: credentials,
regions, instance types, base, network, keys, and each permission.`,
		Example: `  gild doctor
  gild doctor web.yaml --builder aws`,
		Args: argsBetween(0, -1, ""),
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) > 0 {
				return a.survey(cmd, inputs, files, asJSON)
			}
			if inputs.builder != "" {
				return usagef(cmd, "--builder goes with pipeline files: what is needed depends on them")
			}
			return a.doctor(cmd.Context(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	inputs.inputs(cmd)
	return cmd
}

// survey looks for what pipelines need of a cloud.
func (a *app) survey(cmd *cobra.Command, inputs requestOptions, files []string, asJSON bool) error {
	req, err := inputs.request(cmd, files)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	return a.withEngine(ctx, func(e *engine.Engine) error {
		findings, diags, err := e.Survey(ctx, req)
		if err != nil {
			return err
		}
		if findings == nil {
			if err := a.report("text", diags); err != nil || diags.HasErrors() {
				return errors.Join(err, diags.Err())
			}
			return invalid("these files build on this machine; gild doctor without files looks at it")
		}
		return a.showDoctor(engine.Doctor{Findings: findings}, asJSON)
	})
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
	return a.showDoctor(engine.Examine(ctx, makers), asJSON)
}

func (a *app) showDoctor(d engine.Doctor, asJSON bool) (err error) {
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
