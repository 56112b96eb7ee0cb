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
	var inputs requestOptions
	cmd := &cobra.Command{
		Use:   "resume RUN [FILE...]",
		Short: "Finish a run that failed or was stopped",
		Long: `Resume goes on with a run where it ended, from the pipeline files as they were when
it began. What a dead process left is removed first. The start of a run's id is enough.

A run that builds on AWS can be finished on another machine too: give its whole id, and the
same files and parameters it was begun with. What it made is found by its tags. Make sure
that it doesn't go on where it was begun.`,
		Example: `  gild runs
  gild resume 20261204-1203
  gild resume 20261204-120300-abcdef web.yaml --builder aws`,
		Args: argsBetween(1, -1, "a run's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onSandbox(cmd, func() error { return a.resume(cmd, o, inputs, args[0], args[1:]) })
		},
	}
	o.flags(cmd)
	inputs.inputs(cmd)
	a.sandboxFlag(cmd)
	return cmd
}

// resume finishes a run; with files, one that another machine may have begun.
func (a *app) resume(cmd *cobra.Command, o runOptions, inputs requestOptions, id string, files []string) error {
	return a.follow(cmd, o, func(ctx context.Context, e *engine.Engine, sink event.Sink) (*engine.Report, diag.List, error) {
		if len(files) == 0 {
			return e.Resume(ctx, id, sink)
		}
		r, err := inputs.request(cmd, files)
		if err != nil {
			return nil, nil, err
		}
		return e.TakeOver(ctx, id, r, sink)
	})
}
