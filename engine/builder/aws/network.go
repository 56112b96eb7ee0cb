package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/spec"
)

// findSubnets lists the subnets to launch in, one per zone, in the order in which they are
// to be tried. All are in one VPC.
func (r *region) findSubnets(ctx context.Context, in spec.AWSInstance) ([]types.Subnet, error) {
	all, err := r.listSubnets(ctx, in)
	if err != nil {
		return nil, err
	}
	all = slices.Clone(all)
	// The one with most room first, so that of each zone it is the one that stays.
	slices.SortStableFunc(all, func(a, b types.Subnet) int {
		return cmp.Compare(aws.ToInt32(b.AvailableIpAddressCount), aws.ToInt32(a.AvailableIpAddressCount))
	})
	slices.SortStableFunc(all, func(a, b types.Subnet) int {
		return cmp.Or(cmp.Compare(zoneOrder(in.Zones, a), zoneOrder(in.Zones, b)), cmp.Compare(zone(a), zone(b)))
	})
	all = slices.CompactFunc(all, func(a, b types.Subnet) bool { return zone(a) == zone(b) })
	if len(in.Zones) > 0 {
		all = slices.DeleteFunc(all, func(s types.Subnet) bool { return !slices.Contains(in.Zones, zone(s)) })
	}
	if len(all) > 0 {
		return all, nil
	}
	switch {
	case in.Subnet != "":
		return nil, fmt.Errorf("the subnet %s is not in any of the zones %s", in.Subnet, strings.Join(in.Zones, ", "))
	case len(in.Zones) > 0:
		return nil, fmt.Errorf("there is no subnet to launch in within the zones %s of %s; see builders.aws.instance", strings.Join(in.Zones, ", "), r.Name)
	case in.VPC != "":
		return nil, fmt.Errorf("the VPC %s has no subnet in %s", in.VPC, r.Name)
	}
	return nil, fmt.Errorf("the account has no default VPC in %s; set builders.aws.instance.subnet or vpc", r.Name)
}

func zone(s types.Subnet) string { return aws.ToString(s.AvailabilityZone) }

func zoneOrder(zones []string, s types.Subnet) int { return slices.Index(zones, zone(s)) }

// listSubnets asks once for each network: benches and guests all launch in the same.
func (r *region) listSubnets(ctx context.Context, in spec.AWSInstance) ([]types.Subnet, error) {
	f := filter("default-for-az", "true")
	switch {
	case in.Subnet != "":
		f = filter("subnet-id", in.Subnet)
	case in.VPC != "":
		f = filter("vpc-id", in.VPC)
	}
	name := *f.Name + f.Values[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.subnets[name]; ok {
		return known, nil
	}
	found, err := pages(func(token *string) ([]types.Subnet, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeSubnets, &ec2.DescribeSubnetsInput{Filters: []types.Filter{f, filter("state", "available")}, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Subnets, out.NextToken, nil
	})
	if err != nil {
		return nil, fmt.Errorf("find a subnet in %s: %w", r.Name, err)
	}
	if in.Subnet != "" && len(found) == 0 {
		return nil, fmt.Errorf("there is no subnet %s in %s", in.Subnet, r.Name)
	}
	r.subnets[name] = found
	return found, nil
}

// makeGroup makes the security group of one instance. It lets nothing in but, when from is
// valid, SSH from there.
func (o *order) makeGroup(ctx context.Context, vpc string, port int, from netip.Prefix) (string, error) {
	out, err := client.Call(ctx, o.region.EC2.CreateSecurityGroup, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("gild-" + o.token), Description: aws.String("made by gild for one instance; removed with it"),
		VpcId: aws.String(vpc), TagSpecifications: o.tagged(types.ResourceTypeSecurityGroup),
	})
	id := ""
	switch {
	case client.HasCode(err, "InvalidGroup.Duplicate"):
		// An answer was lost, and the call repeated: the name is made of our token.
		id, err = o.findGroup(ctx)
	case err == nil:
		id = aws.ToString(out.GroupId)
	}
	if err != nil {
		return "", fmt.Errorf("make a security group: %w", err)
	}
	if !from.IsValid() {
		return id, nil
	}
	if err := o.allow(ctx, id, port, from); err != nil {
		return "", fmt.Errorf("let SSH from %s into the security group %s: %w", from, id, err)
	}
	return id, nil
}

func (o *order) findGroup(ctx context.Context) (string, error) {
	var id string
	_, err := o.region.lookAgain(ctx, func() (bool, error) {
		found, err := o.region.findGroups(ctx, filter("tag:"+tagToken, o.token))
		if len(found) > 0 {
			id = aws.ToString(found[0].GroupId)
		}
		return id != "", err
	})
	if err == nil && id == "" {
		err = errors.New("a group of its name exists that isn't its own")
	}
	return id, err
}

func (r *region) findGroups(ctx context.Context, filters ...types.Filter) ([]types.SecurityGroup, error) {
	return pages(func(token *string) ([]types.SecurityGroup, *string, error) {
		out, err := client.Call(ctx, r.EC2.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: filters, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.SecurityGroups, out.NextToken, nil
	})
}

func (o *order) allow(ctx context.Context, group string, port int, from netip.Prefix) error {
	p := types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(int32(port)), ToPort: aws.Int32(int32(port))}
	const why = "SSH of the gild that made this group"
	if from.Addr().Is4() {
		p.IpRanges = []types.IpRange{{CidrIp: aws.String(from.String()), Description: aws.String(why)}}
	} else {
		p.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: aws.String(from.String()), Description: aws.String(why)}}
	}
	ctx = client.Tolerate(ctx, client.Passing{Code: "InvalidGroup.NotFound"})
	_, err := client.Call(ctx, o.region.EC2.AuthorizeSecurityGroupIngress, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: aws.String(group), IpPermissions: []types.IpPermission{p},
	})
	if client.HasCode(err, "InvalidPermission.Duplicate") {
		return nil
	}
	return err
}

// removeGroups removes the groups of a claim. One that an ending network card still uses is
// tried again for a while.
func (r *region) removeGroups(ctx context.Context, token string) error {
	var found []types.SecurityGroup
	err := r.lookFor(ctx, func() (_ bool, err error) {
		found, err = r.findGroups(ctx, filter("tag:"+tagToken, token))
		return len(found) > 0, err
	})
	for _, g := range found {
		err = errors.Join(err, r.removeGroup(ctx, aws.ToString(g.GroupId)))
	}
	return err
}

func (r *region) removeGroup(ctx context.Context, id string) error {
	ctx = client.Tolerate(ctx, client.Passing{Code: "DependencyViolation"})
	_, err := client.Call(ctx, r.EC2.DeleteSecurityGroup, &ec2.DeleteSecurityGroupInput{GroupId: aws.String(id)})
	if client.HasCode(err, "InvalidGroup.NotFound") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the security group %s: %w", id, err)
	}
	return nil
}
