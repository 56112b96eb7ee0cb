package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
)

// claims are the kinds that this builder makes.
var claims = []string{claimInstance, claimImage, claimSnapshot, claimVolume, claimKeyPair, claimGroup, claimProfile, claimSpot}

// Cleanup removes what a claim stands for, found by its token alone. An image that is
// complete and has its key is kept: it is stored.
func (b *Builder) Cleanup(ctx context.Context, res builder.Resource) (mine bool, err error) {
	if !slices.Contains(claims, res.Kind) {
		return false, nil
	}
	name, token, ok := strings.Cut(res.ID, "/")
	if !ok || name == "" || token == "" {
		return true, fmt.Errorf("the claim %s %q is not of the form region/token", res.Kind, res.ID)
	}
	r, err := b.region(ctx, name)
	if err != nil {
		return true, err
	}
	switch res.Kind {
	case claimInstance:
		err = errors.Join(r.terminate(ctx, token), r.cancelSpot(ctx, filter("tag:"+tagToken, token)))
	case claimImage, claimSnapshot:
		err = r.removeClaimed(ctx, token, false)
	case claimVolume:
		err = r.removeVolumes(ctx, token)
	case claimKeyPair:
		err = r.removeKeyPair(ctx, keyName(token))
	case claimGroup:
		err = r.removeGroups(ctx, token)
	case claimProfile:
		err = r.removeProfile(ctx, profileName(token))
	}
	return true, err
}

// removeClaimed removes the images and snapshots of a claim. Without all, images that are
// complete and have a key stay.
func (r *region) removeClaimed(ctx context.Context, token string, all bool) error {
	defer r.changed()
	var images []types.Image
	err := r.lookFor(ctx, func() (found bool, err error) {
		images, err = r.findImages(ctx, filter("tag:"+tagToken, token))
		return len(images) > 0, err
	})
	if err != nil {
		return fmt.Errorf("look for the image of claim %s in %s: %w", token, r.Name, err)
	}
	kept := map[string]bool{}
	for _, i := range images {
		if !all && i.State == types.ImageStateAvailable && tagValue(i.Tags, tagKey) != "" {
			for _, id := range snapshotIDs(i) {
				kept[id] = true
			}
			continue
		}
		if err := r.removeImage(ctx, i); err != nil {
			return err
		}
	}
	// Those that no image names: of one that was still being made.
	snapshots, err := r.findSnapshots(ctx, filter("tag:"+tagToken, token))
	if err != nil {
		return fmt.Errorf("look for the snapshots of claim %s in %s: %w", token, r.Name, err)
	}
	var errs []error
	for _, s := range snapshots {
		if id := aws.ToString(s.SnapshotId); !kept[id] {
			errs = append(errs, r.removeSnapshot(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// removeImage deregisters an image of this account and deletes its snapshots, but for those
// that another image needs. It refuses what gild didn't make.
func (r *region) removeImage(ctx context.Context, i types.Image) error {
	defer r.changed()
	id := aws.ToString(i.ImageId)
	if tagValue(i.Tags, tagToken) == "" {
		return fmt.Errorf("%s in %s carries no tag of gild; it stays", id, r.Name)
	}
	_, err := client.Call(ctx, r.EC2.DeregisterImage, &ec2.DeregisterImageInput{ImageId: i.ImageId})
	if err != nil && !client.HasCode(err, "InvalidAMIID.NotFound", "InvalidAMIID.Unavailable") {
		return fmt.Errorf("deregister %s in %s: %w", id, r.Name, err)
	}
	var errs []error
	for _, s := range snapshotIDs(i) {
		errs = append(errs, r.removeSnapshot(ctx, s))
	}
	return errors.Join(errs...)
}

// removeSnapshot deletes a snapshot unless an image needs it.
func (r *region) removeSnapshot(ctx context.Context, id string) error {
	_, err := client.Call(ctx, r.EC2.DeleteSnapshot, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
	if client.HasCode(err, "InvalidSnapshot.InUse") {
		used, lookErr := r.findImages(ctx, filter("block-device-mapping.snapshot-id", id))
		if lookErr != nil {
			return lookErr
		}
		if len(used) > 0 {
			return nil
		}
		// An image that was just deregistered still counts.
		ctx = client.Tolerate(ctx, client.Passing{Code: "InvalidSnapshot.InUse"})
		_, err = client.Call(ctx, r.EC2.DeleteSnapshot, &ec2.DeleteSnapshotInput{SnapshotId: aws.String(id)})
	}
	if err != nil && !client.HasCode(err, "InvalidSnapshot.NotFound") {
		return fmt.Errorf("delete the snapshot %s in %s: %w", id, r.Name, err)
	}
	return nil
}

func (r *region) removeVolumes(ctx context.Context, token string) error {
	found, err := r.findVolumes(ctx, filter("tag:"+tagToken, token))
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range found {
		errs = append(errs, r.removeVolume(ctx, aws.ToString(v.VolumeId)))
	}
	return errors.Join(errs...)
}

func (r *region) findVolumes(ctx context.Context, filters ...types.Filter) ([]types.Volume, error) {
	return pages(func(token *string) ([]types.Volume, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeVolumes, &ec2.DescribeVolumesInput{Filters: filters, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Volumes, out.NextToken, nil
	})
}

func (r *region) removeVolume(ctx context.Context, id string) error {
	ctx = client.Tolerate(ctx, client.Passing{Code: "VolumeInUse"})
	_, err := client.Call(ctx, r.EC2.DeleteVolume, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
	if err != nil && !client.HasCode(err, "InvalidVolume.NotFound") {
		return fmt.Errorf("delete the volume %s in %s: %w", id, r.Name, err)
	}
	return nil
}

// cancelSpot cancels spot requests that could still give an instance.
func (r *region) cancelSpot(ctx context.Context, filters ...types.Filter) error {
	found, err := r.findSpot(ctx, filters...)
	if err != nil {
		return err
	}
	var ids []string
	for _, s := range found {
		ids = append(ids, aws.ToString(s.SpotInstanceRequestId))
	}
	if len(ids) == 0 {
		return nil
	}
	_, err = client.Call(ctx, r.EC2.CancelSpotInstanceRequests, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: ids})
	if err != nil && !client.HasCode(err, "InvalidSpotInstanceRequestID.NotFound") {
		return fmt.Errorf("cancel the spot requests %s in %s: %w", strings.Join(ids, ", "), r.Name, err)
	}
	return nil
}

// findSpot lists spot requests that could still give an instance.
func (r *region) findSpot(ctx context.Context, filters ...types.Filter) ([]types.SpotInstanceRequest, error) {
	filters = append(filters, filter("state", "open", "active"))
	return pages(func(token *string) ([]types.SpotInstanceRequest, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeSpotInstanceRequests, &ec2.DescribeSpotInstanceRequestsInput{Filters: filters, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.SpotInstanceRequests, out.NextToken, nil
	})
}
