package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/spec"
)

// PublishImage turns a candidate into a published image: its tags change, and it gets a
// date from which on it counts as deprecated.
func (b *Builder) PublishImage(ctx context.Context, _ builder.Ledger, req builder.PublishRequest) error {
	r, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return err
	}
	image, err := r.imageOf(ctx, req.Pipeline, req.Key)
	if err != nil {
		return err
	}
	tags := map[string]string{}
	maps.Copy(tags, req.Tags)
	maps.Copy(tags, map[string]string{tagID: req.ID, tagBuild: fmt.Sprint(req.Build), tagName: req.Name})
	if req.Channel != "" {
		tags[tagChannel] = req.Channel
	}
	return r.publish(ctx, image, tags, req.DeprecateAfter)
}

// publish retags an image and its snapshots, and sets the deprecation date. Doing it again
// changes nothing.
func (r *region) publish(ctx context.Context, i types.Image, tags map[string]string, deprecateAfter time.Duration) error {
	defer r.changed()
	id := aws.ToString(i.ImageId)
	published, err := time.Parse(time.RFC3339, tagValue(i.Tags, tagPublished))
	if err != nil {
		published = r.builder.config.Now().UTC().Truncate(time.Second)
	}
	tags[tagKind], tags[tagPublished] = kindPublished, stamp(published)
	all := append([]string{id}, snapshotIDs(i)...)
	if deprecateAfter > 0 {
		// Before the tags: once it is published, all of it is done.
		if err := r.deprecate(ctx, i, published.Add(deprecateAfter)); err != nil {
			return err
		}
	}
	if hasTags(i.Tags, tags) && tagValue(i.Tags, tagExpires) == "" {
		return nil
	}
	_, err = client.Call(ctx, r.EC2.CreateTags, &ec2.CreateTagsInput{Resources: all, Tags: makeTags(tags)})
	if err == nil {
		_, err = client.Call(ctx, r.EC2.DeleteTags, &ec2.DeleteTagsInput{Resources: all, Tags: []types.Tag{{Key: aws.String(tagExpires)}}})
	}
	if err != nil {
		return fmt.Errorf("tag %s in %s as published: %w", strings.Join(all, ", "), r.Name, err)
	}
	now, err := r.reread(ctx, i, func(i types.Image) bool { return hasTags(i.Tags, tags) && tagValue(i.Tags, tagExpires) == "" })
	if err == nil && tagValue(now.Tags, tagKind) != kindPublished {
		// Other tags may be those of another run, which published it in the same moment.
		err = fmt.Errorf("the tags of %s in %s aren't as they were set", id, r.Name)
	}
	return err
}

func hasTags(tags []types.Tag, want map[string]string) bool {
	for k, v := range want {
		if tagValue(tags, k) != tagText(v) {
			return false
		}
	}
	return true
}

// deprecate sets the date from which on an image counts as deprecated. EC2 rounds to the minute.
func (r *region) deprecate(ctx context.Context, i types.Image, at time.Time) error {
	at = at.UTC().Truncate(time.Minute)
	if has, err := time.Parse(time.RFC3339, aws.ToString(i.DeprecationTime)); err == nil && has.Truncate(time.Minute).Equal(at) {
		return nil
	}
	_, err := client.Call(ctx, r.EC2.EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: i.ImageId, DeprecateAt: aws.Time(at)})
	if err != nil {
		return fmt.Errorf("set the deprecation date of %s in %s to %s: %w", aws.ToString(i.ImageId), r.Name, stamp(at), err)
	}
	return nil
}

// CopyImage copies an image to a region, verifies the copy and publishes it there as it is
// published at home. The location is the copy's id.
func (b *Builder) CopyImage(ctx context.Context, l builder.Ledger, req builder.CopyRequest) (string, error) {
	home, err := b.home(ctx, req.Pipeline)
	if err != nil {
		return "", err
	}
	source, err := home.imageOf(ctx, req.Pipeline, req.Key)
	if err != nil {
		return "", err
	}
	if location, ok, err := b.HasCopy(ctx, req.Pipeline, req.Key, req.Region); ok || err != nil {
		return location, err
	}
	r, err := b.region(ctx, req.Region)
	if err != nil {
		return "", err
	}
	m := &maker{
		order: b.newOrder(r, req.Pipeline, l, kindCandidate, "copy "+req.Key, 0), progress: req.Progress,
		req: builder.ImageRequest{Pipeline: req.Pipeline, Key: req.Key, Name: strings.TrimSuffix(aws.ToString(source.Name), "-"+shortKey(req.Key))},
	}
	m.name = tagValue(source.Tags, tagName)
	m.more = copied(source.Tags)
	claim, err := m.claim(ctx, claimImage, "the copy in "+r.Name)
	if err != nil {
		return "", err
	}
	id, err := m.copy(ctx, home, source)
	if err != nil {
		return "", errors.Join(err, m.undo(ctx, claim))
	}
	return id, claim.Settle(ctx)
}

// copied are the tags that a copy has from its source.
func copied(tags []types.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range tags {
		switch k := aws.ToString(t.Key); k {
		case tagRun, tagNode, tagKind, tagToken, tagExpires, tagPipeline, tagPublished:
		default:
			if !strings.HasPrefix(k, "aws:") {
				m[k] = aws.ToString(t.Value)
			}
		}
	}
	return m
}

func (m *maker) copy(ctx context.Context, home *region, source types.Image) (string, error) {
	image, err := m.copyOf(ctx, home, source)
	if err != nil {
		return "", err
	}
	id := aws.ToString(image.ImageId)
	if image, err = m.region.setIMDS(ctx, image, m.p.AWS.Image.IMDSv2); err != nil {
		return "", err
	}
	if err := m.region.verify(ctx, image, m.p, m.req.Key); err != nil {
		return "", err
	}
	if err := sameImage(source, image); err != nil {
		return "", fmt.Errorf("the copy %s in %s: %w", id, m.region.Name, err)
	}
	var deprecate time.Duration
	if m.p.Publish != nil {
		deprecate = m.p.Publish.DeprecateAfter
	}
	return id, m.region.publish(ctx, image, copied(source.Tags), deprecate)
}

// copyOf makes a copy, or finds one that an attempt that died didn't finish.
func (m *maker) copyOf(ctx context.Context, home *region, source types.Image) (types.Image, error) {
	begun, ok, err := m.region.stored(ctx, m.req.Key, kindCandidate, kindPublished)
	if err != nil || ok && begun.State == types.ImageStateAvailable {
		return begun, err
	}
	id, err := m.fromImage(ctx, home, source)
	if err != nil {
		return types.Image{}, err
	}
	return m.region.available(ctx, m.pending(id), m.p.AWS.Within, m.progress)
}

// sameImage compares a copy with what it was made of.
func sameImage(source, image types.Image) error {
	var m mismatches
	m.want("the boot mode", image.BootMode, source.BootMode)
	m.want("TPM support", image.TpmSupport, source.TpmSupport)
	m.want("the root device", aws.ToString(image.RootDeviceName), aws.ToString(source.RootDeviceName))
	m.want("the number of volumes", len(snapshotIDs(image)), len(snapshotIDs(source)))
	if len(m) > 0 {
		return errors.New(strings.Join(m, "; "))
	}
	return nil
}

// HasCopy returns the id of the image in a region. The region it was built in has the image
// itself.
func (b *Builder) HasCopy(ctx context.Context, p *spec.Pipeline, key, region string) (string, bool, error) {
	r, err := b.region(ctx, region)
	if err != nil {
		return "", false, err
	}
	kinds := []string{kindPublished}
	if p.AWS != nil && r.Name == p.AWS.Region {
		kinds = append(kinds, kindCandidate)
	}
	i, ok, err := r.stored(ctx, key, kinds...)
	if err != nil || !ok || i.State != types.ImageStateAvailable {
		return "", false, err
	}
	if tagValue(i.Tags, tagKind) == kindPublished && tagValue(i.Tags, tagExpires) != "" {
		return "", false, nil // who published it didn't get to the end
	}
	return aws.ToString(i.ImageId), true, nil
}

// RemoveImage deregisters the images of a key at the places, with their snapshots. Images
// that don't carry the key, or are of another account, stay.
func (b *Builder) RemoveImage(ctx context.Context, key string, places []builder.Place) error {
	var errs []error
	done := map[string]bool{}
	for _, p := range places {
		if !strings.HasPrefix(p.Location, "ami-") || done[p.Region] {
			continue
		}
		done[p.Region] = true
		r, err := b.region(ctx, p.Region)
		if err == nil {
			err = r.removeKey(ctx, key)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *region) removeKey(ctx context.Context, key string) error {
	found, err := r.findImages(ctx, filter("tag:"+tagKey, key))
	if err != nil {
		return fmt.Errorf("find the images of key %s in %s: %w", shortKey(key), r.Name, err)
	}
	var errs []error
	for _, i := range found {
		if k := tagValue(i.Tags, tagKind); tagValue(i.Tags, tagKey) == key && (k == kindPublished || k == kindCandidate) {
			errs = append(errs, r.removeImage(ctx, i))
		}
	}
	return errors.Join(errs...)
}
