package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// differs tells whether the image is to have properties that CreateImage can't give it: it
// takes the boot mode and the TPM from the instance.
func (m *maker) differs(from types.Image) bool {
	i := m.p.AWS.Image
	return i.BootMode != "" && i.BootMode != string(from.BootMode) || i.TPM != "" && i.TPM != string(from.TpmSupport)
}

// register makes the image with properties of its own: an intermediate image gives the
// snapshots, and is gone afterwards.
func (m *maker) register(ctx context.Context, in *instance) (string, error) {
	if d := aws.ToString(in.image.PlatformDetails); len(in.image.ProductCodes) > 0 || d != "" && d != "Linux/UNIX" {
		return "", fmt.Errorf("the base %s (%s) is paid for through its image, which an image with another boot mode or TPM would lose; leave builders.aws.image as the base has it",
			aws.ToString(in.image.ImageId), d)
	}
	between := m.order
	between.token, between.name, between.more = digest(m.token, "intermediate"), "gild intermediate "+m.req.Name, nil
	claim, err := between.claim(ctx, claimImage, "the intermediate image")
	if err != nil {
		return "", err
	}
	id, err := between.createImage(ctx, in.id, imageName("gild-intermediate-"+m.req.Name, between.token[:12]), !in.spot)
	if err != nil {
		return "", err
	}
	source, err := m.region.available(ctx, types.Image{ImageId: aws.String(id), State: types.ImageStatePending, Tags: between.tags()}, m.p.AWS.Within, m.progress)
	if err != nil {
		return "", err
	}
	made, err := m.registerFrom(ctx, source)
	if err != nil {
		return "", err
	}
	// The snapshots are the new image's now, and stay.
	if err := m.region.removeClaimed(ctx, between.token, true); err != nil {
		return "", err
	}
	return made, claim.Settle(ctx)
}

func (m *maker) registerFrom(ctx context.Context, source types.Image) (string, error) {
	defer m.region.changed()
	a := m.p.AWS.Image
	in := &ec2.RegisterImageInput{
		Architecture: source.Architecture, BootMode: types.BootModeValues(a.BootMode), TpmSupport: types.TpmSupportValues(a.TPM),
		RootDeviceName: source.RootDeviceName, VirtualizationType: aws.String("hvm"), EnaSupport: aws.Bool(a.ENA || aws.ToBool(source.EnaSupport)),
		Description: aws.String(m.name), TagSpecifications: m.tagged(types.ResourceTypeImage),
	}
	if a.BootMode == "" {
		in.BootMode = source.BootMode
	}
	if a.IMDSv2 {
		in.ImdsSupport = types.ImdsSupportValuesV20
	}
	var snapshots []string
	for _, d := range source.BlockDeviceMappings {
		if d.Ebs == nil {
			continue
		}
		snapshots = append(snapshots, aws.ToString(d.Ebs.SnapshotId))
		in.BlockDeviceMappings = append(in.BlockDeviceMappings, types.BlockDeviceMapping{DeviceName: d.DeviceName, Ebs: &types.EbsBlockDevice{
			SnapshotId: d.Ebs.SnapshotId, VolumeSize: d.Ebs.VolumeSize, VolumeType: d.Ebs.VolumeType, DeleteOnTermination: aws.Bool(true),
		}})
	}
	id, err := m.named(ctx, imageName(m.req.Name, shortKey(m.req.Key)), func(name string) (string, error) {
		in.Name = aws.String(name)
		out, err := client.Call(ctx, m.region.EC2.RegisterImage, in)
		if err != nil {
			return "", err
		}
		return aws.ToString(out.ImageId), nil
	})
	if err != nil {
		return "", fmt.Errorf("register an image of the snapshots %s in %s: %w", strings.Join(snapshots, ", "), m.region.Name, err)
	}
	if m.adopted {
		return id, nil
	}
	// From here on the snapshots are found as the image's.
	_, err = client.Call(ctx, m.region.EC2.CreateTags, &ec2.CreateTagsInput{Resources: snapshots, Tags: m.tags()})
	if err != nil {
		return "", fmt.Errorf("tag the snapshots of %s: %w", id, err)
	}
	return id, nil
}

// fromImage copies an image of this account to where m makes one.
func (m *maker) fromImage(ctx context.Context, source *region, from types.Image) (string, error) {
	defer m.region.changed()
	id := aws.ToString(from.ImageId)
	in := &ec2.CopyImageInput{
		SourceImageId: from.ImageId, SourceRegion: aws.String(source.Name), Description: aws.String(m.name),
		TagSpecifications: m.tagged(types.ResourceTypeImage, types.ResourceTypeSnapshot),
	}
	if c := m.p.Copy; c != nil && source != m.region && c.EncryptPos.Line != 0 {
		in.Encrypted = aws.Bool(true)
		if c.KMSKey != "" {
			in.KmsKeyId = aws.String(c.KMSKey)
		}
	}
	made, err := m.named(ctx, imageName(m.req.Name, shortKey(m.req.Key)), func(name string) (string, error) {
		// CopyImage takes a name that is in use. One token for all runs, whose tags differ,
		// lets one of them copy and tells the others.
		in.Name, in.ClientToken = aws.String(name), aws.String(digest(id, m.region.Name, m.req.Key))
		out, err := client.Call(ctx, m.region.EC2.CopyImage, in)
		if client.HasCode(err, "IdempotentParameterMismatch") {
			if made, _, err := m.lookNamed(ctx, name, 0); made != "" || err != nil {
				return made, err
			}
			// An attempt that died had this token; what it made has been cleaned up.
			in.ClientToken = aws.String(digest(m.token, stamp(m.expires)))
			out, err = client.Call(ctx, m.region.EC2.CopyImage, in)
		}
		if err != nil {
			return "", err
		}
		return aws.ToString(out.ImageId), nil
	})
	if err != nil {
		return "", fmt.Errorf("copy %s from %s to %s: %w", id, source.Name, m.region.Name, err)
	}
	return made, nil
}

// setIMDS makes instances of an image need tokens for the metadata service.
func (r *region) setIMDS(ctx context.Context, i types.Image, required bool) (types.Image, error) {
	if !required || i.ImdsSupport == types.ImdsSupportValuesV20 {
		return i, nil
	}
	_, err := client.Call(ctx, r.EC2.ModifyImageAttribute, &ec2.ModifyImageAttributeInput{
		ImageId: i.ImageId, ImdsSupport: &types.AttributeValue{Value: aws.String(string(types.ImdsSupportValuesV20))},
	})
	if err != nil {
		return i, fmt.Errorf("make %s need IMDSv2: %w", aws.ToString(i.ImageId), err)
	}
	r.changed()
	return r.reread(ctx, i, func(i types.Image) bool { return i.ImdsSupport == types.ImdsSupportValuesV20 })
}

// reread reads an image until what was just changed shows, or has had time to.
func (r *region) reread(ctx context.Context, i types.Image, shows func(types.Image) bool) (types.Image, error) {
	id := aws.ToString(i.ImageId)
	err := r.lookFor(ctx, func() (bool, error) {
		found, err := r.describeImages(ctx, []string{id})
		if err != nil {
			return false, err
		}
		now, ok := found[id]
		if !ok {
			return false, errors.New("it isn't there any more")
		}
		i = now
		return shows(now), nil
	})
	if err != nil {
		return i, fmt.Errorf("read %s in %s: %w", id, r.Name, err)
	}
	return i, nil
}
