package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// checkpoint is a state of a bench that is being stored. Nobody waits for it but who starts
// from it, and the end of the bench.
type checkpoint struct {
	order
	id    string
	claim builder.Claim
}

// checkpoint stores the state of the bench as an AMI, from which only a bench starts. The
// instance runs on: its file systems are brought to the disk before.
func (b *Builder) checkpoint(ctx context.Context, m *machine) error {
	p, key := m.req.Pipeline, m.req.Key
	if _, ok, err := m.in.region.stored(ctx, key, kindCheckpoint); ok || err != nil {
		return err
	}
	if err := m.Exec(ctx, step.Cmd{Argv: []string{"sync"}}); err != nil {
		return err
	}
	o := b.newOrder(m.in.region, p, m.ledger, kindCheckpoint, "checkpoint "+key, 0)
	o.expires = b.config.Now().Add(p.AWS.Checkpoints.MaxAge)
	o.more = map[string]string{tagKey: key, tagBase: m.req.Base.ID, tagUser: m.in.user()}
	claim, err := o.claim(ctx, claimImage, "the checkpoint "+shortKey(key))
	if err != nil {
		return err
	}
	id, err := o.createImage(ctx, m.in.id, imageName("gild-checkpoint-"+p.Name, shortKey(key)), true)
	if err != nil {
		return err
	}
	say(m.req.Log, "storing the state %s as %s", shortKey(key), id)
	m.bench.checkpoints = append(m.bench.checkpoints, &checkpoint{order: o, id: id, claim: claim})
	return nil
}

// settleCheckpoints waits until the checkpoints of a bench are complete: an instance that is
// terminated before may take an image down with it. One that failed is removed; a build
// doesn't fail by it.
func (b *Builder) settleCheckpoints(ctx context.Context, bn *bench) error {
	var errs []error
	for _, c := range bn.checkpoints {
		errs = append(errs, b.settleCheckpoint(ctx, c))
	}
	pending := bn.checkpoints
	bn.checkpoints = nil
	if err := errors.Join(errs...); err != nil || len(pending) == 0 {
		return err
	}
	c := pending[0]
	return c.region.pruneCheckpoints(ctx, c.p)
}

func (b *Builder) settleCheckpoint(ctx context.Context, c *checkpoint) error {
	_, err := c.region.available(ctx, types.Image{ImageId: aws.String(c.id), State: types.ImageStatePending}, c.p.AWS.Within, nil)
	if err != nil && ctx.Err() == nil {
		b.config.Log.Warn("a checkpoint could not be completed; it is removed", "image", c.id, "error", err)
		err = c.region.removeClaimed(ctx, c.token, true)
	}
	if err != nil {
		return fmt.Errorf("complete the checkpoint %s in %s: %w", c.id, c.region.Name, err)
	}
	return c.claim.Settle(ctx)
}

// pruneCheckpoints removes the oldest checkpoints of a pipeline beyond what it keeps.
func (r *region) pruneCheckpoints(ctx context.Context, p *spec.Pipeline) error {
	r.changed()
	all, err := r.ours(ctx)
	if err != nil {
		return err
	}
	var of []types.Image
	for _, i := range all {
		if tagValue(i.Tags, tagKind) == kindCheckpoint && tagValue(i.Tags, tagPipeline) == tagText(pipelineName(p)) && i.State == types.ImageStateAvailable {
			of = append(of, i)
		}
	}
	slices.SortFunc(of, func(a, b types.Image) int {
		return cmp.Or(created(b).Compare(created(a)), cmp.Compare(aws.ToString(a.ImageId), aws.ToString(b.ImageId)))
	})
	var errs []error
	for n, i := range of {
		if keep := p.AWS.Checkpoints.Keep; keep > 0 && n >= keep {
			errs = append(errs, r.removeImage(ctx, i))
		}
	}
	return errors.Join(errs...)
}
