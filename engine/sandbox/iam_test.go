package sandbox_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// TestIAMOrder takes a profile apart in every wrong order, and then in the right one.
func TestIAMOrder(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	name := aws.String("Builder")
	makeProfile(t, c, *name, agentPolicy)
	_, err := c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: aws.String("own"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`)})
	must(t, err)

	_, err = c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("builder"), AssumeRolePolicyDocument: aws.String(trustEC2)})
	wantCode(t, "EntityAlreadyExists", err)
	_, err = c.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name})
	wantCode(t, "EntityAlreadyExists", err)
	_, err = c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name})
	wantCode(t, "LimitExceeded", err)
	_, err = c.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: aws.String("arn:aws:iam::aws:policy/NoSuch")})
	wantCode(t, "NoSuchEntity", err)

	deleteRole := func() error {
		_, err := c.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
		return err
	}
	deleteProfile := func() error {
		_, err := c.iam.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: name})
		return err
	}
	wantCode(t, "DeleteConflict", deleteRole())
	wantCode(t, "DeleteConflict", deleteProfile())
	_, err = c.iam.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: name, RoleName: name})
	must(t, err)
	wantCode(t, "DeleteConflict", deleteRole())
	_, err = c.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: aws.String(agentPolicy)})
	must(t, err)
	wantCode(t, "DeleteConflict", deleteRole())
	_, err = c.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.String("own")})
	must(t, err)
	must(t, deleteRole())
	must(t, deleteProfile())
	wantCode(t, "NoSuchEntity", deleteRole())
	wantCode(t, "NoSuchEntity", deleteProfile())
	_, err = c.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: aws.String(agentPolicy)})
	wantCode(t, "NoSuchEntity", err)
}

func TestIAMRole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, sandbox.Config{Dir: dir})
	c := w.cloud(t)
	ctx := t.Context()
	made, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: aws.String("r1"), Path: aws.String("/gild/"), AssumeRolePolicyDocument: aws.String(trustEC2), Description: aws.String("d"),
		Tags: []iamtypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}},
	})
	must(t, err)
	if got, want := *made.Role.Arn, "arn:aws:iam::111122223333:role/gild/r1"; got != want {
		t.Errorf("the role's ARN is %s, want %s", got, want)
	}
	_, err = c.iam.TagRole(ctx, &iam.TagRoleInput{RoleName: aws.String("r1"), Tags: []iamtypes.Tag{{Key: aws.String("l"), Value: aws.String("w")}}})
	must(t, err)
	for _, n := range []string{"r3", "r2"} {
		_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &n, AssumeRolePolicyDocument: aws.String(trustEC2)})
		must(t, err)
	}
	got, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("R1")})
	must(t, err)
	if trust, err := url.PathUnescape(*got.Role.AssumeRolePolicyDocument); err != nil || trust != trustEC2 {
		t.Errorf("the trust policy is %q (%v)", trust, err)
	}
	tags, err := c.iam.ListRoleTags(ctx, &iam.ListRoleTagsInput{RoleName: aws.String("r1")})
	must(t, err)
	if len(tags.Tags) != 2 || *tags.Tags[1].Value != "w" {
		t.Errorf("the tags are %+v", tags.Tags)
	}
	var names []string
	for pages := iam.NewListRolesPaginator(c.iam, &iam.ListRolesInput{MaxItems: aws.Int32(2)}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		must(t, err)
		for _, r := range page.Roles {
			names = append(names, *r.RoleName)
		}
	}
	if diff := cmp.Diff([]string{"r1", "r2", "r3"}, names); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"x", `{"Statement":[]}`, `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`} {
		_, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("bad"), AssumeRolePolicyDocument: &bad})
		wantCode(t, "MalformedPolicyDocument", err)
	}
}

// TestRoleBounds shows that whoever assumes a role can do what its policies allow, and no more.
func TestRoleBounds(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	trust := `{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"secret"}}}}`
	role, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("reader"), AssumeRolePolicyDocument: &trust})
	must(t, err)
	_, err = c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("reader"), PolicyName: aws.String("p"), PolicyDocument: aws.String(
		`{"Statement":[{"Effect":"Allow","Action":["ec2:Describe*","iam:Simulate*"],"Resource":"*"},{"Effect":"Deny","Action":"ec2:DescribeTags","Resource":"*"}]}`)})
	must(t, err)

	assume := func(external string) (*sts.AssumeRoleOutput, error) {
		return c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: aws.String("s1"), ExternalId: &external})
	}
	_, err = assume("guess")
	wantCode(t, "AccessDenied", err)
	_, err = c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::111122223333:role/nobody"), RoleSessionName: aws.String("s1")})
	wantCode(t, "AccessDenied", err)
	session, err := assume("secret")
	must(t, err)
	k := session.Credentials
	r := clouds(t, w.URL, sandbox.DefaultRegion, *k.AccessKeyId, *k.SecretAccessKey, *k.SessionToken)
	who, err := r.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if want := "arn:aws:sts::111122223333:assumed-role/reader/s1"; *who.Arn != want || *who.UserId != *role.Role.RoleId+":s1" {
		t.Errorf("the caller is %s (%s), want %s", *who.Arn, *who.UserId, want)
	}
	_, err = r.ec2.DescribeRegions(ctx, &ec2.DescribeRegionsInput{})
	must(t, err)
	_, err = r.ec2.DescribeTags(ctx, &ec2.DescribeTagsInput{})
	wantCode(t, "UnauthorizedOperation", err)
	_, err = r.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("g"), Description: aws.String("g")})
	wantCode(t, "UnauthorizedOperation", err)
	_, message, found := strings.Cut(err.Error(), "Encoded authorization failure message: ")
	if !found {
		t.Fatalf("the refusal has no encoded message: %v", err)
	}
	decoded, err := c.sts.DecodeAuthorizationMessage(ctx, &sts.DecodeAuthorizationMessageInput{EncodedMessage: &message})
	must(t, err)
	if !strings.Contains(*decoded.DecodedMessage, `"action":"ec2:CreateSecurityGroup"`) {
		t.Errorf("the decoded message is %s", *decoded.DecodedMessage)
	}
	_, err = r.sts.DecodeAuthorizationMessage(ctx, &sts.DecodeAuthorizationMessageInput{EncodedMessage: &message})
	wantCode(t, "AccessDenied", err)
	_, err = c.sts.DecodeAuthorizationMessage(ctx, &sts.DecodeAuthorizationMessageInput{EncodedMessage: aws.String("x")})
	wantCode(t, "InvalidAuthorizationMessageException", err)

	for _, source := range []struct {
		c   cloud
		arn *string
	}{{r, role.Role.Arn}, {c, role.Role.Arn}, {r, who.Arn}} {
		got, err := source.c.iam.SimulatePrincipalPolicy(ctx, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: source.arn,
			ActionNames: []string{"ec2:DescribeImages", "ec2:DescribeTags", "ec2:RunInstances"}})
		must(t, err)
		var said []string
		for _, e := range got.EvaluationResults {
			said = append(said, *e.EvalActionName+" "+string(e.EvalDecision))
		}
		want := []string{"ec2:DescribeImages allowed", "ec2:DescribeTags explicitDeny", "ec2:RunInstances implicitDeny"}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("simulated (-want +got):\n%s", diff)
		}
	}
	_, err = c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: aws.String("s1"), ExternalId: aws.String("secret"), DurationSeconds: aws.Int32(7200)})
	wantCode(t, "ValidationError", err)
}

// TestPassRole shows that a role can only be given to an instance by who may pass it.
func TestPassRole(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	image := w.seed(t, "base")
	makeProfile(t, c, "p")
	launch := func() error {
		_, err := c.ec2.RunInstances(t.Context(), runInput(image, func(in *ec2.RunInstancesInput) {
			in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String("p")}
		}))
		return err
	}
	must(t, w.SetPolicy(sandbox.DefaultKey, `{"Statement":{"Effect":"Allow","Action":"ec2:*","Resource":"*"}}`))
	wantCode(t, "UnauthorizedOperation", launch())
	must(t, w.SetPolicy(sandbox.DefaultKey, `{"Statement":[{"Effect":"Allow","Action":"ec2:*","Resource":"*"},
		{"Effect":"Allow","Action":"iam:PassRole","Resource":"arn:aws:iam::111122223333:role/p"}]}`))
	must(t, launch())
}
