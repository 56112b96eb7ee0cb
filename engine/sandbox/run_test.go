package sandbox_test

import (
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

func TestClientToken(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "base")
	withToken := func(in *ec2.RunInstancesInput) { in.ClientToken = aws.String("run-1") }
	first, again := run(t, c, base, withToken), run(t, c, base, withToken)
	if *first.InstanceId != *again.InstanceId {
		t.Fatalf("the same token made %s and %s", *first.InstanceId, *again.InstanceId)
	}
	_, err := c.RunInstances(ctx, runInput(base, withToken, func(in *ec2.RunInstancesInput) { in.InstanceType = "t3.small" }))
	wantCode(t, "IdempotentParameterMismatch", err)
	if other := run(t, w.other(t), base, withToken); *other.InstanceId == *first.InstanceId {
		t.Error("two accounts share a token")
	}
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*first.InstanceId}})
	must(t, err)
	_, err = c.RunInstances(ctx, runInput(base, withToken))
	wantCode(t, "IdempotentInstanceTerminated", err)
}

func TestRunRefusals(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{Quotas: sandbox.Quotas{VCPUs: 4, SpotVCPUs: 2}})
	c := w.mine(t)
	base := w.seed(t, "base")
	arm, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: "arm", Arch: "arm64"})
	must(t, err)
	uefi, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: publisher, Name: "uefi", BootMode: "uefi"})
	must(t, err)
	sn := snapshotOf(t, c)
	paravirtual, err := c.RegisterImage(t.Context(), &ec2.RegisterImageInput{Name: aws.String("bare"), RootDeviceName: aws.String("/dev/xvda"),
		Architecture: "x86_64", BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: &sn}}}})
	must(t, err)
	waitImage(t, c, paravirtual.ImageId, "available")
	spot := func(in *ec2.RunInstancesInput) {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot"}
	}
	for name, test := range map[string]struct {
		image  string
		change func(*ec2.RunInstancesInput)
		want   string
	}{
		"unknown image":      {"ami-0123456789abcdef0", func(*ec2.RunInstancesInput) {}, "InvalidAMIID.NotFound"},
		"unknown type":       {base, func(in *ec2.RunInstancesInput) { in.InstanceType = "t3.mcro" }, "InvalidParameterValue"},
		"other architecture": {arm, func(*ec2.RunInstancesInput) {}, "InvalidParameterValue"},
		"uefi on xen":        {uefi, func(in *ec2.RunInstancesInput) { in.InstanceType = "t2.micro" }, "InvalidParameterCombination"},
		"paravirtual":        {*paravirtual.ImageId, func(*ec2.RunInstancesInput) {}, "InvalidParameterCombination"},
		"unknown key":        {base, func(in *ec2.RunInstancesInput) { in.KeyName = aws.String("none") }, "InvalidKeyPair.NotFound"},
		"unknown group":      {base, func(in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{"sg-0123456789abcdef0"} }, "InvalidGroup.NotFound"},
		"unknown subnet":     {base, func(in *ec2.RunInstancesInput) { in.SubnetId = aws.String("subnet-0123456789abcdef0") }, "InvalidSubnetID.NotFound"},
		"unknown profile": {base, func(in *ec2.RunInstancesInput) {
			in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("none")}
		}, "InvalidParameterValue"},
		"unknown zone": {base, func(in *ec2.RunInstancesInput) {
			in.Placement = &types.Placement{AvailabilityZone: aws.String("us-east-1z")}
		}, "InvalidParameterValue"},
		"type not in zone": {base, func(in *ec2.RunInstancesInput) {
			in.InstanceType, in.Placement = "m5.large", &types.Placement{AvailabilityZone: aws.String("us-east-1b")}
		}, "Unsupported"},
		"smaller disk": {base, func(in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(0)}}}
		}, "InvalidBlockDeviceMapping"},
		"user data not base64": {base, func(in *ec2.RunInstancesInput) { in.UserData = aws.String("#!/bin/sh") }, "InvalidUserData.Malformed"},
		"user data too long": {base, func(in *ec2.RunInstancesInput) {
			in.UserData = aws.String(base64.StdEncoding.EncodeToString(make([]byte, 17<<10)))
		}, "InvalidParameterValue"},
		"launch template": {base, func(in *ec2.RunInstancesInput) {
			in.LaunchTemplate = &types.LaunchTemplateSpecification{LaunchTemplateName: aws.String("none")}
		}, "InvalidLaunchTemplateId.NotFound"},
		"quota":      {base, func(in *ec2.RunInstancesInput) { in.InstanceType = "t3.2xlarge" }, "VcpuLimitExceeded"},
		"spot quota": {base, func(in *ec2.RunInstancesInput) { spot(in); in.InstanceType = "t3.xlarge" }, "MaxSpotInstanceCountExceeded"},
		"spot price": {base, func(in *ec2.RunInstancesInput) {
			spot(in)
			in.InstanceMarketOptions.SpotOptions = &types.SpotMarketOptions{MaxPrice: aws.String("0.0001")}
		}, "SpotMaxPriceTooLow"},
		"dry run":     {base, func(in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) }, "DryRunOperation"},
		"none at all": {base, func(in *ec2.RunInstancesInput) { in.MinCount, in.MaxCount = aws.Int32(2), aws.Int32(1) }, "InvalidParameterValue"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.RunInstances(t.Context(), runInput(test.image, test.change))
			wantCode(t, test.want, err)
		})
	}
	out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	must(t, err)
	volumes, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("status", "in-use")}})
	must(t, err)
	if len(out.Reservations)+len(volumes.Volumes) > 0 {
		t.Errorf("refused launches left %d reservations and %d volumes", len(out.Reservations), len(volumes.Volumes))
	}
}

// clock is a clock for tests that stands still.
func clock() time.Time { return time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC) }

func TestPendingStatesLast(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{Now: clock, Pace: 1})
	c := w.mine(t)
	i := run(t, c, w.seed(t, "base"))
	state := func() string { return string(instance(t, c, i.InstanceId).State.Name) }
	status := func() string {
		out, err := c.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{*i.InstanceId}, IncludeAllInstances: aws.Bool(true)})
		must(t, err)
		return string(out.InstanceStatuses[0].InstanceStatus.Status)
	}
	if got := state(); got != "pending" {
		t.Fatalf("at once the instance is %s", got)
	}
	must(t, w.Advance(time.Minute))
	eventually(t, "the volume's bytes are there", func() bool { return state() == "running" })
	if got := status(); got != "initializing" {
		t.Errorf("after a minute the checks are %s", got)
	}
	must(t, w.Advance(time.Minute))
	if got := status(); got != "ok" {
		t.Errorf("after two minutes the checks are %s", got)
	}
	img, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: i.InstanceId, Name: aws.String("made")})
	must(t, err)
	must(t, w.Advance(30*time.Second))
	snaps, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	must(t, err)
	if got := *snaps.Snapshots[0].Progress; got != "50%" {
		t.Errorf("half-way the snapshot is at %s", got)
	}
	pending := waitImage(t, c, img.ImageId, "pending")
	if len(pending.BlockDeviceMappings) != 0 {
		t.Errorf("a pending image tells of %v", pending.BlockDeviceMappings)
	}
	_, err = c.RunInstances(ctx, runInput(*img.ImageId))
	wantCode(t, "InvalidAMIID.Unavailable", err)
	must(t, w.Advance(2*time.Minute))
	waitImage(t, c, img.ImageId, "available")
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	if got := state(); got != "shutting-down" {
		t.Errorf("terminated, the instance is %s", got)
	}
	must(t, w.Advance(time.Minute))
	waitInstance(t, c, i.InstanceId, "terminated")
	must(t, w.Advance(2*time.Hour))
	_, err = c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{*i.InstanceId}})
	wantCode(t, "InvalidInstanceID.NotFound", err)
}

func TestSpot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{Now: clock})
	c := w.mine(t)
	must(t, w.SetFaults(sandbox.Faults{List: []sandbox.Fault{{Action: "RunInstances", Kind: sandbox.SpotInterruption, For: 10 * time.Minute}}}))
	i := run(t, c, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: "spot"}
		in.TagSpecifications = []types.TagSpecification{tags("spot-instances-request", "a", "b")}
	})
	if i.InstanceLifecycle != "spot" {
		t.Errorf("the instance's lifecycle is %q", i.InstanceLifecycle)
	}
	waitInstance(t, c, i.InstanceId, "running")
	request := func() types.SpotInstanceRequest {
		out, err := c.DescribeSpotInstanceRequests(ctx, &ec2.DescribeSpotInstanceRequestsInput{Filters: []types.Filter{filter("tag:a", "b")}})
		must(t, err)
		return out.SpotInstanceRequests[0]
	}
	if r := request(); *r.InstanceId != *i.InstanceId || r.State != "active" {
		t.Errorf("the request is %s of %s", r.State, *r.InstanceId)
	}
	must(t, w.Advance(11*time.Minute))
	waitInstance(t, c, i.InstanceId, "running")
	must(t, w.Advance(2*time.Minute))
	gone := waitInstance(t, c, i.InstanceId, "terminated")
	if *gone.StateReason.Code != "Server.SpotInstanceTermination" {
		t.Errorf("the reason is %s", *gone.StateReason.Code)
	}
	if r := request(); r.State != "closed" || *r.Status.Code != "instance-terminated-no-capacity" {
		t.Errorf("the request is %s, %s", r.State, *r.Status.Code)
	}
}

func TestAddressesAreOfLoopback(t *testing.T) {
	t.Parallel()
	prefix := netip.MustParsePrefix("127.9.9.0/30")
	w := open(t, sandbox.Config{Loopback: prefix})
	c := w.mine(t)
	base := w.seed(t, "base")
	seen := map[string]bool{}
	for range 3 {
		i := waitInstance(t, c, run(t, c, base).InstanceId, "running")
		if i.PublicIpAddress == nil {
			continue
		}
		if !prefix.Contains(netip.MustParseAddr(*i.PublicIpAddress)) || seen[*i.PublicIpAddress] {
			t.Errorf("the address %s is taken, or not in %v", *i.PublicIpAddress, prefix)
		}
		seen[*i.PublicIpAddress] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d addresses were given out of %v", len(seen), prefix)
	}
}
