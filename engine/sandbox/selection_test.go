package sandbox_test

import (
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// selects checks that every filter finds one thing by its value, and nothing by another.
func selects(t *testing.T, count func(types.Filter) (int, error), filters map[string]string) {
	t.Helper()
	for name, value := range filters {
		for text, want := range map[string]int{value: 1, "no such value": 0} {
			if got, err := count(filter(name, text)); got != want || err != nil {
				t.Errorf("filter %s = %q finds %d, %v; want %d", name, text, got, err, want)
			}
		}
	}
}

func TestFiltersOfImages(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{Now: clock})
	_, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: otherAccount, Name: "decoy", Private: true})
	must(t, err)
	id, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: "debian", OwnerAlias: "amazon", Description: "about", Arch: "arm64",
		BootMode: "uefi-preferred", SizeGiB: 3, IMDSv2: true, TPM: "v2.0"})
	must(t, err)
	selects(t, func(f types.Filter) (int, error) {
		out, err := w.mine(t).DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: []types.Filter{f}})
		if err != nil {
			return 0, err
		}
		return len(out.Images), nil
	}, map[string]string{
		"architecture": "arm64", "boot-mode": "uefi-preferred", "creation-date": "2026-11-23T*", "description": "about", "ena-support": "true",
		"hypervisor": "xen", "image-id": id, "image-type": "machine", "is-public": "true", "name": "deb?an", "owner-alias": "amazon",
		"owner-id": publisher, "root-device-name": "/dev/xvda", "root-device-type": "ebs", "state": "available", "virtualization-type": "hvm",
		"sriov-net-support": "simple", "imds-support": "v2.0", "tpm-support": "v2.0", "manifest-location": publisher + "/debian",
		"block-device-mapping.volume-size": "3", "block-device-mapping.volume-type": "gp3", "block-device-mapping.encrypted": "false",
		"block-device-mapping.device-name": "/dev/xvda", "block-device-mapping.delete-on-termination": "true",
		"block-device-mapping.snapshot-id": "snap-*", "platform-details": "Linux/UNIX", "usage-operation": "RunInstances",
	})
}

func TestFiltersOfInstances(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	_, err := c.ImportKeyPair(t.Context(), &ec2.ImportKeyPairInput{KeyName: aws.String("k"), PublicKeyMaterial: importedKey(t)})
	must(t, err)
	id := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.ClientToken, in.KeyName = aws.String("token"), aws.String("k")
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot"}
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{HttpTokens: "required"}
		in.TagSpecifications = []types.TagSpecification{tags("instance", "a", "b"), tags("volume", "a", "b")}
	}).InstanceId
	i := waitInstance(t, c, id, "running")
	volume := *i.BlockDeviceMappings[0].Ebs.VolumeId
	selects(t, func(f types.Filter) (int, error) {
		out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{Filters: []types.Filter{f}})
		if err != nil {
			return 0, err
		}
		return len(out.Reservations), nil
	}, map[string]string{
		"instance-id": *id, "instance-state-name": "running", "instance-state-code": "16", "instance-type": "t3.*", "instance-lifecycle": "spot",
		"spot-instance-request-id": *i.SpotInstanceRequestId, "image-id": *i.ImageId, "availability-zone": *i.Placement.AvailabilityZone,
		"architecture": "x86_64", "client-token": "token", "key-name": "k", "owner-id": sandbox.DefaultAccount, "vpc-id": *i.VpcId,
		"subnet-id": *i.SubnetId, "private-ip-address": *i.PrivateIpAddress, "ip-address": *i.PublicIpAddress, "root-device-name": "/dev/xvda",
		"instance.group-id": *i.SecurityGroups[0].GroupId, "network-interface.network-interface-id": *i.NetworkInterfaces[0].NetworkInterfaceId,
		"metadata-options.http-tokens": "required", "block-device-mapping.volume-id": volume, "tag:a": "b", "tag-key": "a",
	})
	selects(t, func(f types.Filter) (int, error) {
		out, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: []types.Filter{f}})
		if err != nil {
			return 0, err
		}
		return len(out.Volumes), nil
	}, map[string]string{
		"volume-id": volume, "volume-type": "gp3", "size": "1", "status": "in-use", "snapshot-id": "snap-*", "availability-zone": *i.Placement.AvailabilityZone,
		"encrypted": "false", "attachment.instance-id": *id, "attachment.device": "/dev/xvda", "attachment.status": "attached",
		"attachment.delete-on-termination": "true", "tag:a": "b",
	})
	sn, err := c.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &volume, Description: aws.String("about")})
	must(t, err)
	waitSnapshot(t, c, sn.SnapshotId)
	selects(t, func(f types.Filter) (int, error) {
		out, err := c.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []types.Filter{f}})
		if err != nil {
			return 0, err
		}
		return len(out.Snapshots), nil
	}, map[string]string{
		"snapshot-id": *sn.SnapshotId, "volume-id": volume, "volume-size": "1", "status": "completed", "progress": "100%",
		"owner-id": sandbox.DefaultAccount, "description": "ab*", "encrypted": "false", "storage-tier": "standard",
	})
}

// Rules that name groups, ports of all kinds, and what is wrong with others.
func TestRules(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := open(t, sandbox.Config{Quotas: sandbox.Quotas{Rules: 8}}).mine(t)
	group, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d")})
	must(t, err)
	peer, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("peer"), Description: aws.String("d")})
	must(t, err)
	any := []types.IpRange{{CidrIp: aws.String("10.1.2.3/8")}}
	for _, test := range []struct {
		name string
		perm types.IpPermission
		want string
	}{
		{"group", types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(1), ToPort: aws.Int32(2), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: peer.GroupId}}}, ""},
		{"group by name", types.IpPermission{IpProtocol: aws.String("udp"), FromPort: aws.Int32(1), ToPort: aws.Int32(2), UserIdGroupPairs: []types.UserIdGroupPair{{GroupName: aws.String("peer")}}}, ""},
		{"all", types.IpPermission{IpProtocol: aws.String("-1"), IpRanges: any}, ""},
		{"ping", types.IpPermission{IpProtocol: aws.String("icmp"), FromPort: aws.Int32(8), ToPort: aws.Int32(-1), IpRanges: any}, ""},
		{"number", types.IpPermission{IpProtocol: aws.String("6"), FromPort: aws.Int32(-1), ToPort: aws.Int32(-1), IpRanges: any}, ""},
		{"ipv6", types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(1), ToPort: aws.Int32(2), Ipv6Ranges: []types.Ipv6Range{{CidrIpv6: aws.String("::/0")}}}, ""},
		{"no peer", types.IpPermission{IpProtocol: aws.String("-1")}, "InvalidPermission.Malformed"},
		{"no ports", types.IpPermission{IpProtocol: aws.String("tcp"), IpRanges: any}, "InvalidParameterValue"},
		{"ports backwards", types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(2), ToPort: aws.Int32(1), IpRanges: any}, "InvalidParameterValue"},
		{"protocol", types.IpPermission{IpProtocol: aws.String("smoke"), IpRanges: any}, "InvalidPermission.Malformed"},
		{"unknown group", types.IpPermission{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupName: aws.String("none")}}}, "InvalidGroup.NotFound"},
		{"prefix list", types.IpPermission{IpProtocol: aws.String("-1"), PrefixListIds: []types.PrefixListId{{PrefixListId: aws.String("pl-12345678")}}}, "InvalidPrefixListID.NotFound"},
		{"too many", types.IpPermission{IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("1.1.1.1/32")}, {CidrIp: aws.String("1.1.1.2/32")}, {CidrIp: aws.String("1.1.1.3/32")}}}, "RulesPerSecurityGroupLimitExceeded"},
	} {
		_, err := c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: []types.IpPermission{test.perm}})
		if got := code(err); got != test.want {
			t.Errorf("%s: %q, want %q (%v)", test.name, got, test.want, err)
		}
	}
	_, err = c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: peer.GroupId})
	wantCode(t, "DependencyViolation", err)
	out, err := c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("ip-permission.group-id", *peer.GroupId), filter("ip-permission.cidr", "10.0.0.0/8")}})
	must(t, err)
	if len(out.SecurityGroups) != 1 || len(out.SecurityGroups[0].IpPermissions) != 5 {
		t.Errorf("the group is %+v", out.SecurityGroups)
	}
}

func TestAttributesOfInstances(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	id := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.UserData = aws.String(base64.StdEncoding.EncodeToString([]byte("old")))
	}).InstanceId
	volume := waitInstance(t, c, id, "running").BlockDeviceMappings[0].Ebs.VolumeId
	_, err := c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{*id}, Force: aws.Bool(true)})
	must(t, err)
	waitInstance(t, c, id, "stopped")
	for name, value := range map[types.InstanceAttributeName]string{"instanceType": "t3.small", "userData": base64.StdEncoding.EncodeToString([]byte("new")),
		"disableApiTermination": "true", "disableApiStop": "true", "ebsOptimized": "true", "instanceInitiatedShutdownBehavior": "terminate"} {
		_, err := c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: id, Attribute: name, Value: &value})
		must(t, err)
		got, err := c.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{InstanceId: id, Attribute: name})
		must(t, err)
		told := map[types.InstanceAttributeName]string{}
		if got.InstanceType != nil {
			told["instanceType"] = *got.InstanceType.Value
		}
		if got.UserData != nil {
			told["userData"] = *got.UserData.Value
		}
		if got.InstanceInitiatedShutdownBehavior != nil {
			told["instanceInitiatedShutdownBehavior"] = *got.InstanceInitiatedShutdownBehavior.Value
		}
		for flag, v := range map[types.InstanceAttributeName]*types.AttributeBooleanValue{"disableApiTermination": got.DisableApiTermination,
			"disableApiStop": got.DisableApiStop, "ebsOptimized": got.EbsOptimized} {
			if v != nil && *v.Value {
				told[flag] = "true"
			}
		}
		if diff := cmp.Diff(map[types.InstanceAttributeName]string{name: value}, told); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, err = c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: id, DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(false)}})
	must(t, err)
	_, err = c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: id, Groups: []string{"sg-1"}, EnaSupport: &types.AttributeBooleanValue{Value: aws.Bool(true)}})
	wantCode(t, "InvalidParameterCombination", err)
	for _, ena := range []bool{false, true} {
		_, err = c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: id, EnaSupport: &types.AttributeBooleanValue{Value: &ena}})
		must(t, err)
		img, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: id, Name: aws.String(fmt.Sprint("ena-", ena))})
		must(t, err)
		if got := waitImage(t, c, img.ImageId, "available"); *got.EnaSupport != ena {
			t.Errorf("the image of an instance with ENA %v has ENA %v", ena, *got.EnaSupport)
		}
	}
	_, err = c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: id, BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{
		{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: aws.Bool(false)}}}})
	must(t, err)
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*id}})
	must(t, err)
	waitInstance(t, c, id, "terminated")
	left, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*volume}})
	must(t, err)
	if left.Volumes[0].State != "available" {
		t.Errorf("the volume that was to stay is %s", left.Volumes[0].State)
	}
}

// What CreateImage is told of the disks goes into the image, and not into the instance.
func TestCreateImageChangesMappings(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	id := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1)}}}
	}).InstanceId
	waitInstance(t, c, id, "running")
	create := func(name string, m ...types.BlockDeviceMapping) (*ec2.CreateImageOutput, error) {
		return c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: id, Name: &name, BlockDeviceMappings: m})
	}
	out, err := create("changed", types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdf"), NoDevice: aws.String("")},
		types.BlockDeviceMapping{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(5), VolumeType: "io2", Iops: aws.Int32(200)}},
		types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdg"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(2), Encrypted: aws.Bool(true)}})
	must(t, err)
	got := waitImage(t, c, out.ImageId, "available").BlockDeviceMappings
	if len(got) != 2 || *got[0].Ebs.VolumeSize != 5 || got[0].Ebs.VolumeType != "io2" || *got[0].Ebs.Iops != 200 || got[1].Ebs.SnapshotId != nil || !*got[1].Ebs.Encrypted {
		t.Errorf("the image's disks are %+v", got)
	}
	for name, bad := range map[string]types.BlockDeviceMapping{
		"smaller":   {DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(0)}},
		"encrypted": {DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{Encrypted: aws.Bool(true)}},
		"no root":   {DeviceName: aws.String("/dev/xvda"), NoDevice: aws.String("")},
		"bad name":  {DeviceName: aws.String("disk"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1)}},
		"nothing":   {DeviceName: aws.String("/dev/sdh")},
	} {
		if _, err := create("bad", bad); err == nil {
			t.Errorf("a mapping that is bad (%s) was taken", name)
		}
	}
}
