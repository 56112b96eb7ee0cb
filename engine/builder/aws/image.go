package aws

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// version changes when the same bench gives another AMI.
const version = "1"

// ImageVersion identifies what is made of a bench: this builder's version and the properties
// that are asked for.
func (b *Builder) ImageVersion(p *spec.Pipeline) (string, error) {
	if p.AWS == nil {
		return "", fmt.Errorf("%s has no builders.aws", p.File)
	}
	text, err := json.Marshal(p.AWS.Image)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return Kind + " " + version + " " + hex.EncodeToString(sum[:8]), nil
}

// stored finds the image of a key among those of this account, which are of one of the kinds
// and available, or being made.
func (r *region) stored(ctx context.Context, key string, kinds ...string) (types.Image, bool, error) {
	all, err := r.ours(ctx)
	if err != nil {
		return types.Image{}, false, err
	}
	var best types.Image
	found := false
	for _, i := range all {
		if tagValue(i.Tags, tagKey) != key || !slices.Contains(kinds, tagValue(i.Tags, tagKind)) ||
			i.State != types.ImageStateAvailable && i.State != types.ImageStatePending {
			continue
		}
		// One that is complete is worth more than one that may become so; then the first.
		if !found || rank(i) < rank(best) || rank(i) == rank(best) && created(i).Before(created(best)) {
			best, found = i, true
		}
	}
	return best, found, nil
}

func rank(i types.Image) int {
	switch {
	case i.State != types.ImageStateAvailable:
		return 2
	case tagValue(i.Tags, tagKind) != kindPublished:
		return 1
	}
	return 0
}

// available waits for an image to be complete, reporting the progress of its snapshots.
func (r *region) available(ctx context.Context, i types.Image, within time.Duration, progress func(done, total int64)) (types.Image, error) {
	if i.State == types.ImageStateAvailable {
		return i, nil
	}
	ctx, cancel := limit(ctx, within)
	defer cancel()
	if t := tagValue(i.Tags, tagToken); progress != nil && t != "" {
		stop := r.follow(ctx, t, progress)
		defer stop()
	}
	id := aws.ToString(i.ImageId)
	now, err := r.images.Wait(ctx, id, func(i types.Image, found bool) (bool, error) {
		switch {
		case !found:
			return false, errors.New("EC2 doesn't know it any more")
		case i.State == types.ImageStatePending:
			return false, nil
		case i.State == types.ImageStateAvailable:
			return true, nil
		}
		return false, fmt.Errorf("it is %s: %s", i.State, reason(i.StateReason))
	})
	if err != nil {
		return now, fmt.Errorf("wait for the image %s in %s: %w", id, r.Name, err)
	}
	r.changed()
	return now, nil
}

// follow reports how far the snapshots of a claim are, until stop is called.
func (r *region) follow(ctx context.Context, token string, progress func(done, total int64)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		// Whether the image comes to be is for its own wait to say.
		_, _ = r.snapshots.Wait(ctx, token, func(all []types.Snapshot, found bool) (bool, error) {
			done, total := snapshotBytes(all)
			if total > 0 {
				progress(done, total)
			}
			return !found || total > 0 && done == total, nil
		})
	}()
	return func() { cancel(); <-finished }
}

// snapshotBytes adds up how much of snapshots is done.
func snapshotBytes(all []types.Snapshot) (done, total int64) {
	for _, s := range all {
		size := int64(aws.ToInt32(s.VolumeSize)) * gib
		var percent int64
		if _, err := fmt.Sscanf(aws.ToString(s.Progress), "%d%%", &percent); err != nil || percent < 0 || percent > 100 {
			percent = 0
		}
		if s.State == types.SnapshotStateCompleted {
			percent = 100
		}
		done, total = done+size/100*percent+size%100*percent/100, total+size
	}
	return done, total
}

// FindImage returns the AMI of a key. One that is being made is waited for.
func (b *Builder) FindImage(ctx context.Context, p *spec.Pipeline, key string) (step.ImageInfo, bool, error) {
	r, err := b.home(ctx, p)
	if err != nil {
		return step.ImageInfo{}, false, err
	}
	image, ok, err := r.stored(ctx, key, kindPublished, kindCandidate)
	if err != nil || !ok {
		return step.ImageInfo{}, false, err
	}
	if image, err = r.available(ctx, image, p.AWS.Within, nil); err != nil {
		return step.ImageInfo{}, false, err
	}
	return r.info(image, key), true, nil
}

func (r *region) info(i types.Image, key string) step.ImageInfo {
	info := step.ImageInfo{Key: key, ID: aws.ToString(i.ImageId), Region: r.Name}
	for _, m := range i.BlockDeviceMappings {
		if m.Ebs != nil {
			info.Size += int64(aws.ToInt32(m.Ebs.VolumeSize)) * gib
		}
	}
	return info
}

// ImageBase returns the AMI of a key as a base.
func (b *Builder) ImageBase(ctx context.Context, p *spec.Pipeline, key string) (builder.Base, bool, error) {
	r, err := b.home(ctx, p)
	if err != nil {
		return builder.Base{}, false, err
	}
	i, ok, err := r.stored(ctx, key, kindPublished, kindCandidate)
	if err != nil || !ok {
		return builder.Base{}, false, err
	}
	clock, err := time.Parse(time.RFC3339, tagValue(i.Tags, tagClock))
	if err != nil {
		return builder.Base{}, false, fmt.Errorf("%s has the tag %s %q: %w", aws.ToString(i.ImageId), tagClock, tagValue(i.Tags, tagClock), err)
	}
	return builder.Base{
		ID: "image:" + key, Image: key, Clock: clock,
		Summary: fmt.Sprintf("%s %q", aws.ToString(i.ImageId), aws.ToString(i.Name)),
	}, true, nil
}

// MakeImage makes a candidate AMI of the bench, which must be in the last state of
// req.Layers, or of a checkpoint of that state. The bench is stopped for it.
func (b *Builder) MakeImage(ctx context.Context, l builder.Ledger, req builder.ImageRequest) (step.ImageInfo, error) {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return step.ImageInfo{}, err
	}
	bn := b.bench(req.Bench)
	if err := bn.lock(ctx); err != nil {
		return step.ImageInfo{}, err
	}
	defer bn.unlock()
	m := &maker{
		order: b.newOrder(r, req.Pipeline, l, kindCandidate, "image "+req.Key, 0), req: req,
		progress: func(done, total int64) { req.Progress(done, total, "bytes") },
	}
	m.name = req.Name
	m.more = map[string]string{tagKey: req.Key, tagBase: req.Base.ID, tagClock: stamp(req.Clock)}
	claim, err := m.claim(ctx, claimImage, "the image "+req.Name)
	if err != nil {
		return step.ImageInfo{}, err
	}
	image, err := m.make(ctx, bn)
	if err != nil {
		return step.ImageInfo{}, errors.Join(err, m.undo(ctx, claim))
	}
	if err := claim.Settle(ctx); err != nil {
		return step.ImageInfo{}, err
	}
	return r.info(image, req.Key), nil
}

// maker makes one image.
type maker struct {
	order
	req      builder.ImageRequest
	progress func(done, total int64)
}

// undo removes what became of a failed attempt. What can't be removed keeps its claim.
func (m *maker) undo(ctx context.Context, claim builder.Claim) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	if err := m.region.removeClaimed(ctx, m.token, true); err != nil {
		return err
	}
	return claim.Settle(ctx)
}

// make makes the image and checks it.
func (m *maker) make(ctx context.Context, bn *bench) (types.Image, error) {
	id, err := m.begin(ctx, bn)
	if err != nil {
		return types.Image{}, err
	}
	image, err := m.region.available(ctx, m.pending(id), m.p.AWS.Within, m.progress)
	if err != nil {
		return image, err
	}
	if image, err = m.region.setIMDS(ctx, image, m.p.AWS.Image.IMDSv2); err != nil {
		return image, err
	}
	if m.adopted {
		say(m.req.Log, "another run made %s in %s; using that", id, m.region.Name)
	} else {
		say(m.req.Log, "made %s in %s", id, m.region.Name)
	}
	return image, m.region.verify(ctx, image, m.p, m.req.Key)
}

func (m *maker) pending(id string) types.Image {
	return types.Image{ImageId: aws.String(id), State: types.ImageStatePending, Tags: m.tags()}
}

// begin has EC2 begin the image and returns its id.
func (m *maker) begin(ctx context.Context, bn *bench) (string, error) {
	layers := m.req.Layers
	if bn.in == nil || !bn.clean || bn.state != last(layers) {
		// A checkpoint of the sealed state must not be booted again: that would unseal it.
		from, _, err := m.region.startFrom(ctx, m.p, m.req.Base, layers)
		if err != nil {
			return "", err
		}
		m.more[tagUser] = cmp.Or(tagValue(from.Tags, tagUser), publisher.User(aws.ToString(from.OwnerId)))
		say(m.req.Log, "copying %s, which has the state", aws.ToString(from.ImageId))
		return m.fromImage(ctx, m.region, from)
	}
	in := bn.in
	m.more[tagUser] = in.user()
	if err := m.stop(ctx, bn); err != nil {
		return "", err
	}
	if m.differs(in.image) {
		return m.register(ctx, in)
	}
	return m.createImage(ctx, in.id, imageName(m.req.Name, shortKey(m.req.Key)), !in.spot)
}

// stop stops the bench so that its disks are complete. A spot instance can't be stopped:
// there EC2 restarts it when it makes the image.
func (m *maker) stop(ctx context.Context, bn *bench) error {
	in := bn.in
	bn.clean = false
	if in.spot {
		return nil
	}
	say(m.req.Log, "stopping %s", in.id)
	if err := m.freeze(ctx, in); err != nil {
		return err
	}
	_, err := client.Call(ctx, m.region.EC2.StopInstances, &ec2.StopInstancesInput{InstanceIds: []string{in.id}})
	if err != nil {
		return fmt.Errorf("stop %s in %s: %w", in.id, m.region.Name, err)
	}
	limited, cancel := limit(ctx, m.p.AWS.Within)
	defer cancel()
	now, err := m.region.instances.Wait(limited, in.id, func(i types.Instance, found bool) (bool, error) {
		switch {
		case !found:
			return false, errors.New("EC2 doesn't know it any more")
		case i.State.Name == types.InstanceStateNameTerminated || i.State.Name == types.InstanceStateNameShuttingDown:
			return false, endedError(i)
		}
		return i.State.Name == types.InstanceStateNameStopped, nil
	})
	if err != nil {
		return fmt.Errorf("wait for %s in %s to stop%s: %w", in.id, m.region.Name, stateOf(now), err)
	}
	if m.p.AWS.Image.ENA && !aws.ToBool(now.EnaSupport) {
		_, err = client.Call(ctx, m.region.EC2.ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
			InstanceId: aws.String(in.id), EnaSupport: &types.AttributeBooleanValue{Value: aws.Bool(true)},
		})
		if err != nil {
			return fmt.Errorf("set ENA support of %s: %w", in.id, err)
		}
	}
	return nil
}

// createImage makes an AMI of an instance. CreateImage knows no idempotency token: the name,
// which is unique in an account and region, tells whether an answer was lost.
func (o *order) createImage(ctx context.Context, instance, name string, noReboot bool) (string, error) {
	defer o.region.changed()
	create := func(name string) (string, error) {
		out, err := client.Call(ctx, o.region.EC2.CreateImage, &ec2.CreateImageInput{
			InstanceId: aws.String(instance), Name: aws.String(name), NoReboot: aws.Bool(noReboot), Description: aws.String(o.name),
			TagSpecifications: o.tagged(types.ResourceTypeImage, types.ResourceTypeSnapshot),
		})
		if err != nil {
			return "", err
		}
		return aws.ToString(out.ImageId), nil
	}
	id, err := o.named(ctx, name, create)
	if err != nil {
		return "", fmt.Errorf("make an image of %s in %s: %w", instance, o.region.Name, err)
	}
	return id, nil
}

// named makes an image under a name that may be taken: by ourselves, when an answer was
// lost; by another run that makes the image of the same key, which is then used; or by
// somebody else, who keeps it. As EC2 gives a name once, two runs can't make two images.
func (o *order) named(ctx context.Context, name string, create func(name string) (string, error)) (string, error) {
	id, err := create(name)
	if !client.HasCode(err, "InvalidAMIName.Duplicate") {
		return id, err
	}
	if id, err = o.findNamed(ctx, name); id != "" || err != nil {
		return id, err
	}
	name = imageName(name, o.token[:8])
	if id, err = create(name); client.HasCode(err, "InvalidAMIName.Duplicate") {
		id, err = o.findNamed(ctx, name)
	}
	if err == nil && id == "" {
		err = fmt.Errorf("the name %q belongs to another image", name)
	}
	return id, err
}

// findNamed returns the image of a name that is known to be taken, if it is the order's own,
// or as good.
func (o *order) findNamed(ctx context.Context, name string) (string, error) {
	id, seen, err := o.lookNamed(ctx, name, o.region.builder.config.Timing.Settling)
	if err == nil && !seen {
		err = fmt.Errorf("EC2 says that the name %q is taken, and shows no image of this name", name)
	}
	return id, err
}

// lookNamed looks for the order's own image, or one as good, among those of a name; seen
// tells whether there are any.
func (o *order) lookNamed(ctx context.Context, name string, within time.Duration) (id string, seen bool, err error) {
	seen, err = o.region.lookWithin(ctx, within, minLooks, func() (bool, error) {
		found, err := o.region.findImages(ctx, filter("name", name))
		for _, i := range found {
			own := tagValue(i.Tags, tagToken) == o.token && i.State != types.ImageStateDeregistered
			if own || o.asGood(i) {
				id, o.adopted = aws.ToString(i.ImageId), !own
			}
		}
		return len(found) > 0, err
	})
	return id, seen, err
}

// asGood tells whether an image of this account is what the order is to make.
func (o *order) asGood(i types.Image) bool {
	key, kind := o.more[tagKey], tagValue(i.Tags, tagKind)
	return key != "" && tagValue(i.Tags, tagKey) == key && (kind == o.kind || kind == kindPublished && o.kind == kindCandidate) &&
		(i.State == types.ImageStatePending || i.State == types.ImageStateAvailable)
}
