package sandbox_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

// From a base to an image and back to nothing, as a builder does it.
func TestLifeOfAnImage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	base := w.seed(t, "debian-12-amd64-20261101")

	key, err := c.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("k"), KeyType: types.KeyTypeEd25519})
	must(t, err)
	group, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d")})
	must(t, err)
	i := run(t, c, base, func(in *ec2.RunInstancesInput) {
		in.KeyName, in.SecurityGroupIds = key.KeyName, []string{*group.GroupId}
		in.TagSpecifications = []types.TagSpecification{tags("instance", "Name", "x"), tags("volume", "Name", "y")}
	})
	if i.State.Name != "pending" {
		t.Errorf("a new instance is %s", i.State.Name)
	}
	running := waitInstance(t, c, i.InstanceId, "running")
	if len(running.BlockDeviceMappings) != 1 || *running.Tags[0].Value != "x" {
		t.Errorf("the running instance is %+v", running)
	}
	img, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: i.InstanceId, Name: aws.String("mine"),
		TagSpecifications: []types.TagSpecification{tags("image", "a", "b"), tags("snapshot", "c", "d")}})
	must(t, err)
	made := waitImage(t, c, img.ImageId, "available")
	snap := *made.BlockDeviceMappings[0].Ebs.SnapshotId
	_, err = c.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap})
	wantCode(t, "InvalidSnapshot.InUse", err)
	_, err = c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
	wantCode(t, "DependencyViolation", err)

	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*i.InstanceId}})
	must(t, err)
	waitInstance(t, c, i.InstanceId, "terminated")
	_, err = c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId})
	must(t, err)
	_, err = c.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snap})
	must(t, err)
	_, err = c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
	must(t, err)
	_, err = c.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: key.KeyName})
	must(t, err)
	left, err := c.DescribeTags(ctx, &ec2.DescribeTagsInput{})
	must(t, err)
	for _, tag := range left.Tags {
		if tag.ResourceType != "instance" {
			t.Errorf("left: %s %s", tag.ResourceType, *tag.ResourceId)
		}
	}
}
