package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/event"
)

type buildOptions struct {
	requestOptions
	runOptions
	keepGoing, dryRun bool
	jobs              int
}

func (a *app) buildCommand() *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build FILE...",
		Short: "Plan and build images",
		Long: `Build makes the images that the files ask for. Steps whose result is stored are not
run again, and nothing is published unless its tests pass. Several files, or a folder
of them, are one graph: an image is built after the one it starts from.

Progress goes to standard error, the table of results to standard output. The first
Ctrl-C stops cleanly, the second at once.`,
		Example: `  gild build gild.yaml
  gild build pipelines/ --param port=8080 --keep-going
  gild build gild.yaml --until web-server      # up to one step
  gild build gild.yaml --sandbox               # an AMI, on a stand-in for AWS
  gild build gild.yaml --json --events events.jsonl`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onSandbox(cmd, func() error { return a.build(cmd, o, args) })
		},
	}
	o.inputs(cmd)
	o.selection(cmd)
	a.sandboxFlag(cmd)
	o.runOptions.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&o.keepGoing, "keep-going", "k", false, "after a failure, go on with what doesn't depend on it")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "show the plan and build nothing")
	flags.IntVarP(&o.jobs, "jobs", "j", 0, "run up to `N` steps at once (default: the number of CPUs)")
	return cmd
}

func (a *app) build(cmd *cobra.Command, o buildOptions, files []string) error {
	if o.dryRun {
		return a.plan(cmd, planOptions{requestOptions: o.requestOptions, json: o.json}, files)
	}
	if o.jobs < 0 {
		return usagef(cmd, "--jobs is %d, but must be at least 1", o.jobs)
	}
	req, err := o.request(cmd, files)
	if err != nil {
		return err
	}
	req.KeepGoing, req.Jobs = o.keepGoing, o.jobs
	return a.follow(cmd, o.runOptions, func(ctx context.Context, e *engine.Engine, sink event.Sink) (*engine.Report, diag.List, error) {
		return e.Build(ctx, req, sink)
	})
}

// runOptions are the flags of commands that run something.
type runOptions struct {
	json     bool
	progress string
	events   string
}

func (o *runOptions) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&o.json, "json", false, "print the result as JSON")
	flags.StringVar(&o.progress, "progress", "auto", "how to show progress, one of `auto|live|plain|none`")
	flags.StringVar(&o.events, "events", "", "write every event as a line of JSON to `FILE`")
}

// view shows a run while it happens.
type view interface {
	event.Sink
	stoppable
	Close() error
}

func (a *app) view(progress string) view {
	_, _, terminal := size(a.stderr)
	live := progress == "live" || progress == "auto" && terminal && a.getenv("TERM") != "dumb"
	switch {
	case progress == "none":
		return ui.NewQuiet(a.stderr)
	case live:
		columns := func() (int, int) { w, h, _ := size(a.stderr); return w, h }
		return ui.NewLive(a.stderr, columns, a.look(a.stderr), time.Now)
	default:
		return ui.NewPlain(a.stderr, time.Now)
	}
}

// follow runs something, shows it while it happens, and prints what came out.
func (a *app) follow(cmd *cobra.Command, o runOptions, run func(context.Context, *engine.Engine, event.Sink) (*engine.Report, diag.List, error)) error {
	if err := oneOf(cmd, "progress", o.progress, "auto", "live", "plain", "none"); err != nil {
		return err
	}
	events, err := openEvents(o.events)
	if err != nil {
		return err
	}
	shown := a.view(o.progress)
	ctx, stop := a.interruptible(cmd.Context(), shown)
	var story ui.Story
	var report *engine.Report
	var diags diag.List
	var channels map[string][]string
	err = a.withEngine(ctx, func(e *engine.Engine) (err error) {
		report, diags, err = run(ctx, e, event.Tee(shown, &story, events))
		if err != nil {
			return err
		}
		channels, err = channelsByImage(context.WithoutCancel(ctx), e.Catalog())
		return err
	})
	stopped := context.Cause(ctx)
	stop()
	// The view ends before anything else is printed, so that nothing is drawn over.
	err = errors.Join(err, shown.Close(), events.close())
	if report == nil && stopped != nil {
		return stopped
	}
	a.diagnostics(diags)
	if report == nil {
		return err
	}
	ended := a.result(o, &story, report, channels)
	if ended == nil {
		return err
	}
	a.explain(err)
	return ended
}

// result prints how a run ended.
func (a *app) result(o runOptions, story *ui.Story, report *engine.Report, channels map[string][]string) error {
	width, _, _ := size(a.stderr)
	if err := story.Failure(a.stderr, a.look(a.stderr), width); err != nil {
		return fmt.Errorf("write the failure report: %w", err)
	}
	if o.json {
		if err := a.printJSON(reportJSON(report, channels)); err != nil {
			return err
		}
		return exitWith(report.ExitCode)
	}
	width, _, _ = size(a.stdout)
	if err := story.Summary(a.stdout, a.look(a.stdout), width, outcome(report, channels)); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return exitWith(report.ExitCode)
}

// eventFile is the file of --events.
type eventFile struct {
	*event.JSONLSink
	file io.Closer
}

// openEvents makes the file of --events; without a name events go nowhere.
func openEvents(name string) (*eventFile, error) {
	if name == "" {
		return &eventFile{JSONLSink: event.JSONL(io.Discard)}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("write the events: %w", err)
	}
	return &eventFile{JSONLSink: event.JSONL(f), file: f}, nil
}

func (f *eventFile) close() error {
	err := f.Err()
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
	}
	if err != nil {
		return fmt.Errorf("write the events: %w", err)
	}
	return nil
}
