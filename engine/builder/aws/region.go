package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder/aws/await"
	"github.com/gildhq/gild/engine/builder/aws/client"
)

// region is what the builder knows of one region, and how it waits for things there.
type region struct {
	*client.Region
	builder   *Builder
	instances *await.Group[types.Instance]
	images    *await.Group[types.Image]
	// snapshots are asked for by the claim they were made under: an image that is pending
	// doesn't name them yet.
	snapshots *await.Group[[]types.Snapshot]

	mu      sync.Mutex
	subnets map[string][]types.Subnet // by VPC or subnet
	bases   map[string]types.Image    // that were resolved, by id
	known   []types.Image             // ours, as listed last
	listed  time.Time
}

func (b *Builder) newRegion(c *client.Region) *region {
	r := &region{Region: c, builder: b, subnets: map[string][]types.Subnet{}, bases: map[string]types.Image{}}
	t := b.config.Timing
	r.instances = &await.Group[types.Instance]{Describe: r.describeInstances, First: t.Poll, Most: t.PollMost, Settling: t.Settling}
	r.images = &await.Group[types.Image]{Describe: r.describeImages, First: t.Poll, Most: t.PollMost, Settling: t.Settling}
	r.snapshots = &await.Group[[]types.Snapshot]{Describe: r.describeSnapshots, First: t.Poll, Most: t.PollMost, Settling: t.Settling}
	return r
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

// pages calls a paged operation until there is no further page.
func pages[T any](next func(token *string) ([]T, *string, error)) ([]T, error) {
	var all []T
	var token *string
	for {
		page, following, err := next(token)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if aws.ToString(following) == "" {
			return all, nil
		}
		token = following
	}
}

func (r *region) findInstances(ctx context.Context, filters ...types.Filter) ([]types.Instance, error) {
	return pages(func(token *string) ([]types.Instance, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeInstances, &ec2.DescribeInstancesInput{Filters: filters, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		var found []types.Instance
		for _, res := range out.Reservations {
			found = append(found, res.Instances...)
		}
		return found, out.NextToken, nil
	})
}

// findImages lists images of this account, deprecated and disabled ones included.
func (r *region) findImages(ctx context.Context, filters ...types.Filter) ([]types.Image, error) {
	return pages(func(token *string) ([]types.Image, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeImages, &ec2.DescribeImagesInput{
			Owners: []string{"self"}, Filters: filters, IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true), NextToken: token,
		})
		if err != nil {
			return nil, nil, err
		}
		return out.Images, out.NextToken, nil
	})
}

func (r *region) findSnapshots(ctx context.Context, filters ...types.Filter) ([]types.Snapshot, error) {
	return pages(func(token *string) ([]types.Snapshot, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeSnapshots, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: filters, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Snapshots, out.NextToken, nil
	})
}

// The Describe functions ask by filter: an id that isn't known yet then is left out, where
// asking by id would fail for all.

func (r *region) describeInstances(ctx context.Context, ids []string) (map[string]types.Instance, error) {
	found, err := r.findInstances(ctx, filter("instance-id", ids...))
	return byID(found, func(i types.Instance) string { return aws.ToString(i.InstanceId) }), err
}

func (r *region) describeImages(ctx context.Context, ids []string) (map[string]types.Image, error) {
	found, err := r.findImages(ctx, filter("image-id", ids...))
	return byID(found, func(i types.Image) string { return aws.ToString(i.ImageId) }), err
}

func (r *region) describeSnapshots(ctx context.Context, tokens []string) (map[string][]types.Snapshot, error) {
	found, err := r.findSnapshots(ctx, filter("tag:"+tagToken, tokens...))
	byToken := map[string][]types.Snapshot{}
	for _, s := range found {
		t := tagValue(s.Tags, tagToken)
		byToken[t] = append(byToken[t], s)
	}
	return byToken, err
}

func byID[T any](found []T, id func(T) string) map[string]T {
	m := map[string]T{}
	for _, v := range found {
		m[id(v)] = v
	}
	return m
}

// ours lists the images in the region that were made by gild, as of a few seconds ago at
// most: planning asks once for every step, and one answer serves them all.
func (r *region) ours(ctx context.Context) ([]types.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.listed) < r.builder.config.Timing.Poll {
		return r.known, nil
	}
	found, err := r.findImages(ctx, filter("tag-key", tagKey))
	if err != nil {
		return nil, fmt.Errorf("list the images of this account in %s: %w", r.Name, err)
	}
	r.known, r.listed = found, time.Now()
	return found, nil
}

// changed forgets the list of images.
func (r *region) changed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = time.Time{}
}

// errWithin is the cause of the end of a wait that took as long as builders.aws.within allows.
var errWithin = errors.New("it took too long")

// limit bounds one wait.
func limit(ctx context.Context, within time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, within, fmt.Errorf("%w: no more than %s is allowed; see builders.aws.within", errWithin, within))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
