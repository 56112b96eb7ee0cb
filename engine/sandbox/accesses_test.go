package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// needs finds out which permissions a call asks for: it starts with none, and gives what each
// refusal names until there is no more. The call must be a dry run, or fail for another reason.
func (w *world) needs(t *testing.T, try func(context.Context) error) []string {
	t.Helper()
	type grant struct {
		Effect, Action, Resource string
	}
	grants := []grant{}
	var said []string
	for range 20 {
		text, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": grants})
		must(t, err)
		must(t, w.SetPolicy(sandbox.DefaultKey, string(text)))
		err = try(t.Context())
		var api smithy.APIError
		if !errors.As(err, &api) || !strings.Contains(api.ErrorMessage(), "is not authorized to perform: ") {
			must(t, w.SetPolicy(sandbox.DefaultKey, ""))
			slices.Sort(said)
			return said
		}
		_, rest, _ := strings.Cut(api.ErrorMessage(), "is not authorized to perform: ")
		action, rest, _ := strings.Cut(rest, " on resource: ")
		resource, _, _ := strings.Cut(rest, " ")
		grants = append(grants, grant{"Allow", action, resource})
		said = append(said, action+" "+resource)
	}
	t.Fatalf("there is no end to what it needs: %q", said)
	return nil
}

// Permissions are those of AWS's Service Authorization Reference: the action on each type of
// resource that is listed there, by its id where the call gives one.
func TestAccesses(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.mine(t)
	f := newAccessed(t, w)
	dry := aws.Bool(true)
	for _, test := range []struct {
		name string
		try  func(context.Context) error
		want []string
	}{
		{"look at all", f.describe, []string{"ec2:DescribeInstances *"}},
		{"look at one", func(ctx context.Context) error {
			_, err := c.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: &f.instance, DryRun: dry})
			return err
		}, []string{"ec2:GetConsoleOutput instance/I"}},
		{"look at an image", func(ctx context.Context) error {
			_, err := c.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: &f.image, Attribute: "description", DryRun: dry})
			return err
		}, []string{"ec2:DescribeImageAttribute :image/A"}},
		{"key by name", func(ctx context.Context) error {
			_, err := c.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: aws.String("k"), DryRun: dry})
			return err
		}, []string{"ec2:DeleteKeyPair key-pair/k"}},
		{"key by id", func(ctx context.Context) error {
			_, err := c.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyPairId: &f.keyID, DryRun: dry})
			return err
		}, []string{"ec2:DeleteKeyPair key-pair/k"}},
		{"new key", func(ctx context.Context) error {
			_, err := c.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: aws.String("n"), PublicKeyMaterial: importedKey(t), DryRun: dry,
				TagSpecifications: []types.TagSpecification{tags("key-pair", "a", "b")}})
			return err
		}, []string{"ec2:CreateTags key-pair/n", "ec2:ImportKeyPair key-pair/n"}},
		{"spot request", func(ctx context.Context) error {
			_, err := c.CancelSpotInstanceRequests(ctx, &ec2.CancelSpotInstanceRequestsInput{SpotInstanceRequestIds: []string{"sir-01234567"}, DryRun: dry})
			return err
		}, []string{"ec2:CancelSpotInstanceRequests spot-instances-request/sir-01234567"}},
		{"group in the default VPC", func(ctx context.Context) error {
			_, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("n"), Description: aws.String("d"), DryRun: dry})
			return err
		}, []string{"ec2:CreateSecurityGroup security-group/*", "ec2:CreateSecurityGroup vpc/V"}},
		{"group in a VPC", func(ctx context.Context) error {
			_, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("n"), Description: aws.String("d"), VpcId: aws.String("vpc-1"), DryRun: dry})
			return err
		}, []string{"ec2:CreateSecurityGroup security-group/*", "ec2:CreateSecurityGroup vpc/vpc-1"}},
		{"group by name", func(ctx context.Context) error {
			_, err := c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupName: aws.String("g"), DryRun: dry})
			return err
		}, []string{"ec2:DeleteSecurityGroup security-group/G"}},
		{"tagged rule", func(ctx context.Context) error {
			_, err := c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &f.group, DryRun: dry, TagSpecifications: []types.TagSpecification{tags("security-group-rule", "a", "b")}})
			return err
		}, []string{"ec2:AuthorizeSecurityGroupIngress security-group-rule/*", "ec2:AuthorizeSecurityGroupIngress security-group/G", "ec2:CreateTags security-group-rule/*"}},
		{"launch", f.launch(nil), []string{"ec2:RunInstances :image/A", "ec2:RunInstances instance/*", "ec2:RunInstances network-interface/*",
			"ec2:RunInstances security-group/D", "ec2:RunInstances volume/*"}},
		{"launch with much", f.launch(func(in *ec2.RunInstancesInput) {
			in.SubnetId, in.KeyName, in.SecurityGroupIds, in.SecurityGroups = &f.subnet, aws.String("k"), []string{f.group}, []string{"default"}
			in.TagSpecifications = []types.TagSpecification{tags("instance", "a", "b"), tags("spot-instances-request", "a", "b")}
		}), []string{"ec2:CreateTags instance/*", "ec2:CreateTags spot-instances-request/*", "ec2:RunInstances :image/A", "ec2:RunInstances instance/*",
			"ec2:RunInstances key-pair/k", "ec2:RunInstances network-interface/*", "ec2:RunInstances security-group/D", "ec2:RunInstances security-group/G",
			"ec2:RunInstances spot-instances-request/*", "ec2:RunInstances subnet/S", "ec2:RunInstances volume/*"}},
		{"launch with an interface", f.launch(func(in *ec2.RunInstancesInput) {
			in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: &f.subnet, Groups: []string{f.group}}}
		}), []string{"ec2:RunInstances :image/A", "ec2:RunInstances instance/*", "ec2:RunInstances network-interface/*",
			"ec2:RunInstances security-group/G", "ec2:RunInstances subnet/S", "ec2:RunInstances volume/*"}},
		{"copy of a snapshot", func(ctx context.Context) error {
			_, err := w.client(t, sandbox.DefaultKey, "us-west-2").CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceRegion: aws.String("us-east-1"), SourceSnapshotId: aws.String("snap-1"), DryRun: dry})
			return err
		}, []string{"ec2:CopySnapshot :snapshot/snap-1", "ec2:CopySnapshot arn:aws:ec2:us-west-2::snapshot/*"}},
		{"snapshots of an instance", func(ctx context.Context) error {
			_, err := c.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: &f.instance}, DryRun: dry})
			return err
		}, []string{"ec2:CreateSnapshots :snapshot/*", "ec2:CreateSnapshots instance/I", "ec2:CreateSnapshots volume/O"}},
		{"volume of a snapshot", func(ctx context.Context) error {
			_, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), SnapshotId: aws.String("snap-1"), DryRun: dry})
			return err
		}, []string{"ec2:CreateVolume :snapshot/snap-1", "ec2:CreateVolume volume/*"}},
		{"groups of an instance", func(ctx context.Context) error {
			_, err := c.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &f.instance, Groups: []string{f.group}, DryRun: dry})
			return err
		}, []string{"ec2:ModifyInstanceAttribute instance/I", "ec2:ModifyInstanceAttribute security-group/G"}},
		{"tags", func(ctx context.Context) error {
			_, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{f.instance, f.keyID}, Tags: tags("instance", "a", "b").Tags, DryRun: dry})
			return err
		}, []string{"ec2:CreateTags instance/I", "ec2:CreateTags key-pair/k"}},
	} {
		if diff := cmp.Diff(test.want, f.short(w.needs(t, test.try))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// accessed is what the calls of a test are about.
type accessed struct {
	c *ec2.Client

	image, instance, volume, keyID, vpc, subnet, group, defaultGroup string
}

func newAccessed(t *testing.T, w *world) *accessed {
	t.Helper()
	ctx, c := t.Context(), w.mine(t)
	f := &accessed{c: c, image: w.seed(t, "base")}
	i := run(t, c, f.image)
	f.instance, f.subnet, f.vpc, f.defaultGroup = *i.InstanceId, *i.SubnetId, *i.VpcId, *i.SecurityGroups[0].GroupId
	volumes, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
	must(t, err)
	f.volume = *volumes.Volumes[0].VolumeId
	key, err := c.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: aws.String("k"), PublicKeyMaterial: importedKey(t)})
	must(t, err)
	f.keyID = *key.KeyPairId
	group, err := c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("d")})
	must(t, err)
	f.group = *group.GroupId
	return f
}

func (f *accessed) describe(ctx context.Context) error {
	_, err := f.c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{f.instance}})
	return err
}

func (f *accessed) launch(change func(*ec2.RunInstancesInput)) func(context.Context) error {
	in := runInput(f.image, func(in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) })
	if change != nil {
		change(in)
	}
	return func(ctx context.Context) error {
		_, err := f.c.RunInstances(ctx, in)
		return err
	}
}

// short has letters for the ids, and no more of the ARNs of this account and region than their ends.
func (f *accessed) short(needs []string) []string {
	short := strings.NewReplacer("arn:aws:ec2:us-east-1:"+sandbox.DefaultAccount+":", "", "arn:aws:ec2:us-east-1:", "",
		f.image, "A", f.instance, "I", f.volume, "O", f.vpc, "V", f.subnet, "S", f.group, "G", f.defaultGroup, "D")
	var out []string
	for _, need := range needs {
		out = append(out, short.Replace(need))
	}
	slices.Sort(out)
	return out
}

// A condition holds only on the resources for which AWS has its key.
func TestConditionsOfLaunch(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	f := newAccessed(t, w)
	vpc := "arn:aws:ec2:us-east-1:" + sandbox.DefaultAccount + ":vpc/"
	for _, test := range []struct{ name, types, condition, want string }{
		{"the VPC of subnet, group and interface", "subnet security-group network-interface", `{"ArnLike": {"ec2:Vpc": "` + vpc + f.vpc + `"}}`, "DryRunOperation"},
		{"another VPC", "subnet", `{"ArnLike": {"ec2:Vpc": "` + vpc + `vpc-1"}}`, "UnauthorizedOperation"},
		{"an instance has no VPC yet", "instance", `{"ArnLike": {"ec2:Vpc": "` + vpc + f.vpc + `"}}`, "UnauthorizedOperation"},
		{"the interface's subnet", "network-interface", `{"ArnLike": {"ec2:Subnet": "*/` + f.subnet + `"}}`, "DryRunOperation"},
		{"the type of the instance", "instance", `{"StringEquals": {"ec2:InstanceType": "t3.micro"}}`, "DryRunOperation"},
		{"an image has no instance type", "image", `{"StringEquals": {"ec2:InstanceType": "t3.micro"}}`, "UnauthorizedOperation"},
		{"a key pair has no tokens", "key-pair", `{"StringEquals": {"ec2:MetadataHttpTokens": "required"}}`, "UnauthorizedOperation"},
		{"the region", "instance image volume", `{"StringEquals": {"aws:RequestedRegion": "us-east-1", "ec2:Region": "us-east-1", "aws:PrincipalAccount": "${aws:PrincipalAccount}"}}`, "DryRunOperation"},
	} {
		var resources, others []string
		for _, typ := range []string{"image", "instance", "key-pair", "network-interface", "security-group", "subnet", "volume"} {
			arn := fmt.Sprintf("%q", "arn:aws:ec2:us-east-1:*:"+typ+"/*")
			if slices.Contains(strings.Fields(test.types), typ) {
				resources = append(resources, arn)
			} else {
				others = append(others, arn)
			}
		}
		must(t, w.SetPolicy(sandbox.DefaultKey, fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
			{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": [%s]},
			{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": [%s], "Condition": %s}]}`,
			strings.Join(others, ", "), strings.Join(resources, ", "), test.condition)))
		err := f.launch(func(in *ec2.RunInstancesInput) {
			in.SubnetId, in.KeyName, in.InstanceType, in.SecurityGroupIds = &f.subnet, aws.String("k"), "t3.micro", []string{f.group}
		})(t.Context())
		if got := code(err); got != test.want {
			t.Errorf("%s: %q, want %q (%v)", test.name, got, test.want, err)
		}
	}
}

// The other services' permissions have AWS's resources and condition keys too.
func TestAccessesOfServices(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	i := run(t, c.ec2, w.seed(t, "base"), func(in *ec2.RunInstancesInput) {
		in.TagSpecifications = []types.TagSpecification{tags("instance", "gild", "1")}
	})
	makeProfile(t, c, "p", agentPolicy)
	arn := func(service, rest string) string {
		return "arn:aws:" + service + ":us-east-1:" + sandbox.DefaultAccount + ":" + rest
	}
	role, profile := "arn:aws:iam::"+sandbox.DefaultAccount+":role/p", "arn:aws:iam::"+sandbox.DefaultAccount+":instance-profile/p"
	iamTags := []iamtypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}
	for _, test := range []struct {
		name string
		try  func(context.Context) error
		want []string
	}{
		{"command", func(ctx context.Context) error {
			_, err := c.ssm.SendCommand(ctx, &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{*i.InstanceId}, Parameters: commands("true")})
			return err
		}, []string{"ssm:SendCommand " + arn("ec2", "instance/"+*i.InstanceId), "ssm:SendCommand arn:aws:ssm:us-east-1::document/AWS-RunShellScript"}},
		{"what a command said", func(ctx context.Context) error {
			_, err := c.ssm.ListCommandInvocations(ctx, &ssm.ListCommandInvocationsInput{})
			return err
		}, []string{"ssm:ListCommandInvocations *"}},
		{"version of a parameter", func(ctx context.Context) error {
			_, err := c.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/a/b:3")})
			return err
		}, []string{"ssm:GetParameter " + arn("ssm", "parameter/a/b")}},
		{"key by alias", func(ctx context.Context) error {
			_, err := c.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("alias/none")})
			return err
		}, []string{"kms:DescribeKey " + arn("kms", "key/alias/none")}},
		{"keys", func(ctx context.Context) error {
			_, err := c.kms.ListAliases(ctx, &kms.ListAliasesInput{})
			return err
		}, []string{"kms:ListAliases *"}},
		{"tagged role", func(ctx context.Context) error {
			_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("n"), Path: aws.String("/x/"), AssumeRolePolicyDocument: aws.String("no"), Tags: iamTags})
			return err
		}, []string{"iam:CreateRole arn:aws:iam::" + sandbox.DefaultAccount + ":role/x/n", "iam:TagRole arn:aws:iam::" + sandbox.DefaultAccount + ":role/x/n"}},
		{"role into a profile", func(ctx context.Context) error {
			_, err := c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: aws.String("p"), RoleName: aws.String("p")})
			return err
		}, []string{"iam:AddRoleToInstanceProfile " + profile, "iam:PassRole " + role}},
		{"role out of a profile", func(ctx context.Context) error {
			_, err := c.iam.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: aws.String("p"), RoleName: aws.String("none")})
			return err
		}, []string{"iam:RemoveRoleFromInstanceProfile " + profile}},
		{"new snapshot", func(ctx context.Context) error {
			_, err := c.ebs.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ParentSnapshotId: aws.String("snap-0123456789abcdef0")})
			return err
		}, []string{"ebs:StartSnapshot arn:aws:ec2:us-east-1::snapshot/*"}},
	} {
		if diff := cmp.Diff(test.want, w.needs(t, test.try)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	only := func(action, condition string) string {
		return `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["` + action + `", "iam:TagRole"], "Resource": "*", "Condition": ` + condition + `}]}`
	}
	for _, test := range []struct {
		name, policy string
		try          func(context.Context) error
		want         string
	}{
		{"command on what is ours", only("ssm:SendCommand", `{"StringEqualsIfExists": {"ssm:resourceTag/gild": "1"}}`), func(ctx context.Context) error {
			_, err := c.ssm.SendCommand(ctx, &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{*i.InstanceId}, Parameters: commands("true")})
			return err
		}, "InvalidInstanceId"},
		{"command on another's", only("ssm:SendCommand", `{"StringEqualsIfExists": {"ssm:resourceTag/gild": "2"}}`), func(ctx context.Context) error {
			_, err := c.ssm.SendCommand(ctx, &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{*i.InstanceId}, Parameters: commands("true")})
			return err
		}, "AccessDeniedException"},
		{"key for what is ours", only("ec2-instance-connect:*", `{"StringEquals": {"ec2:ResourceTag/gild": "1", "ec2:osuser": "admin"}}`), func(ctx context.Context) error {
			_, err := c.connect.SendSSHPublicKey(ctx, &ec2instanceconnect.SendSSHPublicKeyInput{InstanceId: i.InstanceId, InstanceOSUser: aws.String("admin"), SSHPublicKey: aws.String(string(importedKey(t)))})
			return err
		}, ""},
		{"one policy", only("iam:AttachRolePolicy", `{"ArnEquals": {"iam:PolicyARN": "`+agentPolicy+`"}}`), func(ctx context.Context) error {
			_, err := c.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("p"), PolicyArn: aws.String(agentPolicy)})
			return err
		}, ""},
		{"another policy", only("iam:AttachRolePolicy", `{"ArnEquals": {"iam:PolicyARN": "`+agentPolicy+`"}}`), func(ctx context.Context) error {
			_, err := c.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("p"), PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")})
			return err
		}, "AccessDenied"},
		{"tagged as it must be", only("iam:CreateRole", `{"StringEquals": {"aws:RequestTag/a": "b"}}`), func(ctx context.Context) error {
			_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("n"), AssumeRolePolicyDocument: aws.String(trustEC2), Tags: iamTags})
			return err
		}, ""},
		{"not tagged", only("iam:CreateRole", `{"StringEquals": {"aws:RequestTag/a": "b"}}`), func(ctx context.Context) error {
			_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("m"), AssumeRolePolicyDocument: aws.String(trustEC2)})
			return err
		}, "AccessDenied"},
	} {
		must(t, w.SetPolicy(sandbox.DefaultKey, test.policy))
		if err := test.try(t.Context()); code(err) != test.want {
			t.Errorf("%s: %q, want %q (%v)", test.name, code(err), test.want, err)
		}
	}
}
