package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/seed"
	"github.com/gildhq/gild/steps"
)

// seedImages are the images that a sandbox begins with. The disk behind them is built in
// dir unless it is there; nothing of it is in the catalog or the runs of the state folder.
func (a *app) seedImages(ctx context.Context, dir string, none bool) ([]sandbox.SeedImage, error) {
	if none {
		return nil, nil
	}
	disk, err := a.seedDisk(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("build the sandbox's first image: %w", err)
	}
	info, err := os.Stat(disk)
	if err != nil {
		return nil, err
	}
	return seed.Images(info.ModTime(), func(context.Context) (string, error) { return disk, nil }), nil
}

// seedDisk builds the raw disk of the first image and returns its path.
func (a *app) seedDisk(ctx context.Context, dir string) (_ string, err error) {
	project, state := filepath.Join(dir, "pipeline"), filepath.Join(dir, "state")
	if err := seed.WriteProject(project); err != nil {
		return "", err
	}
	maker, err := local.New(state)
	if err != nil {
		return "", err
	}
	e, err := engine.Open(ctx, engine.Config{
		State: state, Steps: steps.All(), Builders: []builder.Builder{maker}, Version: buildVersion().Version,
	})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	req := engine.Request{
		Files: []string{filepath.Join(project, seed.Pipeline)}, Selection: plan.Selection{Only: []string{"files"}},
	}
	planned, _, err := e.Plan(ctx, req)
	if err != nil {
		return "", err
	}
	progress := "none"
	if slices.ContainsFunc(planned.Nodes, func(n *plan.Node) bool { return n.Action == plan.Run }) {
		a.say("the sandbox's first image is made once, in a minute or two")
		progress = "auto"
	}
	shown := a.view(progress)
	report, diags, err := e.Build(ctx, req, shown)
	err = errors.Join(err, shown.Close())
	a.diagnostics(diags)
	switch {
	case context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", err
	case report.ExitCode != exitOK:
		return "", fmt.Errorf("%s; \"gild doctor\" tells what this machine lacks, and --no-images starts without the image", nodeFailure(report))
	}
	for _, f := range report.Images[0].Info.Files {
		if f.Format == "raw" {
			return f.Path, nil
		}
	}
	return "", errors.New("the build made no raw disk")
}

// nodeFailure says why a build failed, in one line.
func nodeFailure(r *engine.Report) string {
	for _, n := range r.Nodes {
		if n.ID == r.First && n.Err != nil {
			return fmt.Sprintf("%s: %v", n.ID, n.Err)
		}
	}
	return "the build was " + string(r.State)
}
