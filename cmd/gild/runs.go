package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
)

func (a *app) runsCommand() *cobra.Command {
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "runs",
		Short:   "List the latest runs",
		Example: "  gild runs --limit 5",
		Args:    argsBetween(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runs(cmd.Context(), limit, asJSON) },
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "list at most `N` runs; 0 lists all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

type jsonRun struct {
	ID       string     `json:"id"`
	State    string     `json:"state"`
	ExitCode int        `json:"exit_code"`
	Started  time.Time  `json:"started"`
	Ended    *time.Time `json:"ended,omitempty"`
	Host     string     `json:"host"`
	PID      int        `json:"pid"`
	// Interrupted says that the process is gone and the run can be resumed.
	Interrupted bool     `json:"interrupted"`
	Files       []string `json:"files"`
}

func (a *app) runs(ctx context.Context, limit int, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		runs, err := e.Runs(ctx, limit)
		if err != nil {
			return err
		}
		out := []jsonRun{}
		var rows [][]string
		for _, r := range runs {
			out = append(out, jsonRun{r.ID, string(r.State), r.ExitCode, r.Started, timeOrNil(r.Ended), r.Host, r.PID, r.Interrupted, orEmpty(r.Files)})
			took := "-"
			if !r.Ended.IsZero() {
				took = ui.Span(r.Ended.Sub(r.Started))
			}
			state := string(r.State)
			if r.Interrupted {
				state = "interrupted"
			}
			rows = append(rows, []string{r.ID, state, fmt.Sprint(r.ExitCode), when(r.Started), took, strings.Join(r.Files, " ")})
		}
		if asJSON {
			return a.printJSON(out)
		}
		return a.printTable("no runs yet", []string{"RUN", "STATE", "EXIT", "STARTED", "TOOK", "FILES"}, rows)
	})
}
