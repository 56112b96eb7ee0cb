package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/spec"
)

// ciKey acts in the sandbox's account under the policy of a test, hostileKey in another account.
const (
	ciKey      = "AKIA" + account + "CI"
	hostileKey = "AKIA444455556666XX"
	debian     = "136693071363"
)

// world is a sandbox with Debian's image and one of the same name from somebody else.
type world struct {
	*sandbox.Server
	address       string
	base, hostile string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := sandbox.Open(t.Context(), sandbox.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		web.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{Server: s, address: web.URL}
	for owner, id := range map[string]*string{debian: &w.base, "444455556666": &w.hostile} {
		image := sandbox.SeedImage{Account: owner, Name: "debian-12-amd64-20261101", Region: "eu-west-1"}
		if *id, err = s.AddImage(t.Context(), image); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) ec2(key string) *ec2.Client {
	return ec2.New(ec2.Options{
		Region: "eu-west-1", BaseEndpoint: &w.address, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(key, sandbox.DefaultKey, ""),
	})
}

// bound gives the key of the tests the policy of pipelines.
func (w *world) bound(t *testing.T, known access.Known, p ...*spec.Pipeline) {
	t.Helper()
	text, err := json.Marshal(known.Policy(p...))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetPolicy(ciKey, string(text)); err != nil {
		t.Fatal(err)
	}
}

const overSSH = `gild: 1
name: web
release: 1.0.0
base: {ami: {owner: "136693071363", name: "debian-12-*"}}
builders:
  aws: {region: eu-west-1, instance: {types: [t3.large], spot: prefer}, connect: ssh}
`

// specs are the tags that gild gives, for some types.
func specs(pipeline string, kinds ...types.ResourceType) []types.TagSpecification {
	var all []types.TagSpecification
	for _, k := range kinds {
		all = append(all, types.TagSpecification{ResourceType: k, Tags: []types.Tag{
			{Key: aws.String("gild:run"), Value: aws.String("r1")}, {Key: aws.String("gild:pipeline"), Value: &pipeline},
		}})
	}
	return all
}

// launch is what gild asks for.
func (w *world) launch(pipeline, group string) *ec2.RunInstancesInput {
	return &ec2.RunInstancesInput{
		ImageId: &w.base, InstanceType: "t3.large", MinCount: aws.Int32(1), MaxCount: aws.Int32(1), SecurityGroupIds: []string{group},
		MetadataOptions:   &types.InstanceMetadataOptionsRequest{HttpTokens: types.HttpTokensStateRequired},
		TagSpecifications: specs(pipeline, types.ResourceTypeInstance, types.ResourceTypeVolume, types.ResourceTypeNetworkInterface),
	}
}

func (w *world) group(t *testing.T, c *ec2.Client, pipeline string) string {
	t.Helper()
	vpcs, err := w.ec2(sandbox.DefaultKey).DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.CreateSecurityGroup(t.Context(), &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("gild-" + pipeline), Description: aws.String("d"), VpcId: vpcs.Vpcs[0].VpcId,
		TagSpecifications: specs(pipeline, types.ResourceTypeSecurityGroup),
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.GroupId
}

// TestPolicyIsEnough makes the life of an image with the pipeline's policy alone.
func TestPolicyIsEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bound(t, access.Known{}, parse(t, "web.yaml", overSSH)...)
	ctx, c := t.Context(), w.ec2(ciKey)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	group := w.group(t, c, "web")
	_, err := c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: []types.IpPermission{{
		IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("192.0.2.1/32")}},
	}}})
	must("open the port", err)
	run, err := c.RunInstances(ctx, w.launch("web", group))
	must("launch", err)
	id := *run.Instances[0].InstanceId
	w.await(t, c, id, types.InstanceStateNameRunning)
	_, err = c.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{id}})
	must("reboot", err)
	_, err = c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}})
	must("stop", err)
	w.await(t, c, id, types.InstanceStateNameStopped)
	image, err := c.CreateImage(ctx, &ec2.CreateImageInput{
		InstanceId: &id, Name: aws.String("web-1"), TagSpecifications: specs("web", types.ResourceTypeImage, types.ResourceTypeSnapshot),
	})
	must("make an image", err)
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	must("terminate", err)
	w.await(t, c, id, types.InstanceStateNameTerminated)
	made := w.available(t, c, *image.ImageId)
	guest := w.launch("web", group)
	guest.ImageId = image.ImageId
	run, err = c.RunInstances(ctx, guest)
	must("boot the candidate", err)
	id = *run.Instances[0].InstanceId
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	must("end the guest", err)
	w.await(t, c, id, types.InstanceStateNameTerminated)
	snapshot := *made.BlockDeviceMappings[0].Ebs.SnapshotId
	published := []types.Tag{{Key: aws.String("gild:kind"), Value: aws.String("published")}}
	_, err = c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*image.ImageId, snapshot}, Tags: published})
	must("publish", err)
	_, err = c.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{*image.ImageId, snapshot}, Tags: []types.Tag{{Key: aws.String("gild:expires")}}})
	must("publish for good", err)
	_, err = c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: image.ImageId})
	must("deregister", err)
	_, err = c.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &snapshot})
	must("remove the snapshot", err)
	_, err = c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &group})
	must("remove the group", err)

	var calls []string
	for _, call := range w.Calls() {
		if call.Service+":"+call.Action != "ec2:DescribeVpcs" {
			calls = append(calls, call.Service+":"+call.Action)
		}
	}
	uncovered, _ := access.Compare(calls, parse(t, "web.yaml", overSSH)...)
	if uncovered != nil {
		t.Errorf("calls that the policy doesn't allow: %q", uncovered)
	}
}

// TestPolicyIsNarrow tries what the pipeline's policy must not allow.
func TestPolicyIsNarrow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bound(t, access.Known{}, parse(t, "web.yaml", overSSH)...)
	ctx, c, all := t.Context(), w.ec2(ciKey), w.ec2(sandbox.DefaultKey)
	group := w.group(t, c, "web")
	// What another pipeline made in the same account.
	otherGroup := w.group(t, all, "other")
	other, err := all.RunInstances(ctx, w.launch("other", otherGroup))
	if err != nil {
		t.Fatal(err)
	}
	otherID := *other.Instances[0].InstanceId
	w.await(t, all, otherID, types.InstanceStateNameRunning)
	image, err := all.CreateImage(ctx, &ec2.CreateImageInput{
		InstanceId: &otherID, Name: aws.String("other-1"), TagSpecifications: specs("other", types.ResourceTypeImage, types.ResourceTypeSnapshot),
	})
	if err != nil {
		t.Fatal(err)
	}
	launch := func(change func(*ec2.RunInstancesInput)) func() error {
		return func() error {
			in := w.launch("web", group)
			change(in)
			_, err := c.RunInstances(ctx, in)
			return err
		}
	}
	for name, try := range map[string]func() error{
		"the image of the same name from another owner": launch(func(in *ec2.RunInstancesInput) { in.ImageId = &w.hostile }),
		"another pipeline's image":                      launch(func(in *ec2.RunInstancesInput) { in.ImageId = image.ImageId }),
		"another type":                                  launch(func(in *ec2.RunInstancesInput) { in.InstanceType = "c7i.48xlarge" }),
		"IMDSv1":                                        launch(func(in *ec2.RunInstancesInput) { in.MetadataOptions.HttpTokens = types.HttpTokensStateOptional }),
		"IMDS unsaid":                                   launch(func(in *ec2.RunInstancesInput) { in.MetadataOptions = nil }),
		"no tags":                                       launch(func(in *ec2.RunInstancesInput) { in.TagSpecifications = nil }),
		"another pipeline's tags":                       launch(func(in *ec2.RunInstancesInput) { in.TagSpecifications = w.launch("other", "").TagSpecifications }),
		"another pipeline's group":                      launch(func(in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{otherGroup} }),
		"terminate another pipeline's instance": func() error {
			_, err := c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{otherID}})
			return err
		},
		"take over another pipeline's instance": func() error {
			_, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{otherID}, Tags: specs("web", "")[0].Tags})
			return err
		},
		"image another pipeline's instance": func() error {
			_, err := c.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &otherID, Name: aws.String("mine"), TagSpecifications: specs("web", types.ResourceTypeImage, types.ResourceTypeSnapshot)})
			return err
		},
		"deregister another pipeline's image": func() error {
			_, err := c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: image.ImageId})
			return err
		},
		"open another pipeline's group": func() error {
			_, err := c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &otherGroup, IpPermissions: []types.IpPermission{{IpProtocol: aws.String("-1")}}})
			return err
		},
		"make a volume": func() error {
			_, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("eu-west-1a"), Size: aws.Int32(1)})
			return err
		},
		"another region": func() error {
			_, err := ec2.New(c.Options(), func(o *ec2.Options) { o.Region = "us-east-1" }).DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
			return err
		},
	} {
		var api smithy.APIError
		if err := try(); !errors.As(err, &api) || api.ErrorCode() != "UnauthorizedOperation" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.RunInstances(ctx, w.launch("web", group)); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
}

func (w *world) await(t *testing.T, c *ec2.Client, id string, state types.InstanceStateName) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := c.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		now := out.Reservations[0].Instances[0].State.Name
		if now == state {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, not %s", id, now, state)
		}
	}
}

func (w *world) available(t *testing.T, c *ec2.Client, id string) types.Image {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := c.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}})
		if err != nil {
			t.Fatal(err)
		}
		if out.Images[0].State == types.ImageStateAvailable {
			return out.Images[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s", id, out.Images[0].State)
		}
	}
}

// caller is an STS that knows one user.
type caller struct{}

func (caller) GetCallerIdentity(context.Context, *sts.GetCallerIdentityInput, ...func(*sts.Options)) (*sts.GetCallerIdentityOutput, error) {
	return &sts.GetCallerIdentityOutput{Account: aws.String(account), Arn: aws.String(user)}, nil
}

// TestDryRun holds what is tried against the pipeline: its own type, subnet and image, and
// nothing that is made.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arm, err := w.AddImage(t.Context(), sandbox.SeedImage{Account: debian, Name: "debian-12-arm64-20261101", Arch: "arm64", Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	subnets, err := w.ec2(sandbox.DefaultKey).DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	subnet := *subnets.Subnets[1].SubnetId
	p := parse(t, "web.yaml", strings.Replace(overSSH, "types: [t3.large], spot: prefer", "types: [t3.large, t4g.small], subnet: "+subnet, 1)+"matrix: {arch: [arm64]}\n")[0]
	w.bound(t, access.Known{Account: account}, p)
	refuses := &fakeIAM{fail: &smithy.GenericAPIError{Code: "AccessDenied", Message: "no"}}
	cloud := access.Cloud{Base: base(arm), Region: func(context.Context, string) (access.Clients, error) {
		return access.Clients{EC2: w.ec2(ciKey), IAM: refuses, STS: caller{}}, nil
	}}
	before := len(w.Calls())
	got := found(access.Check(t.Context(), cloud, p), subnet, "SUBNET", arm, "AMI", *subnets.Subnets[1].VpcId, "VPC")
	compare(t, "testdata/dryrun.txt", got)
	for _, call := range w.Calls()[before:] {
		switch {
		case strings.HasPrefix(call.Action, "Describe"):
			continue
		case call.Params["DryRun"] != true:
			t.Errorf("%s was no dry run", call.Action)
		case call.Action == "RunInstances":
			tried := []any{call.Params["InstanceType"], call.Params["SubnetId"], call.Params["ImageId"]}
			if d := cmp.Diff([]any{"t4g.small", subnet, arm}, tried); d != "" {
				t.Errorf("type, subnet and image that were tried (-want +got):\n%s", d)
			}
		}
	}
	if !slices.ContainsFunc(w.Calls()[before:], func(c sandbox.Call) bool { return c.Action == "RunInstances" }) {
		t.Error("launching wasn't tried")
	}
}
