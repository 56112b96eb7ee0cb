package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// regions reports whether the pipeline's own region can be used.
func (c *check) regions(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	status, err := c.regionStatus(ctx)
	if err != nil {
		c.failed("aws-region", "region "+c.p.AWS.Region, "ec2:DescribeRegions", err, c.p.AWS.Pos)
		// Without a permission the region may well be there; without an answer nothing more can be asked.
		return isDenied(err)
	}
	usable := c.region(c.p.AWS.Region, status, false)
	for _, region := range c.want.copy.sorted() {
		c.region(region, status, true)
	}
	return usable
}

// regionStatus returns the opt-in status of all regions by name.
func (c *check) regionStatus(ctx context.Context) (map[string]string, error) {
	in := &ec2.DescribeRegionsInput{AllRegions: aws.Bool(true)}
	out, err := c.home.EC2.DescribeRegions(ctx, in)
	if err != nil && !isDenied(err) && c.elsewhere() != "" {
		// A region that doesn't exist has no address, and one that isn't enabled refuses all.
		if clients, e := c.cloud.Region(ctx, c.elsewhere()); e == nil {
			out, err = clients.EC2.DescribeRegions(ctx, in)
		}
	}
	if err != nil {
		return nil, err
	}
	status := map[string]string{}
	for _, r := range out.Regions {
		status[aws.ToString(r.RegionName)] = aws.ToString(r.OptInStatus)
	}
	return status, nil
}

func (c *check) region(name string, status map[string]string, copied bool) bool {
	pos := c.p.AWS.Pos
	if copied {
		pos = c.p.Copy.Pos
	}
	switch s, ok := status[name]; {
	case !ok:
		c.bad("aws-region", "region "+name, "there is no such region", "the regions are "+joined(near(name, keys(status))), pos)
	case s == "not-opted-in":
		c.bad("aws-region", "region "+name, "it isn't enabled for account "+c.known.Account, "aws account enable-region --region-name "+name, pos)
	default:
		c.ok("aws-region", "region "+name, "", pos)
		return true
	}
	return false
}

// near are the regions of the same part of the world, or all.
func near(name string, regions []string) []string {
	part, _, _ := strings.Cut(name, "-")
	same := slices.DeleteFunc(slices.Clone(regions), func(r string) bool { return !strings.HasPrefix(r, part+"-") })
	if len(same) == 0 {
		return regions
	}
	return same
}

// instanceTypes looks whether the types exist, fit the image, and are offered where an
// instance would be put.
func (c *check) instanceTypes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i, pos := c.p.AWS.Instance, typesPos(c.p)
	filter := []ec2types.Filter{{Name: aws.String("instance-type"), Values: i.Types}}
	infos := map[string]ec2types.InstanceTypeInfo{}
	pages := ec2.NewDescribeInstanceTypesPaginator(c.home.EC2, &ec2.DescribeInstanceTypesInput{Filters: filter})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			c.failed("aws-instance-type", "instance types "+joined(i.Types), "ec2:DescribeInstanceTypes", err, pos)
			c.types = i.Types
			return
		}
		for _, t := range page.InstanceTypes {
			infos[string(t.InstanceType)] = t
		}
	}
	zones := c.offerings(ctx, filter)
	var wrong []string
	for _, t := range i.Types {
		if why := c.unfit(t, infos, zones); why != "" {
			wrong = append(wrong, t+" "+why)
			continue
		}
		c.types = append(c.types, t)
	}
	switch {
	case len(wrong) == 0:
		c.ok("aws-instance-type", "instance types "+joined(i.Types), "", pos)
	case len(c.types) == 0:
		c.bad("aws-instance-type", "instance types "+joined(i.Types), strings.Join(wrong, "; "), "choose others in builders.aws.instance.types", pos)
	default:
		c.warn("aws-instance-type", "instance types "+joined(i.Types), strings.Join(wrong, "; ")+"; left is "+joined(c.types),
			"remove them from builders.aws.instance.types", pos)
	}
}

// unfit says why an instance type can't be used, or returns "".
func (c *check) unfit(name string, infos map[string]ec2types.InstanceTypeInfo, zones map[string][]string) string {
	t, ok := infos[name]
	if !ok {
		return "isn't offered in " + c.p.AWS.Region
	}
	arch := ec2types.ArchitectureTypeX8664
	if c.p.Arch == "arm64" {
		arch = ec2types.ArchitectureTypeArm64
	}
	if t.ProcessorInfo != nil && !slices.Contains(t.ProcessorInfo.SupportedArchitectures, arch) {
		return fmt.Sprintf("is no %s machine, which the image is for", c.p.Arch)
	}
	boot := strings.TrimSuffix(c.p.AWS.Image.BootMode, "-preferred")
	if boot != "" && len(t.SupportedBootModes) > 0 && c.p.AWS.Image.BootMode != "uefi-preferred" &&
		!slices.Contains(t.SupportedBootModes, ec2types.BootModeType(boot)) {
		return "can't boot with " + boot
	}
	if c.p.AWS.Image.TPM != "" && t.NitroTpmSupport == ec2types.NitroTpmSupportUnsupported {
		return "has no TPM"
	}
	if c.p.AWS.Instance.Spot == "only" && len(t.SupportedUsageClasses) > 0 && !slices.Contains(t.SupportedUsageClasses, ec2types.UsageClassTypeSpot) {
		return "isn't sold as spot"
	}
	if wanted := c.p.AWS.Instance.Zones; zones != nil && len(wanted) > 0 && !slices.ContainsFunc(wanted, func(z string) bool { return slices.Contains(zones[name], z) }) {
		return "isn't offered in " + joined(wanted)
	}
	return ""
}

// offerings returns the zones that offer each type, or nil when that can't be found out.
func (c *check) offerings(ctx context.Context, filter []ec2types.Filter) map[string][]string {
	zones := map[string][]string{}
	pages := ec2.NewDescribeInstanceTypeOfferingsPaginator(c.home.EC2, &ec2.DescribeInstanceTypeOfferingsInput{
		LocationType: ec2types.LocationTypeAvailabilityZone, Filters: filter,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			c.failed("aws-instance-type", "zones of the instance types", "ec2:DescribeInstanceTypeOfferings", err, typesPos(c.p))
			return nil
		}
		for _, o := range page.InstanceTypeOfferings {
			zones[string(o.InstanceType)] = append(zones[string(o.InstanceType)], aws.ToString(o.Location))
		}
	}
	return zones
}

// image looks for the AMI that the base stands for.
func (c *check) image(ctx context.Context) {
	if c.cloud.Base == nil || c.p.Base.Image != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pos, name := c.p.Base.Pos, "base "+c.p.Base.Form()
	base, err := c.cloud.Base(ctx, c.p)
	switch {
	case isDenied(err):
		action := "ec2:DescribeImages"
		if c.want.readsParameter() {
			action, _ = refused(err, "ssm:GetParameter")
		}
		c.failed("aws-base", name, action, err, pos)
	case err != nil:
		c.bad("aws-base", name, tell(err), "", pos)
	default:
		c.base = base.ID
		c.ok("aws-base", name, base.Summary, pos)
	}
}

// keys looks whether the KMS keys are there and can encrypt volumes.
func (c *check) keys(ctx context.Context) {
	for _, k := range c.want.keys {
		name := "key " + k.ref + " in " + k.region
		clients, err := c.cloud.Region(ctx, k.region)
		if err != nil {
			c.failed("aws-key", name, "kms:DescribeKey", err, k.pos)
			continue
		}
		c.key(ctx, clients.KMS, k, name)
	}
}

func (c *check) key(ctx context.Context, in KMS, k keyRef, name string) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := in.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &k.ref})
	switch {
	case client.HasCode(err, "NotFoundException"):
		c.bad("aws-key", name, "there is no such key", "keys and aliases belong to one region: name one that is there, or make it", k.pos)
		return
	case client.HasCode(err, "InvalidArnException", "ValidationException"):
		c.bad("aws-key", name, tell(err), "name a key of that region by id, ARN or alias", k.pos)
		return
	case err != nil:
		c.failed("aws-key", name, "kms:DescribeKey", err, k.pos)
		return
	}
	switch m := out.KeyMetadata; {
	case m.KeyState != kmstypes.KeyStateEnabled:
		c.bad("aws-key", name, fmt.Sprintf("it is in state %s", m.KeyState), "enable it, or name another", k.pos)
	case m.KeySpec != "" && m.KeySpec != kmstypes.KeySpecSymmetricDefault:
		c.bad("aws-key", name, fmt.Sprintf("it is a %s key, and volumes need a symmetric one", m.KeySpec), "name another", k.pos)
	default:
		c.ok("aws-key", name, "", k.pos)
	}
}

// profile looks for the given instance profile and learns its role.
func (c *check) profile(ctx context.Context) {
	name := c.p.AWS.Instance.Profile
	if name == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pos := instancePos(c.p)
	if i := strings.LastIndex(name, "/"); strings.HasPrefix(name, "arn:") {
		name = name[i+1:]
	}
	out, err := c.home.IAM.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	switch {
	case client.HasCode(err, "NoSuchEntity"):
		c.broken = true
		c.bad("aws-profile", "instance profile "+name, "there is no such instance profile in account "+c.known.Account,
			"name another, or leave it out: gild makes one when it needs it", pos)
	case err != nil:
		c.failed("aws-profile", "instance profile "+name, "iam:GetInstanceProfile", err, pos)
	case len(out.InstanceProfile.Roles) == 0:
		c.broken = true
		c.bad("aws-profile", "instance profile "+name, "it holds no role", "add one to it", pos)
	default:
		c.known.Roles[c.p.AWS.Instance.Profile] = aws.ToString(out.InstanceProfile.Roles[0].Arn)
		c.ok("aws-profile", "instance profile "+name, aws.ToString(out.InstanceProfile.Roles[0].Arn), pos)
	}
}
