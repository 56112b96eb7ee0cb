package engine

import (
	"context"
	"time"

	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/run"
	"github.com/gildhq/gild/engine/step"
)

// Report says how a run ended and what came out.
type Report struct {
	Run   string
	State event.State
	// ExitCode as in run.Result.
	ExitCode int
	Elapsed  time.Duration
	// Nodes in the order of the graph.
	Nodes []NodeReport
	// First is the id of the node whose failure is the root cause, or empty.
	First  string
	Images []ImageReport
	// Retired are the images that retention removed in this run.
	Retired []step.Retired
	// Leftovers could not be removed; gild gc tries again.
	Leftovers []run.Leftover
	// Locks are the gild.lock files that were written.
	Locks []string
}

// NodeReport is how one node ended.
type NodeReport struct {
	ID, Title, Place string
	run.TaskResult
}

// ImageReport is one image of the run.
type ImageReport struct {
	// Name is the pipeline's name with its matrix cell.
	Name string
	// Info are the image's files; empty when the run didn't get that far.
	Info step.ImageInfo
	// Published is the catalog's entry, nil when the image isn't published.
	Published *catalog.Image
	// Built tells an image whose disk this run made from one that was stored already.
	Built bool
}

// Ran counts the nodes that did work.
func (r *Report) Ran() int {
	n := 0
	for _, node := range r.Nodes {
		if node.State == event.Done || node.State == event.Failed || node.State == event.Undone {
			n++
		}
	}
	return n
}

func (x *execution) report(ctx context.Context, result run.Result, locks []string, elapsed time.Duration) (*Report, error) {
	r := &Report{
		Run: x.run, State: result.State, ExitCode: result.ExitCode, Elapsed: elapsed,
		First: result.First, Leftovers: result.Leftovers, Locks: locks, Retired: x.retired,
	}
	for _, n := range x.plan.Nodes {
		task := result.Tasks[n.ID]
		r.Nodes = append(r.Nodes, NodeReport{ID: n.ID, Title: n.Title, Place: place(n), TaskResult: task})
	}
	for _, img := range x.plan.Images {
		// An image that was built without a failed step has keys of its own.
		img = x.effective(&plan.Node{Image: img}).Image
		report, err := x.imageReport(ctx, img, result)
		if err != nil {
			return r, err
		}
		r.Images = append(r.Images, report)
	}
	return r, nil
}

func (x *execution) imageReport(ctx context.Context, img *plan.Image, result run.Result) (ImageReport, error) {
	out := ImageReport{Name: img.Name, Built: result.Tasks[img.Name+"/disk"].State == event.Done}
	var err error
	if out.Info, _, err = x.builderOf(img.Pipeline).FindImage(ctx, img.Pipeline, img.DiskKey); err != nil {
		return out, err
	}
	out.Info = formatsOf(out.Info, img.Pipeline.Formats())
	if img.PublishKey == "" {
		return out, nil
	}
	published, ok, err := x.catalog.ByPublishKey(ctx, img.PublishKey)
	if ok {
		out.Published = &published
	}
	return out, err
}
