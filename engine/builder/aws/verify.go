package aws

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// Finish reads back all properties of the image and compares them with what was asked for.
// There are no files.
func (b *Builder) Finish(ctx context.Context, _ builder.Ledger, req builder.FinishRequest) (step.ImageInfo, error) {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return step.ImageInfo{}, err
	}
	image, err := r.imageOf(ctx, req.Pipeline, req.Key)
	if err != nil {
		return step.ImageInfo{}, err
	}
	if image, err = r.setIMDS(ctx, image, req.Pipeline.AWS.Image.IMDSv2); err != nil {
		return step.ImageInfo{}, err
	}
	if err := r.verify(ctx, image, req.Pipeline, req.Key); err != nil {
		return step.ImageInfo{}, err
	}
	info := r.info(image, req.Key)
	req.Progress(info.Size, info.Size)
	return info, nil
}

// imageOf returns the complete image of a key, as it is now.
func (r *region) imageOf(ctx context.Context, p *spec.Pipeline, key string) (types.Image, error) {
	r.changed()
	image, ok, err := r.stored(ctx, key, kindPublished, kindCandidate)
	if err == nil && !ok {
		err = fmt.Errorf("the image of key %s is not in %s any more; build again", shortKey(key), r.Name)
	}
	if err != nil {
		return image, err
	}
	return r.available(ctx, image, p.AWS.Within, nil)
}

// mismatches collects properties that aren't as they should be.
type mismatches []string

func (m *mismatches) want(name string, got, want any) {
	if got != want {
		*m = append(*m, fmt.Sprintf("%s is %v, not %v", name, got, want))
	}
}

// verify compares an image and its snapshots with what was asked for.
func (r *region) verify(ctx context.Context, i types.Image, p *spec.Pipeline, key string) error {
	caller, err := r.builder.clients.Caller(ctx, r.Name)
	if err != nil {
		return err
	}
	a := p.AWS.Image
	var m mismatches
	m.want("the owner", aws.ToString(i.OwnerId), caller.Account)
	m.want("the state", i.State, types.ImageStateAvailable)
	m.want("public", aws.ToBool(i.Public), false)
	m.want("the architecture", i.Architecture, ec2Arch(p.Arch))
	m.want("the root device's type", i.RootDeviceType, types.DeviceTypeEbs)
	m.want("the tag "+tagKey, tagValue(i.Tags, tagKey), key)
	if a.ENA {
		m.want("ENA support", aws.ToBool(i.EnaSupport), true)
	}
	if a.IMDSv2 {
		m.want("IMDS support", i.ImdsSupport, types.ImdsSupportValuesV20)
	}
	if a.BootMode != "" {
		m.want("the boot mode", i.BootMode, types.BootModeValues(a.BootMode))
	}
	if a.TPM != "" {
		m.want("TPM support", i.TpmSupport, types.TpmSupportValues(a.TPM))
	}
	if err := r.verifySnapshots(ctx, i, caller.Account, &m); err != nil {
		return err
	}
	if len(m) > 0 {
		return fmt.Errorf("the image %s in %s isn't as asked for: %s", aws.ToString(i.ImageId), r.Name, strings.Join(m, "; "))
	}
	return nil
}

func (r *region) verifySnapshots(ctx context.Context, i types.Image, account string, m *mismatches) error {
	ids := snapshotIDs(i)
	var found []types.Snapshot
	err := r.lookFor(ctx, func() (_ bool, err error) {
		found, err = r.findSnapshots(ctx, filter("snapshot-id", ids...))
		return len(found) == len(ids), err
	})
	if err != nil {
		return fmt.Errorf("read the snapshots of %s: %w", aws.ToString(i.ImageId), err)
	}
	m.want("the number of snapshots", len(found), len(ids))
	for _, s := range found {
		id := aws.ToString(s.SnapshotId)
		m.want("the state of "+id, s.State, types.SnapshotStateCompleted)
		m.want("the owner of "+id, aws.ToString(s.OwnerId), account)
	}
	return nil
}

// snapshotIDs lists the snapshots of an image.
func snapshotIDs(i types.Image) []string {
	var ids []string
	for _, d := range i.BlockDeviceMappings {
		if d.Ebs != nil && aws.ToString(d.Ebs.SnapshotId) != "" {
			ids = append(ids, aws.ToString(d.Ebs.SnapshotId))
		}
	}
	return ids
}
