package access

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

// network looks for the subnet, the VPC and the security groups that a build would use.
func (c *check) network(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	i := c.p.AWS.Instance
	found := false
	if i.Subnet != "" {
		found = c.givenSubnet(ctx, i.Subnet, i.VPC)
	} else {
		found = c.findVPC(ctx, i.VPC) && c.findSubnet(ctx)
	}
	if found && len(i.SecurityGroups) > 0 {
		c.groups(ctx, i.SecurityGroups)
	}
}

func (c *check) givenSubnet(ctx context.Context, id, vpc string) bool {
	pos, name := instancePos(c.p), "subnet "+id
	out, err := c.home.EC2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{id}})
	switch {
	case client.HasCode(err, "InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed", "InvalidSubnetId.Malformed"):
		c.bad("aws-subnet", name, "there is no such subnet in "+c.p.AWS.Region, "name another in builders.aws.instance.subnet", pos)
		return false
	case err != nil:
		c.failed("aws-subnet", name, "ec2:DescribeSubnets", err, pos)
		return false
	case len(out.Subnets) == 0:
		c.bad("aws-subnet", name, "there is no such subnet in "+c.p.AWS.Region, "name another in builders.aws.instance.subnet", pos)
		return false
	}
	s := out.Subnets[0]
	zone := aws.ToString(s.AvailabilityZone)
	switch {
	case vpc != "" && aws.ToString(s.VpcId) != vpc:
		c.bad("aws-subnet", name, fmt.Sprintf("it is in %s, not in %s", aws.ToString(s.VpcId), vpc), "leave out builders.aws.instance.vpc", pos)
		return false
	case len(c.p.AWS.Instance.Zones) > 0 && !slices.Contains(c.p.AWS.Instance.Zones, zone):
		c.bad("aws-subnet", name, fmt.Sprintf("it is in %s, which isn't among the zones %s", zone, joined(c.p.AWS.Instance.Zones)),
			"leave out builders.aws.instance.zones", pos)
		return false
	case s.AvailableIpAddressCount != nil && *s.AvailableIpAddressCount == 0:
		c.bad("aws-subnet", name, "it has no free address", "name another in builders.aws.instance.subnet", pos)
		return false
	}
	c.subnet, c.vpc = id, aws.ToString(s.VpcId)
	c.ok("aws-subnet", name, fmt.Sprintf("in %s, %s", c.vpc, zone), pos)
	return true
}

// findVPC looks for the VPC of that id, or the default one when id is empty.
func (c *check) findVPC(ctx context.Context, id string) bool {
	pos, name := instancePos(c.p), "default VPC"
	in := &ec2.DescribeVpcsInput{Filters: []ec2types.Filter{{Name: aws.String("is-default"), Values: []string{"true"}}}}
	if id != "" {
		name, in = "VPC "+id, &ec2.DescribeVpcsInput{VpcIds: []string{id}}
	}
	out, err := c.home.EC2.DescribeVpcs(ctx, in)
	switch {
	case err != nil && !client.HasCode(err, "InvalidVpcID.NotFound", "InvalidVpcID.Malformed", "InvalidVpcId.Malformed"):
		c.failed("aws-vpc", name, "ec2:DescribeVpcs", err, pos)
		return false
	case err != nil || len(out.Vpcs) == 0 && id != "":
		c.bad("aws-vpc", name, "there is no such VPC in "+c.p.AWS.Region, "name another in builders.aws.instance.vpc", pos)
		return false
	case len(out.Vpcs) == 0:
		c.bad("aws-vpc", name, fmt.Sprintf("account %s has none in %s", c.known.Account, c.p.AWS.Region), "set builders.aws.instance.subnet", pos)
		return false
	}
	c.vpc = aws.ToString(out.Vpcs[0].VpcId)
	c.ok("aws-vpc", name, c.vpc, pos)
	return true
}

// findSubnet looks for a subnet of the VPC in the zones that are asked for.
func (c *check) findSubnet(ctx context.Context) bool {
	pos, zones := instancePos(c.p), c.p.AWS.Instance.Zones
	filters := []ec2types.Filter{{Name: aws.String("vpc-id"), Values: []string{c.vpc}}}
	if c.p.AWS.Instance.VPC == "" {
		filters = append(filters, ec2types.Filter{Name: aws.String("default-for-az"), Values: []string{"true"}})
	}
	where := c.vpc
	if len(zones) > 0 {
		filters = append(filters, ec2types.Filter{Name: aws.String("availability-zone"), Values: zones})
		where += " in " + joined(zones)
	}
	pages := ec2.NewDescribeSubnetsPaginator(c.home.EC2, &ec2.DescribeSubnetsInput{Filters: filters})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			c.failed("aws-subnet", "subnet of "+where, "ec2:DescribeSubnets", err, pos)
			return false
		}
		for _, s := range page.Subnets {
			if s.AvailableIpAddressCount == nil || *s.AvailableIpAddressCount > 0 {
				c.subnet = aws.ToString(s.SubnetId)
				c.ok("aws-subnet", "subnet of "+where, c.subnet, pos)
				return true
			}
		}
	}
	c.bad("aws-subnet", "subnet of "+where, "there is none with a free address", "set builders.aws.instance.subnet", pos)
	return false
}

// groups looks whether the given security groups are in the VPC.
func (c *check) groups(ctx context.Context, ids []string) {
	pos, name := instancePos(c.p), "security groups "+joined(ids)
	out, err := c.home.EC2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: ids})
	switch {
	case client.HasCode(err, "InvalidGroup.NotFound", "InvalidGroupId.Malformed", "InvalidGroupId.NotFound"):
		c.broken = true
		c.bad("aws-security-group", name, tell(err), "name others in builders.aws.instance.security-groups", pos)
		return
	case err != nil:
		c.failed("aws-security-group", name, "ec2:DescribeSecurityGroups", err, pos)
		return
	}
	for _, g := range out.SecurityGroups {
		if aws.ToString(g.VpcId) != c.vpc {
			c.broken = true
			c.bad("aws-security-group", name, fmt.Sprintf("%s is in %s, and the subnet in %s", aws.ToString(g.GroupId), aws.ToString(g.VpcId), c.vpc),
				"name groups of the subnet's VPC", pos)
			return
		}
	}
	c.ok("aws-security-group", name, "", pos)
}
