package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/run"
	"github.com/gildhq/gild/engine/step"
)

// registry publishes one image of a run. It implements step.Registry.
type registry struct {
	*execution
	attempt *run.Attempt
	image   *plan.Image
	info    step.ImageInfo
}

var _ step.Registry = (*registry)(nil)

// kindRetired is the resource kind of images that retention has begun to remove; the
// id is the image's key.
const kindRetired = "retired image"

// Publish records the image in the catalog.
func (r *registry) Publish(ctx context.Context, req step.PublishRequest) (step.PublishResult, error) {
	p := r.image.Pipeline
	now := r.config.Now()
	img := catalog.Image{
		Name: req.Name, Pipeline: p.Name, Cell: p.Cell, Release: p.Release, Key: r.image.DiskKey,
		PublishKey: r.image.PublishKey, Arch: p.Arch, Created: now, Size: r.info.Size, Tags: req.Tags,
		Run: r.run, Base: r.image.Base.Summary, Parent: r.image.Base.Parent,
	}
	if req.DeprecateAfter > 0 {
		img.DeprecateAt = now.Add(req.DeprecateAfter)
	}
	for _, f := range r.info.Files {
		img.Files = append(img.Files, catalog.File{Format: f.Format, Path: f.Path, SHA256: f.SHA256, Size: f.Size, Allocated: f.Allocated})
	}
	if parent := r.image.Parent; parent != nil {
		key := r.effective(&plan.Node{Image: parent}).Image.PublishKey
		built, ok, err := r.catalog.ByPublishKey(ctx, key)
		if err != nil {
			return step.PublishResult{}, err
		}
		if !ok {
			return step.PublishResult{}, fmt.Errorf("its base %s isn't in the catalog", parent.Name)
		}
		img.Parent = built.ID
	}
	img, err := r.catalog.Publish(ctx, img, req.Channel)
	if err != nil {
		return step.PublishResult{}, err
	}
	result := step.PublishResult{ID: img.ID, Build: img.Build}
	err = r.builderOf(p).PublishImage(ctx, r.attempt, builder.PublishRequest{
		Pipeline: p, Key: r.image.DiskKey, ID: img.ID, Build: img.Build, PublishRequest: req,
	})
	if err == nil && r.info.ID != "" {
		// Last: by this the next run knows that the builder's part was done too.
		err = r.catalog.AddCopy(ctx, img.ID, catalog.Copy{Region: r.info.Region, Location: r.info.ID, At: now})
	}
	return result, err
}

// published returns the catalog's entry of the image.
func (r *registry) published(ctx context.Context) (catalog.Image, error) {
	img, ok, err := r.catalog.ByPublishKey(ctx, r.image.PublishKey)
	if err == nil && !ok {
		err = fmt.Errorf("%s is not published", r.image.Name)
	}
	return img, err
}

// Copy copies the image to a region and records the copy.
func (r *registry) Copy(ctx context.Context, region string, progress func(done, total int64)) (step.CopyResult, error) {
	img, err := r.published(ctx)
	if err != nil {
		return step.CopyResult{}, err
	}
	maker := r.builderOf(r.image.Pipeline)
	location, err := maker.CopyImage(ctx, r.attempt, builder.CopyRequest{
		Pipeline: r.image.Pipeline, Key: r.image.DiskKey, Region: region, Progress: progress,
	})
	if err != nil {
		return step.CopyResult{}, fmt.Errorf("copy %s to %s: %w", img.ID, region, err)
	}
	err = r.catalog.AddCopy(ctx, img.ID, catalog.Copy{Region: region, Location: location, At: r.config.Now()})
	return step.CopyResult{Region: region, Location: location}, err
}

// Retain retires what the rule lets go: first in the catalog, which refuses what is in
// use, then the files.
func (r *registry) Retain(ctx context.Context, rule step.RetainRule) ([]step.Retired, error) {
	gone, err := r.retirable(ctx, r.image.Pipeline, rule, false)
	if err != nil {
		return nil, err
	}
	var out []step.Retired
	for _, d := range gone {
		claim, err := r.attempt.Intent(ctx, builder.Resource{Kind: kindRetired, ID: d.Image.Key, Note: d.Image.Name})
		if err != nil {
			return out, err
		}
		err = r.catalog.Retire(ctx, d.Image.ID, d.Reason, r.config.Now())
		if errors.Is(err, catalog.ErrInUse) {
			// Somebody has begun to use it since the rule was applied: it stays.
			if err := claim.Settle(ctx); err != nil {
				return out, err
			}
			continue
		}
		if err != nil {
			return out, fmt.Errorf("retire %s build %d: %w", d.Image.Name, d.Image.Build, err)
		}
		if err := r.removeRetired(ctx, d.Image.Key); err != nil {
			return out, err
		}
		if err := claim.Settle(ctx); err != nil {
			return out, err
		}
		out = append(out, step.Retired{ID: d.Image.ID, Name: d.Image.Name, Build: d.Image.Build, Reason: d.Reason})
	}
	r.retiredMu.Lock()
	defer r.retiredMu.Unlock()
	r.retired = append(r.retired, out...)
	return out, nil
}

// removeRetired removes the files of an image's key, unless a live image has them: one
// disk may have been published twice, and a run killed before it retired the image in
// the catalog leaves a claim for one that is still in use.
func (e *Engine) removeRetired(ctx context.Context, key string) error {
	live, err := e.catalog.ByKey(ctx, key)
	if err != nil || len(live) > 0 {
		return err
	}
	copies, err := e.catalog.Copies(ctx, key)
	if err != nil {
		return err
	}
	var places []builder.Place
	for _, c := range copies {
		places = append(places, builder.Place{Region: c.Region, Location: c.Location})
	}
	for _, b := range e.builders {
		if err := b.RemoveImage(ctx, key, places); err != nil {
			return err
		}
	}
	return nil
}

// cleanup removes what a failed attempt or a dead run left.
func (e *Engine) cleanup(ctx context.Context, r builder.Resource) error {
	if r.Kind == kindRetired {
		return e.removeRetired(ctx, r.ID)
	}
	if mine, err := e.language.cleanupClaim(ctx, r); mine {
		return err
	}
	for _, b := range e.builders {
		if mine, err := b.Cleanup(ctx, r); mine || err != nil {
			return err
		}
	}
	return fmt.Errorf("clean up %s %s: this version of gild doesn't know the kind", r.Kind, r.ID)
}
