package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/spec"
)

// What a base is locked to.
const (
	lockImage  = "image"
	lockName   = "name"
	lockRegion = "region"
)

// Resolve finds the AMI of a base. One that gild.lock names is used as long as it is there.
func (b *Builder) Resolve(ctx context.Context, p *spec.Pipeline, locked map[string]string) (builder.Base, error) {
	r, err := b.home(ctx, p)
	if err != nil {
		return builder.Base{}, err
	}
	w, err := r.want(p)
	if err != nil {
		return builder.Base{}, err
	}
	var found types.Image
	if locked[lockImage] != "" && locked[lockRegion] == r.Name {
		w.locked = true
		found, err = r.imageByID(ctx, locked[lockImage], w)
		if err != nil {
			return builder.Base{}, fmt.Errorf("the locked base %s (%s): %w; gild lock chooses another", locked[lockImage], locked[lockName], err)
		}
	} else if found, err = r.find(ctx, w); err != nil {
		return builder.Base{}, fmt.Errorf("find the base %s in %s: %w", w, r.Name, err)
	}
	r.remember(found)
	created := created(found).UTC()
	id, name := aws.ToString(found.ImageId), aws.ToString(found.Name)
	return builder.Base{
		ID: id, Clock: created, Summary: fmt.Sprintf("%s %q of %s by %s", id, name, created.Format(time.DateOnly), aws.ToString(found.OwnerId)),
		Lock: map[string]string{lockImage: id, lockName: name, lockRegion: r.Name},
	}, nil
}

// want is which AMI is asked for.
type want struct {
	id, parameter  string
	owner, pattern string
	arch           string
	// deprecated allows images that their owner has called outdated.
	deprecated bool
	// locked is an image chosen before: that it became deprecated since doesn't matter.
	locked bool
}

// String says what is wanted as a person would.
func (w want) String() string {
	switch {
	case w.id != "":
		return w.id
	case w.parameter != "":
		return "ssm:" + w.parameter
	}
	return fmt.Sprintf("%q of %s", w.pattern, w.owner)
}

func (r *region) want(p *spec.Pipeline) (want, error) {
	w := want{arch: p.Arch}
	switch {
	case p.Base.AMI != nil:
		a := p.Base.AMI
		w.id, w.owner, w.pattern, w.deprecated = a.ID, a.Owner, a.Name, a.Deprecated
		if w.id == "" && (w.owner == "" || w.pattern == "") {
			return w, errors.New("a base.ami needs an id, or an owner and a name: anybody can give an image any name")
		}
	case p.Base.SSM != "":
		w.parameter = p.Base.SSM
	case p.Base.Known != nil:
		pub, err := publisher.Find(*p.Base.Known, r.Name, p.Arch)
		if err != nil {
			return w, err
		}
		w.owner, w.pattern, w.parameter = pub.Owner, pub.Pattern, pub.Parameter
	default:
		return w, fmt.Errorf("a base of kind %q can't be resolved to an AMI", p.Base.Form())
	}
	return w, nil
}

// ec2Arch is EC2's name of an architecture.
func ec2Arch(arch string) types.ArchitectureValues {
	if arch == "amd64" {
		return types.ArchitectureValuesX8664
	}
	return types.ArchitectureValues(arch)
}

func (r *region) find(ctx context.Context, w want) (types.Image, error) {
	switch {
	case w.id != "":
		return r.imageByID(ctx, w.id, w)
	case w.parameter != "":
		return r.imageByParameter(ctx, w)
	default:
		return r.newest(ctx, w)
	}
}

func (r *region) imageByParameter(ctx context.Context, w want) (types.Image, error) {
	out, err := client.Call(ctx, r.SSM.GetParameter, &ssm.GetParameterInput{Name: aws.String(w.parameter)})
	if client.HasCode(err, "ParameterNotFound") && w.pattern != "" {
		return r.newest(ctx, w)
	}
	if err != nil {
		return types.Image{}, err
	}
	id := strings.TrimSpace(aws.ToString(out.Parameter.Value))
	if !strings.HasPrefix(id, "ami-") {
		return types.Image{}, fmt.Errorf("the parameter %s holds %q, which is no AMI id", w.parameter, id)
	}
	return r.imageByID(ctx, id, w)
}

func (r *region) imageByID(ctx context.Context, id string, w want) (types.Image, error) {
	in := &ec2.DescribeImagesInput{ImageIds: []string{id}, IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true)}
	if w.owner != "" {
		in.Owners = []string{w.owner}
	}
	out, err := client.Call(ctx, r.EC2.DescribeImages, in)
	if err != nil {
		return types.Image{}, err
	}
	if len(out.Images) == 0 {
		return types.Image{}, fmt.Errorf("%s is not there, or is no image of %s that this account may use", id, cmp.Or(w.owner, "anybody"))
	}
	i := out.Images[0]
	if err := r.usable(ctx, i, w); err != nil {
		return types.Image{}, fmt.Errorf("%s: %w", id, err)
	}
	return i, nil
}

// newest finds the newest image of an owner with a name.
func (r *region) newest(ctx context.Context, w want) (types.Image, error) {
	found, err := r.search(ctx, w, w.deprecated)
	if err != nil {
		return types.Image{}, err
	}
	if best, ok, _ := r.best(ctx, found, w); ok {
		return best, nil
	}
	// Nothing can be used. Why is worth one more call.
	if found, err = r.search(ctx, w, true); err != nil {
		return types.Image{}, err
	}
	_, _, why := r.best(ctx, found, w)
	if why == nil {
		why = fmt.Errorf("there is no such image for %s", w.arch)
	}
	return types.Image{}, why
}

func (r *region) search(ctx context.Context, w want, all bool) ([]types.Image, error) {
	in := &ec2.DescribeImagesInput{
		Owners: []string{w.owner}, IncludeDeprecated: aws.Bool(all),
		Filters: []types.Filter{filter("name", w.pattern), filter("architecture", string(ec2Arch(w.arch)))},
	}
	if all {
		in.IncludeDisabled = aws.Bool(true)
	}
	return pages(func(token *string) ([]types.Image, *string, error) {
		in.NextToken = token
		out, err := client.Call(ctx, r.EC2.DescribeImages, in)
		if err != nil {
			return nil, nil, err
		}
		return out.Images, out.NextToken, nil
	})
}

// best is the newest image that may be used; without any, why the newest may not.
func (r *region) best(ctx context.Context, found []types.Image, w want) (best types.Image, ok bool, why error) {
	slices.SortFunc(found, func(a, b types.Image) int {
		return cmp.Or(created(b).Compare(created(a)), cmp.Compare(aws.ToString(b.ImageId), aws.ToString(a.ImageId)))
	})
	for _, i := range found {
		err := r.usable(ctx, i, w)
		if err == nil {
			return i, true, nil
		}
		if why == nil {
			why = fmt.Errorf("the newest, %s: %w", aws.ToString(i.ImageId), err)
		}
	}
	return types.Image{}, false, why
}

// created is when an image was made; the zero time when EC2 gives no date that can be read.
func created(i types.Image) time.Time {
	t, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
	if err != nil {
		return time.Time{}
	}
	return t
}

// usable checks an image against what was asked for. The answer of a filter isn't relied on.
func (r *region) usable(ctx context.Context, i types.Image, w want) error {
	if err := r.checkOwner(ctx, i, w.owner); err != nil {
		return err
	}
	if w.id == "" && w.pattern != "" && !matches(w.pattern, aws.ToString(i.Name)) {
		return fmt.Errorf("its name is %q, not %q", aws.ToString(i.Name), w.pattern)
	}
	switch {
	case created(i).IsZero():
		return fmt.Errorf("its creation date is %q", aws.ToString(i.CreationDate))
	case i.State == types.ImageStateDisabled:
		return errors.New("its owner has disabled it")
	case i.State != types.ImageStateAvailable:
		return fmt.Errorf("it is %s: %s", i.State, reason(i.StateReason))
	case i.Architecture != ec2Arch(w.arch):
		return fmt.Errorf("it is for %s, and the pipeline for %s", i.Architecture, w.arch)
	case i.RootDeviceType != types.DeviceTypeEbs:
		return fmt.Errorf("its root device is of type %q; only ebs can be built on", i.RootDeviceType)
	case i.VirtualizationType != types.VirtualizationTypeHvm:
		return fmt.Errorf("its virtualization type is %q; only hvm can be built on", i.VirtualizationType)
	case w.deprecated || w.locked || i.DeprecationTime == nil:
		return nil
	}
	at, err := time.Parse(time.RFC3339, aws.ToString(i.DeprecationTime))
	if err != nil {
		return fmt.Errorf("its deprecation date is %q: %w", aws.ToString(i.DeprecationTime), err)
	}
	if at.Before(r.builder.config.Now()) {
		return fmt.Errorf("it has been deprecated since %s; set deprecated: true to use it all the same", at.Format(time.DateOnly))
	}
	return nil
}

func reason(s *types.StateReason) string {
	if s == nil {
		return "no reason given"
	}
	return aws.ToString(s.Code) + ": " + aws.ToString(s.Message)
}

// checkOwner makes sure that an image is of the owner asked for.
func (r *region) checkOwner(ctx context.Context, i types.Image, owner string) error {
	real := aws.ToString(i.OwnerId)
	switch {
	case owner == "":
		return nil
	case owner == "amazon", owner == "aws-marketplace":
		// EC2 takes these words for owners, and shows them in the answer.
		if alias := aws.ToString(i.ImageOwnerAlias); alias != owner {
			return fmt.Errorf("it belongs to %s (%q), not to %s", real, alias, owner)
		}
		return nil
	case owner == "self":
		c, err := r.builder.clients.Caller(ctx, r.Name)
		if err != nil {
			return err
		}
		owner = c.Account
	}
	if real != owner {
		return fmt.Errorf("it belongs to %s, not to %s", real, owner)
	}
	return nil
}

// matches compares a name with a pattern as EC2's filters do: * is any text, ? any one
// character, and nothing else is special.
func matches(pattern, name string) bool {
	for pattern != "" {
		switch pattern[0] {
		case '*':
			rest := strings.TrimLeft(pattern, "*")
			for i := range len(name) + 1 {
				if matches(rest, name[i:]) {
					return true
				}
			}
			return false
		case '?':
			if name == "" {
				return false
			}
		default:
			if name == "" || name[0] != pattern[0] {
				return false
			}
		}
		pattern, name = pattern[1:], name[1:]
	}
	return name == ""
}
