package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/event"
)

func (a *app) resumeCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "resume RUN",
		Short: "Finish a run that failed or was stopped",
		Long: `Resume goes on with a run where it ended, from the pipeline files as they were when
it began. What a dead process left is removed first. The start of a run's id is enough.`,
		Example: `  gild runs
  gild resume 20261204-1203`,
		Args: argsBetween(1, 1, "a run's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.follow(cmd, o, func(ctx context.Context, e *engine.Engine, sink event.Sink) (*engine.Report, diag.List, error) {
				return e.Resume(ctx, args[0], sink)
			})
		},
	}
	o.flags(cmd)
	return cmd
}
