package sandbox_test

import (
	"context"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/sandbox"
)

// importedKey is a line of authorized_keys.
func importedKey(t testing.TB) []byte {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	must(t, err)
	line, err := ssh.NewPublicKey(public)
	must(t, err)
	return ssh.MarshalAuthorizedKey(line)
}

// Every operation is called through the SDK at least once, and answers in the shape of its
// model: the wire fails an answer that doesn't.
func TestEveryOperation(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	w.SetProfile("p", "arn:aws:iam::111122223333:instance-profile/p", "")
	o := &operations{T: t, w: w, c: c, base: base}
	o.account()
	o.networks()
	o.access()
	o.volumes()
	o.images()
	o.instances()
	called := map[string]bool{}
	for _, call := range w.Calls() {
		called[call.Action] = true
	}
	var never []string
	for _, name := range sandbox.EC2Operations() {
		if !called[name] {
			never = append(never, name)
		}
	}
	if diff := cmp.Diff([]string(nil), never); diff != "" {
		t.Errorf("operations that were never called (-want +got):\n%s", diff)
	}
}

type operations struct {
	*testing.T
	w    *world
	c    *ec2.Client
	base string
}

// call fails the test when an operation does, and returns what it gave.
func call[I, O any](o *operations, f func(context.Context, I, ...func(*ec2.Options)) (O, error), in I) O {
	o.Helper()
	out, err := f(o.Context(), in)
	must(o, err)
	return out
}

func (o *operations) account() {
	c := o.c
	regions := call(o, c.DescribeRegions, &ec2.DescribeRegionsInput{Filters: []types.Filter{filter("region-name", "eu-*")}}).Regions
	if len(regions) != 8 || *regions[0].Endpoint != "ec2."+*regions[0].RegionName+".amazonaws.com" {
		o.Errorf("%d regions in the EU", len(regions))
	}
	_, err := c.DescribeRegions(o.Context(), &ec2.DescribeRegionsInput{RegionNames: []string{"mars-1"}})
	wantCode(o, "InvalidParameterValue", err)
	zones := call(o, c.DescribeAvailabilityZones, &ec2.DescribeAvailabilityZonesInput{}).AvailabilityZones
	if len(zones) != 6 || *zones[0].ZoneId != "use1-az1" {
		o.Errorf("%d zones, the first is %s", len(zones), *zones[0].ZoneId)
	}
	micro := call(o, c.DescribeInstanceTypes, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t3.micro"}}).InstanceTypes[0]
	if *micro.VCpuInfo.DefaultVCpus != 2 || *micro.MemoryInfo.SizeInMiB != 1024 {
		o.Errorf("a t3.micro has %d CPUs and %d MiB", *micro.VCpuInfo.DefaultVCpus, *micro.MemoryInfo.SizeInMiB)
	}
	offers := call(o, c.DescribeInstanceTypeOfferings, &ec2.DescribeInstanceTypeOfferingsInput{LocationType: "availability-zone",
		Filters: []types.Filter{filter("instance-type", "m5.large", "t3.micro")}}).InstanceTypeOfferings
	if len(offers) != 11 {
		o.Errorf("t3.micro and m5.large are in %d zones, want 6 + 5", len(offers))
	}
	call(o, c.DescribeAccountAttributes, &ec2.DescribeAccountAttributesInput{})
	if *call(o, c.GetEbsEncryptionByDefault, &ec2.GetEbsEncryptionByDefaultInput{}).EbsEncryptionByDefault {
		o.Error("volumes are encrypted by default")
	}
	call(o, c.GetEbsDefaultKmsKeyId, &ec2.GetEbsDefaultKmsKeyIdInput{})
	call(o, c.GetImageBlockPublicAccessState, &ec2.GetImageBlockPublicAccessStateInput{})
	call(o, c.DescribeLaunchTemplates, &ec2.DescribeLaunchTemplatesInput{})
	_, err = c.DescribeLaunchTemplateVersions(o.Context(), &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateName: aws.String("none")})
	wantCode(o, "InvalidLaunchTemplateName.NotFoundException", err)
	prices := call(o, c.DescribeSpotPriceHistory, &ec2.DescribeSpotPriceHistoryInput{InstanceTypes: []types.InstanceType{"t3.micro"}}).SpotPriceHistory
	if len(prices) != 6 {
		o.Errorf("%d spot prices of one type in 6 zones", len(prices))
	}
	_, err = o.w.client(o, sandbox.DefaultKey, "mars-1").DescribeVpcs(o.Context(), &ec2.DescribeVpcsInput{})
	wantCode(o, "AuthFailure", err)
}

func (o *operations) networks() {
	c := o.c
	vpc := call(o, c.DescribeVpcs, &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("is-default", "true")}}).Vpcs[0]
	subnets := call(o, c.DescribeSubnets, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("vpc-id", *vpc.VpcId), filter("default-for-az", "true")}}).Subnets
	if len(subnets) != 6 {
		o.Errorf("the default VPC has %d subnets", len(subnets))
	}
	gateway := call(o, c.DescribeInternetGateways, &ec2.DescribeInternetGatewaysInput{}).InternetGateways[0]
	routes := call(o, c.DescribeRouteTables, &ec2.DescribeRouteTablesInput{}).RouteTables[0].Routes
	if *routes[1].GatewayId != *gateway.InternetGatewayId {
		o.Errorf("the way out is %s", *routes[1].GatewayId)
	}
	call(o, c.DescribeVpcEndpoints, &ec2.DescribeVpcEndpointsInput{})
	i := run(o, c, o.base)
	cards := call(o, c.DescribeNetworkInterfaces, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{filter("attachment.instance-id", *i.InstanceId)}}).NetworkInterfaces
	if len(cards) != 1 || *cards[0].PrivateIpAddress != *i.PrivateIpAddress {
		o.Errorf("the instance has %d network interfaces", len(cards))
	}
	call(o, c.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
}

func (o *operations) access() {
	c := o.c
	key := call(o, c.ImportKeyPair, &ec2.ImportKeyPairInput{KeyName: aws.String("imported"), PublicKeyMaterial: importedKey(o)})
	_, err := c.ImportKeyPair(o.Context(), &ec2.ImportKeyPairInput{KeyName: aws.String("imported"), PublicKeyMaterial: importedKey(o)})
	wantCode(o, "InvalidKeyPair.Duplicate", err)
	_, err = c.ImportKeyPair(o.Context(), &ec2.ImportKeyPairInput{KeyName: aws.String("bad"), PublicKeyMaterial: []byte("key")})
	wantCode(o, "InvalidKey.Format", err)
	made := call(o, c.CreateKeyPair, &ec2.CreateKeyPairInput{KeyName: aws.String("made")})
	if _, err := ssh.ParsePrivateKey([]byte(*made.KeyMaterial)); err != nil || len(*made.KeyFingerprint) != 59 {
		o.Errorf("the RSA key with the fingerprint %s can't be read: %v", *made.KeyFingerprint, err)
	}
	keys := call(o, c.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{KeyPairIds: []string{*key.KeyPairId}, IncludePublicKey: aws.Bool(true)}).KeyPairs
	if keys[0].KeyType != "ed25519" || keys[0].PublicKey == nil {
		o.Errorf("the imported key is %+v", keys[0])
	}
	call(o, c.DeleteKeyPair, &ec2.DeleteKeyPairInput{KeyPairId: key.KeyPairId})
	call(o, c.DeleteKeyPair, &ec2.DeleteKeyPairInput{KeyName: aws.String("imported")})
	_, err = c.DescribeKeyPairs(o.Context(), &ec2.DescribeKeyPairsInput{KeyNames: []string{"imported"}})
	wantCode(o, "InvalidKeyPair.NotFound", err)
	o.groups()
}

func (o *operations) groups() {
	c := o.c
	group := call(o, c.CreateSecurityGroup, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d"),
		TagSpecifications: []types.TagSpecification{tags("security-group", "a", "b")}}).GroupId
	_, err := c.CreateSecurityGroup(o.Context(), &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d")})
	wantCode(o, "InvalidGroup.Duplicate", err)
	ssh := types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22),
		IpRanges: []types.IpRange{{CidrIp: aws.String("192.0.2.1/32"), Description: aws.String("me")}}}
	in := call(o, c.AuthorizeSecurityGroupIngress, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, IpPermissions: []types.IpPermission{ssh}})
	_, err = c.AuthorizeSecurityGroupIngress(o.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, CidrIp: aws.String("192.0.2.1/32"),
		IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22)})
	wantCode(o, "InvalidPermission.Duplicate", err)
	_, err = c.AuthorizeSecurityGroupIngress(o.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, CidrIp: aws.String("anywhere"),
		IpProtocol: aws.String("tcp"), FromPort: aws.Int32(1), ToPort: aws.Int32(2)})
	wantCode(o, "InvalidParameterValue", err)
	got := call(o, c.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("tag:a", "b"), filter("ip-permission.cidr", "192.0.2.*")}}).SecurityGroups
	if len(got) != 1 || *got[0].IpPermissions[0].IpRanges[0].Description != "me" || len(got[0].IpPermissionsEgress) != 1 {
		o.Errorf("the group is %+v", got)
	}
	rules := call(o, c.DescribeSecurityGroupRules, &ec2.DescribeSecurityGroupRulesInput{Filters: []types.Filter{filter("group-id", *group)}}).SecurityGroupRules
	if len(rules) != 2 {
		o.Errorf("the group has %d rules", len(rules))
	}
	call(o, c.RevokeSecurityGroupIngress, &ec2.RevokeSecurityGroupIngressInput{GroupId: group, SecurityGroupRuleIds: []string{*in.SecurityGroupRules[0].SecurityGroupRuleId}})
	_, err = c.RevokeSecurityGroupIngress(o.Context(), &ec2.RevokeSecurityGroupIngressInput{GroupId: group, IpPermissions: []types.IpPermission{ssh}})
	wantCode(o, "InvalidPermission.NotFound", err)
	all := []types.IpPermission{{IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}}
	call(o, c.RevokeSecurityGroupEgress, &ec2.RevokeSecurityGroupEgressInput{GroupId: group, IpPermissions: all})
	call(o, c.AuthorizeSecurityGroupEgress, &ec2.AuthorizeSecurityGroupEgressInput{GroupId: group, IpPermissions: all})
	call(o, c.DeleteSecurityGroup, &ec2.DeleteSecurityGroupInput{GroupName: aws.String("g")})
	_, err = c.DescribeSecurityGroups(o.Context(), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group}})
	wantCode(o, "InvalidGroup.NotFound", err)
	_, err = c.DeleteSecurityGroup(o.Context(), &ec2.DeleteSecurityGroupInput{GroupName: aws.String("default")})
	wantCode(o, "CannotDelete", err)
}

func (o *operations) volumes() {
	c := o.c
	make := &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), VolumeType: "gp3", Iops: aws.Int32(3000),
		ClientToken: aws.String("v"), TagSpecifications: []types.TagSpecification{tags("volume", "a", "b")}}
	volume := call(o, c.CreateVolume, make)
	if again := call(o, c.CreateVolume, make); *again.VolumeId != *volume.VolumeId {
		o.Errorf("the same token made %s and %s", *volume.VolumeId, *again.VolumeId)
	}
	for want, bad := range map[string]*ec2.CreateVolumeInput{
		"InvalidZone.NotFound":        {AvailabilityZone: aws.String("us-east-1z"), Size: aws.Int32(1)},
		"MissingParameter":            {AvailabilityZone: aws.String("us-east-1a")},
		"InvalidParameterCombination": {AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), Throughput: aws.Int32(200)},
		"InvalidParameterValue":       {AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), VolumeType: "st1"},
	} {
		_, err := c.CreateVolume(o.Context(), bad)
		wantCode(o, want, err)
	}
	i := run(o, c, o.base, func(in *ec2.RunInstancesInput) {
		in.Placement = &types.Placement{AvailabilityZone: aws.String("us-east-1a")}
	})
	waitInstance(o, c, i.InstanceId, "running")
	attach := &ec2.AttachVolumeInput{VolumeId: volume.VolumeId, InstanceId: i.InstanceId, Device: aws.String("/dev/sdf")}
	call(o, c.AttachVolume, attach)
	_, err := c.AttachVolume(o.Context(), attach)
	wantCode(o, "VolumeInUse", err)
	_, err = c.DeleteVolume(o.Context(), &ec2.DeleteVolumeInput{VolumeId: volume.VolumeId})
	wantCode(o, "VolumeInUse", err)
	snaps := call(o, c.CreateSnapshots, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: i.InstanceId},
		CopyTagsFromSource: "volume"}).Snapshots
	if len(snaps) != 2 {
		o.Errorf("%d snapshots of two volumes", len(snaps))
	}
	got := call(o, c.DescribeVolumes, &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("attachment.instance-id", *i.InstanceId), filter("tag:a", "b")}}).Volumes
	if len(got) != 1 || got[0].State != "in-use" || *got[0].Attachments[0].Device != "/dev/sdf" {
		o.Errorf("the volume is %+v", got)
	}
	call(o, c.DetachVolume, &ec2.DetachVolumeInput{VolumeId: volume.VolumeId})
	call(o, c.DeleteVolume, &ec2.DeleteVolumeInput{VolumeId: volume.VolumeId})
	_, err = c.DescribeVolumes(o.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{*volume.VolumeId}})
	wantCode(o, "InvalidVolume.NotFound", err)
	call(o, c.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
	o.snapshots(*snaps[0].SnapshotId)
}

func (o *operations) snapshots(id string) {
	c := o.c
	waitSnapshot(o, c, &id)
	there := o.w.client(o, sandbox.DefaultKey, "eu-west-1")
	made, err := there.CopySnapshot(o.Context(), &ec2.CopySnapshotInput{SourceRegion: aws.String("us-east-1"), SourceSnapshotId: &id, Encrypted: aws.Bool(true)})
	must(o, err)
	waitSnapshot(o, there, made.SnapshotId)
	_, err = there.DeleteSnapshot(o.Context(), &ec2.DeleteSnapshotInput{SnapshotId: &id})
	wantCode(o, "InvalidSnapshot.NotFound", err)
	_, err = there.ModifySnapshotAttribute(o.Context(), &ec2.ModifySnapshotAttributeInput{SnapshotId: made.SnapshotId,
		CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: []types.CreateVolumePermission{{Group: "all"}}}})
	wantCode(o, "OperationNotPermitted", err)
	call(o, c.ModifySnapshotAttribute, &ec2.ModifySnapshotAttributeInput{SnapshotId: &id,
		CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: []types.CreateVolumePermission{{UserId: aws.String(otherAccount)}}}})
	perms := call(o, c.DescribeSnapshotAttribute, &ec2.DescribeSnapshotAttributeInput{SnapshotId: &id, Attribute: "createVolumePermission"}).CreateVolumePermissions
	if len(perms) != 1 || *perms[0].UserId != otherAccount {
		o.Errorf("permissions %v", perms)
	}
	out, err := o.w.other(o).DescribeSnapshots(o.Context(), &ec2.DescribeSnapshotsInput{RestorableByUserIds: []string{"self"}})
	must(o, err)
	if len(out.Snapshots) != 1 {
		o.Errorf("%d snapshots are shared with the other account", len(out.Snapshots))
	}
}

func (o *operations) images() {
	c := o.c
	id := register(o, c, "operations")
	call(o, c.CreateTags, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("2")}}})
	call(o, c.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: aws.String("a")}, {Key: aws.String("b"), Value: aws.String("other")}}})
	left := call(o, c.DescribeTags, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("resource-id", id)}}).Tags
	if len(left) != 1 || *left[0].Key != "b" {
		o.Errorf("tags left: %+v", left)
	}
	call(o, c.ModifyImageAttribute, &ec2.ModifyImageAttributeInput{ImageId: &id, Description: &types.AttributeValue{Value: aws.String("new")}})
	if got := call(o, c.DescribeImageAttribute, &ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: "description"}); *got.Description.Value != "new" {
		o.Errorf("the description is %s", *got.Description.Value)
	}
	call(o, c.ResetImageAttribute, &ec2.ResetImageAttributeInput{ImageId: &id, Attribute: "launchPermission"})
	call(o, c.EnableImageDeprecation, &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: aws.Time(time.Now().Add(time.Hour))})
	call(o, c.DisableImageDeprecation, &ec2.DisableImageDeprecationInput{ImageId: &id})
	call(o, c.EnableImageDeregistrationProtection, &ec2.EnableImageDeregistrationProtectionInput{ImageId: &id})
	call(o, c.DisableImageDeregistrationProtection, &ec2.DisableImageDeregistrationProtectionInput{ImageId: &id})
	call(o, c.DisableImage, &ec2.DisableImageInput{ImageId: &id})
	call(o, c.EnableImage, &ec2.EnableImageInput{ImageId: &id})
	copied := call(o, c.CopyImage, &ec2.CopyImageInput{Name: aws.String("copied"), SourceImageId: &id, SourceRegion: aws.String("us-east-1")})
	waitImage(o, c, copied.ImageId, "available")
	call(o, c.DeregisterImage, &ec2.DeregisterImageInput{ImageId: &id, DeleteAssociatedSnapshots: aws.Bool(true)})
}

func (o *operations) instances() {
	c := o.c
	i := run(o, c, o.base, func(in *ec2.RunInstancesInput) {
		in.DisableApiTermination = aws.Bool(true)
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{HttpTokens: "required", HttpPutResponseHopLimit: aws.Int32(2)}
	})
	id := i.InstanceId
	waitInstance(o, c, id, "running")
	call(o, c.GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: id})
	call(o, c.RebootInstances, &ec2.RebootInstancesInput{InstanceIds: []string{*id}})
	call(o, c.ModifyInstanceMetadataOptions, &ec2.ModifyInstanceMetadataOptionsInput{InstanceId: id, HttpEndpoint: "disabled"})
	call(o, c.AssociateIamInstanceProfile, &ec2.AssociateIamInstanceProfileInput{InstanceId: id, IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: aws.String("p")}})
	profiles := call(o, c.DescribeIamInstanceProfileAssociations, &ec2.DescribeIamInstanceProfileAssociationsInput{Filters: []types.Filter{filter("instance-id", *id)}})
	if len(profiles.IamInstanceProfileAssociations) != 1 {
		o.Errorf("%d profiles", len(profiles.IamInstanceProfileAssociations))
	}
	status := call(o, c.DescribeInstanceStatus, &ec2.DescribeInstanceStatusInput{Filters: []types.Filter{filter("instance-status.status", "ok")}})
	if !slices.ContainsFunc(status.InstanceStatuses, func(s types.InstanceStatus) bool { return *s.InstanceId == *id }) {
		o.Error("the instance's checks aren't ok")
	}
	end := func() error {
		_, err := c.TerminateInstances(o.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*id}})
		return err
	}
	wantCode(o, "OperationNotPermitted", end())
	call(o, c.ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{InstanceId: id, DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(false)}})
	_, err := c.ModifyInstanceAttribute(o.Context(), &ec2.ModifyInstanceAttributeInput{InstanceId: id, InstanceType: &types.AttributeValue{Value: aws.String("t3.small")}})
	wantCode(o, "IncorrectInstanceState", err)
	call(o, c.StopInstances, &ec2.StopInstancesInput{InstanceIds: []string{*id}})
	waitInstance(o, c, id, "stopped")
	call(o, c.ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{InstanceId: id, InstanceType: &types.AttributeValue{Value: aws.String("t3.small")}})
	got := call(o, c.DescribeInstanceAttribute, &ec2.DescribeInstanceAttributeInput{InstanceId: id, Attribute: "instanceType"})
	if *got.InstanceType.Value != "t3.small" {
		o.Errorf("the type is %s", *got.InstanceType.Value)
	}
	call(o, c.StartInstances, &ec2.StartInstancesInput{InstanceIds: []string{*id}})
	img := call(o, c.CreateImage, &ec2.CreateImageInput{InstanceId: waitInstance(o, c, id, "running").InstanceId, Name: aws.String("of instance")})
	waitImage(o, c, img.ImageId, "available")
	must(o, end())
	waitInstance(o, c, id, "terminated")
	_, err = c.StartInstances(o.Context(), &ec2.StartInstancesInput{InstanceIds: []string{*id}})
	wantCode(o, "IncorrectInstanceState", err)
	spot := run(o, c, o.base, func(in *ec2.RunInstancesInput) {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot"}
	})
	_, err = c.StopInstances(o.Context(), &ec2.StopInstancesInput{InstanceIds: []string{*spot.InstanceId}})
	wantCode(o, "UnsupportedOperation", err)
	requests := call(o, c.DescribeSpotInstanceRequests, &ec2.DescribeSpotInstanceRequestsInput{}).SpotInstanceRequests
	call(o, c.CancelSpotInstanceRequests, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{*requests[0].SpotInstanceRequestId}})
	if got := instance(o, c, spot.InstanceId); got.State.Name == "terminated" {
		o.Error("cancelling the request ended the instance")
	}
}
