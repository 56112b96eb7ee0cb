package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/run"
)

func (a *app) gcCommand() *cobra.Command {
	var dry, asJSON bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what dead runs left",
		Long: `Gc removes everything that runs whose process is gone have left: folders, mounts,
processes. Runs that are going on are left alone, and so are finished layers and images.
It exits with 5 when something could not be removed.`,
		Example: `  gild gc --dry-run
  gild gc`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.gc(cmd.Context(), dry, asJSON) },
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only list what would be removed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was removed as JSON")
	return cmd
}

type jsonGC struct {
	DryRun  bool           `json:"dry_run"`
	Removed []jsonLeftover `json:"removed"`
	Left    []jsonLeftover `json:"left"`
	Running []string       `json:"running"`
}

func (a *app) gc(ctx context.Context, dry, asJSON bool) error {
	ctx, stop := a.interruptible(ctx, nil)
	defer stop()
	return a.withEngine(ctx, func(e *engine.Engine) error {
		report, err := e.GC(ctx, engine.GCRequest{Dry: dry})
		if err != nil {
			return err
		}
		if asJSON {
			err = a.printJSON(gcJSON(report, dry))
		} else {
			err = a.printGC(report, dry)
		}
		if err == nil && len(report.Left) > 0 {
			err = exitWith(exitLeftovers)
		}
		return err
	})
}

func (a *app) printGC(r *engine.GCReport, dry bool) error {
	word := "removed"
	if dry {
		word = "would remove"
	}
	var out []string
	for _, res := range r.Removed {
		out = append(out, word+" "+resource(res))
	}
	for _, id := range r.Running {
		a.say("run %s is going on; what it uses was left alone", id)
	}
	for _, l := range r.Left {
		a.say("could not remove %s: %v", resource(l.Resource), l.Err)
	}
	if len(r.Removed)+len(r.Left) == 0 {
		a.say("nothing to remove")
	}
	return a.print(lines(out))
}

// resource names a resource for people, in one line: plugins choose its words.
func resource(r builder.Resource) string { return diag.Printable(engine.ResourceName(r)) }

func gcJSON(r *engine.GCReport, dry bool) jsonGC {
	out := jsonGC{DryRun: dry, Removed: []jsonLeftover{}, Left: leftoversJSON(r.Left), Running: orEmpty(r.Running)}
	for _, res := range r.Removed {
		out.Removed = append(out.Removed, jsonLeftover{Kind: res.Kind, ID: res.ID, Note: res.Note})
	}
	return out
}

func leftoversJSON(left []run.Leftover) []jsonLeftover {
	out := []jsonLeftover{}
	for _, l := range left {
		out = append(out, jsonLeftover{Kind: l.Resource.Kind, ID: l.Resource.ID, Note: l.Resource.Note, Node: l.Task, Error: l.Err.Error()})
	}
	return out
}
