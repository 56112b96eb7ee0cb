package main

import (
	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/run"
)

func (a *app) gcCommand() *cobra.Command {
	var o gcOptions
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what dead runs left",
		Long: `Gc removes everything that runs whose process is gone have left: folders, mounts,
processes. Runs that are going on are left alone, and so are finished layers and images.
It exits with 5 when something could not be removed.

With --builder aws it looks through regions too, and finds what gild made there by its tags
alone, whichever machine made it: instances, volumes, snapshots, images that were never
published, key pairs, security groups, profiles. What a run of another machine may still use
stays until a day after the run began, unless --run names the run; a checkpoint stays until
its own date.`,
		Example: `  gild gc --dry-run
  gild gc
  gild gc --builder aws --region eu-west-1,us-east-1`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onSandbox(cmd, func() error { return a.gc(cmd, o) })
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.dry, "dry-run", "n", false, "only list what would be removed")
	flags.BoolVar(&o.json, "json", false, "print what was removed as JSON")
	flags.StringVar(&o.builder, "builder", "local", "where to look, one of `local|aws`; aws looks on this machine too")
	flags.StringSliceVar(&o.regions, "region", nil, "the `REGIONS` to look through")
	a.sandboxFlag(cmd)
	flags.StringVar(&o.run, "run", "", "take this `RUN` of another machine for dead, and look for what it left only")
	return cmd
}

type gcOptions struct {
	dry, json    bool
	builder, run string
	regions      []string
}

func (o gcOptions) check(cmd *cobra.Command) error {
	if err := oneOf(cmd, "builder", o.builder, "local", "aws"); err != nil {
		return err
	}
	switch aws := o.builder == "aws"; {
	case aws && len(o.regions) == 0:
		return usagef(cmd, "--builder aws needs --region")
	case !aws && (len(o.regions) > 0 || o.run != ""):
		return usagef(cmd, "--region and --run go with --builder aws")
	}
	return nil
}

type jsonGC struct {
	DryRun  bool           `json:"dry_run"`
	Removed []jsonLeftover `json:"removed"`
	Left    []jsonLeftover `json:"left"`
	Kept    []jsonLeftover `json:"kept"`
	Running []string       `json:"running"`
}

func (a *app) gc(cmd *cobra.Command, o gcOptions) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	return a.withEngine(ctx, func(e *engine.Engine) error {
		report, err := e.GC(ctx, engine.GCRequest{Dry: o.dry, Regions: o.regions, Run: o.run})
		if err != nil {
			return err
		}
		if o.json {
			err = a.printJSON(gcJSON(report, o.dry))
		} else {
			err = a.printGC(report, o.dry)
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
	for _, l := range r.Kept {
		a.say("kept %s: %v", resource(l.Resource), l.Err)
	}
	for _, l := range r.Left {
		a.say("could not remove %s: %v", resource(l.Resource), l.Err)
	}
	if len(r.Removed)+len(r.Left)+len(r.Kept) == 0 {
		a.say("nothing to remove")
	}
	return a.print(lines(out))
}

// resource names a resource for people, in one line: plugins choose its words.
func resource(r builder.Resource) string { return diag.Printable(engine.ResourceName(r)) }

func gcJSON(r *engine.GCReport, dry bool) jsonGC {
	out := jsonGC{DryRun: dry, Removed: []jsonLeftover{}, Left: leftoversJSON(r.Left), Kept: leftoversJSON(r.Kept), Running: orEmpty(r.Running)}
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
