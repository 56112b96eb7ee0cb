package aws

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
)

// Sweep finds by tags alone what gild made and nobody needs any more, and removes it. It
// looks nowhere without regions. Published images are no debris; checkpoints stay until
// their own date; what a run may still work with stays, with the reason.
func (b *Builder) Sweep(ctx context.Context, req builder.SweepRequest) (builder.Swept, error) {
	s := &sweep{builder: b, req: req}
	for _, name := range req.Regions {
		r, err := b.region(ctx, name)
		if err != nil {
			return s.swept, err
		}
		s.look(ctx, r)
	}
	if len(req.Regions) > 0 {
		// IAM is one for all regions. Profiles come last: instances need them.
		r, err := b.region(ctx, req.Regions[0])
		if err != nil {
			return s.swept, err
		}
		s.profiles(ctx, r)
		s.remove(ctx)
	}
	return s.swept, context.Cause(ctx)
}

type sweep struct {
	builder *Builder
	req     builder.SweepRequest
	swept   builder.Swept
	debris  []debris
}

// debris is something to remove. What has a lower rank goes first.
type debris struct {
	builder.Resource
	rank   int
	remove func(ctx context.Context) error
}

// Ranks: what uses something goes before it.
const (
	rankSpot = iota
	rankInstance
	rankVolume
	rankImage
	rankSnapshot
	rankGroup
	rankKeyPair
	rankProfile
)

func (s *sweep) look(ctx context.Context, r *region) {
	s.spot(ctx, r)
	s.instances(ctx, r)
	s.volumes(ctx, r)
	s.images(ctx, r)
	s.groups(ctx, r)
	s.keyPairs(ctx, r)
}

// unseen records that a kind of resource could not be listed.
func (s *sweep) unseen(r *region, kind string, err error) bool {
	if err != nil {
		s.swept.Left = append(s.swept.Left, builder.Left{Resource: builder.Resource{Kind: kind, ID: r.Name + "/*", Note: "all of them"}, Err: err})
	}
	return err != nil
}

// found judges one resource by its tags.
func (s *sweep) found(r *region, kind, id string, tags []types.Tag, rank int, remove func(ctx context.Context) error) {
	run := tagValue(tags, tagRun)
	if run == "" || s.req.Run != "" && s.req.Run != run {
		return
	}
	res := resource(r, kind, id, tags)
	if err := s.needed(run, tags); err != nil {
		s.swept.Left = append(s.swept.Left, builder.Left{Resource: res, Err: err})
		return
	}
	s.debris = append(s.debris, debris{res, rank, remove})
}

// resource names something as its claim does, so that both are seen to be one.
func resource(r *region, kind, id string, tags []types.Tag) builder.Resource {
	return builder.Resource{
		Kind: kind, ID: r.Name + "/" + cmp.Or(tagValue(tags, tagToken), id),
		Note: fmt.Sprintf("%s, %s of %s, run %s", id, tagValue(tags, tagKind), tagValue(tags, tagPipeline), tagValue(tags, tagRun)),
	}
}

// needed says why something must stay, or nil.
func (s *sweep) needed(run string, tags []types.Tag) error {
	if s.req.Busy != nil {
		switch busy, known, err := s.req.Busy(run); {
		case err != nil:
			return fmt.Errorf("find out whether run %s goes on: %w", run, err)
		case busy:
			return builder.Kept(fmt.Sprintf("run %s works with it on this machine", run))
		case known:
			return nil
		}
	}
	if s.req.Run == run {
		return nil
	}
	until, err := time.Parse(time.RFC3339, tagValue(tags, tagExpires))
	if err != nil {
		return fmt.Errorf("its tag %s is %q: until when run %s of another machine needs it can't be told", tagExpires, tagValue(tags, tagExpires), run)
	}
	if s.builder.config.Now().Before(until) {
		return builder.Kept(fmt.Sprintf("run %s of another machine may need it until %s; name the run to remove it all the same", run, stamp(until)))
	}
	return nil
}

var byRun = filter("tag-key", tagRun)

func (s *sweep) spot(ctx context.Context, r *region) {
	found, err := r.findSpot(ctx, byRun)
	if s.unseen(r, claimSpot, err) {
		return
	}
	for _, q := range found {
		id := aws.ToString(q.SpotInstanceRequestId)
		s.found(r, claimSpot, id, q.Tags, rankSpot, func(ctx context.Context) error { return r.cancelSpot(ctx, filter("spot-instance-request-id", id)) })
	}
}

func (s *sweep) instances(ctx context.Context, r *region) {
	found, err := r.findInstances(ctx, byRun)
	if s.unseen(r, claimInstance, err) {
		return
	}
	for _, i := range found {
		if i.State.Name == types.InstanceStateNameTerminated {
			continue
		}
		id := aws.ToString(i.InstanceId)
		s.found(r, claimInstance, id, i.Tags, rankInstance, func(ctx context.Context) error { return r.terminateAll(ctx, []string{id}) })
	}
}

func (s *sweep) volumes(ctx context.Context, r *region) {
	found, err := r.findVolumes(ctx, byRun)
	if s.unseen(r, claimVolume, err) {
		return
	}
	for _, v := range found {
		if v.State == types.VolumeStateInUse || v.State == types.VolumeStateDeleting || v.State == types.VolumeStateDeleted {
			continue // it goes with its instance
		}
		id := aws.ToString(v.VolumeId)
		s.found(r, claimVolume, id, v.Tags, rankVolume, func(ctx context.Context) error { return r.removeVolume(ctx, id) })
	}
}

// images looks at images and snapshots. The snapshots are listed first: one that no image
// has then was not being given to one.
func (s *sweep) images(ctx context.Context, r *region) {
	snapshots, err := r.findSnapshots(ctx, byRun)
	if s.unseen(r, claimSnapshot, err) {
		return
	}
	images, err := r.findImages(ctx, byRun)
	if s.unseen(r, claimImage, err) {
		return
	}
	has := map[string]bool{}
	for _, i := range images {
		for _, id := range snapshotIDs(i) {
			has[id] = true
		}
		s.image(r, i)
	}
	for _, n := range snapshots {
		if id := aws.ToString(n.SnapshotId); !has[id] {
			s.found(r, claimSnapshot, id, n.Tags, rankSnapshot, func(ctx context.Context) error { return r.removeSnapshot(ctx, id) })
		}
	}
}

func (s *sweep) image(r *region, i types.Image) {
	complete := i.State == types.ImageStateAvailable || i.State == types.ImageStateDisabled
	id, kind := aws.ToString(i.ImageId), tagValue(i.Tags, tagKind)
	remove := func(ctx context.Context) error { return r.removeImage(ctx, i) }
	switch {
	case kind == kindPublished, complete && s.req.Resuming && tagValue(i.Tags, tagKey) != "":
	case complete && kind == kindCheckpoint:
		s.checkpoint(r, i, remove)
	default:
		s.found(r, claimImage, id, i.Tags, rankImage, remove)
	}
}

// checkpoint keeps a checkpoint as long as its own date says, whatever became of its run.
func (s *sweep) checkpoint(r *region, i types.Image, remove func(ctx context.Context) error) {
	if run := tagValue(i.Tags, tagRun); s.req.Run != "" && s.req.Run != run {
		return
	}
	res := resource(r, claimImage, aws.ToString(i.ImageId), i.Tags)
	until, err := time.Parse(time.RFC3339, tagValue(i.Tags, tagExpires))
	if err != nil || s.builder.config.Now().Before(until) {
		s.swept.Left = append(s.swept.Left, builder.Left{Resource: res, Err: builder.Kept("a checkpoint is kept until " + tagValue(i.Tags, tagExpires))})
		return
	}
	s.debris = append(s.debris, debris{res, rankImage, remove})
}

func (s *sweep) groups(ctx context.Context, r *region) {
	found, err := r.findGroups(ctx, byRun)
	if s.unseen(r, claimGroup, err) {
		return
	}
	for _, g := range found {
		id := aws.ToString(g.GroupId)
		s.found(r, claimGroup, id, g.Tags, rankGroup, func(ctx context.Context) error { return r.removeGroup(ctx, id) })
	}
}

func (s *sweep) keyPairs(ctx context.Context, r *region) {
	out, err := client.Call(ctx, r.EC2.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{Filters: []types.Filter{byRun}})
	if s.unseen(r, claimKeyPair, err) {
		return
	}
	for _, k := range out.KeyPairs {
		s.found(r, claimKeyPair, aws.ToString(k.KeyName), k.Tags, rankKeyPair, func(ctx context.Context) error {
			return r.removeKeyPair(ctx, aws.ToString(k.KeyName))
		})
	}
}

// profiles looks at roles and profiles, which share names. Credentials that may not list them
// can't have made any.
func (s *sweep) profiles(ctx context.Context, r *region) {
	names, err := r.profileNames(ctx)
	if client.HasCode(err, "AccessDenied", "AccessDeniedException") && s.req.Resuming {
		return
	}
	if s.unseen(r, claimProfile, err) {
		return
	}
	for _, name := range names {
		tags, err := r.profileTags(ctx, name)
		if s.unseen(r, claimProfile, err) {
			continue
		}
		s.found(r, claimProfile, name, tags, rankProfile, func(ctx context.Context) error { return r.removeProfile(ctx, name) })
	}
}

// profileNames lists the roles and profiles in gild's path.
func (r *region) profileNames(ctx context.Context) ([]string, error) {
	profiles, err := pages(func(token *string) ([]string, *string, error) {
		out, err := client.Call(ctx, r.IAM.ListInstanceProfiles, &iam.ListInstanceProfilesInput{PathPrefix: aws.String(profilePath), Marker: token})
		if err != nil {
			return nil, nil, err
		}
		var names []string
		for _, p := range out.InstanceProfiles {
			names = append(names, aws.ToString(p.InstanceProfileName))
		}
		return names, out.Marker, nil
	})
	if err != nil {
		return nil, err
	}
	roles, err := pages(func(token *string) ([]string, *string, error) {
		out, err := client.Call(ctx, r.IAM.ListRoles, &iam.ListRolesInput{PathPrefix: aws.String(profilePath), Marker: token})
		if err != nil {
			return nil, nil, err
		}
		var names []string
		for _, p := range out.Roles {
			names = append(names, aws.ToString(p.RoleName))
		}
		return names, out.Marker, nil
	})
	names := append(profiles, roles...)
	slices.Sort(names)
	return slices.Compact(names), err
}

// profileTags are the tags of the role, or of the profile where the role is gone.
func (r *region) profileTags(ctx context.Context, name string) ([]types.Tag, error) {
	var tags []types.Tag
	role, err := client.Call(ctx, r.IAM.ListRoleTags, &iam.ListRoleTagsInput{RoleName: aws.String(name)})
	if err == nil {
		for _, t := range role.Tags {
			tags = append(tags, types.Tag{Key: t.Key, Value: t.Value})
		}
		return tags, nil
	}
	if !isGone(err) {
		return nil, err
	}
	profile, err := client.Call(ctx, r.IAM.ListInstanceProfileTags, &iam.ListInstanceProfileTagsInput{InstanceProfileName: aws.String(name)})
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, t := range profile.Tags {
		tags = append(tags, types.Tag{Key: t.Key, Value: t.Value})
	}
	return tags, nil
}

// remove removes what was found. What fails is told, and the rest goes on.
func (s *sweep) remove(ctx context.Context) {
	slices.SortStableFunc(s.debris, func(a, b debris) int { return cmp.Compare(a.rank, b.rank) })
	for _, d := range s.debris {
		var err error
		if !s.req.Dry {
			err = d.remove(ctx)
		}
		if err != nil {
			s.swept.Left = append(s.swept.Left, builder.Left{Resource: d.Resource, Err: err})
			continue
		}
		s.swept.Removed = append(s.swept.Removed, d.Resource)
	}
}
