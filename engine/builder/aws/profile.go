package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/gildhq/gild/engine/builder/aws/client"
)

const (
	// profilePath keeps what gild makes in IAM apart, so that a policy can allow only that.
	profilePath = "/gild/"
	agentPolicy = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
	trustEC2    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
)

// managedPolicy is the policy that lets an instance's agent talk to SSM, and nothing more.
func managedPolicy(region string) string {
	switch {
	case strings.HasPrefix(region, "us-gov-"):
		return strings.Replace(agentPolicy, "arn:aws:", "arn:aws-us-gov:", 1)
	case strings.HasPrefix(region, "cn-"):
		return strings.Replace(agentPolicy, "arn:aws:", "arn:aws-cn:", 1)
	}
	return agentPolicy
}

func profileName(token string) string { return "gild-" + token }

// makeProfile makes a role that only the SSM agent has use for, and a profile with it. Each
// call is one that may be repeated.
func (o *order) makeProfile(ctx context.Context) (name string, err error) {
	name = profileName(o.token)
	var tags []iamtypes.Tag
	for _, t := range o.tags() {
		tags = append(tags, iamtypes.Tag{Key: t.Key, Value: t.Value})
	}
	c := o.region.IAM
	// What was just made isn't known everywhere.
	ctx = client.Tolerate(ctx, client.Passing{Code: "NoSuchEntity"})
	_, err = client.Call(ctx, c.CreateRole, &iam.CreateRoleInput{
		RoleName: aws.String(name), Path: aws.String(profilePath), AssumeRolePolicyDocument: aws.String(trustEC2),
		Description: aws.String("lets the SSM agent of one instance of gild register; removed with it"), Tags: tags,
	})
	if err == nil || isThere(err) {
		_, err = client.Call(ctx, c.AttachRolePolicy, &iam.AttachRolePolicyInput{RoleName: aws.String(name), PolicyArn: aws.String(managedPolicy(o.region.Name))})
	}
	if err == nil {
		_, err = client.Call(ctx, c.CreateInstanceProfile, &iam.CreateInstanceProfileInput{InstanceProfileName: aws.String(name), Path: aws.String(profilePath), Tags: tags})
	}
	if err == nil || isThere(err) {
		_, err = client.Call(ctx, c.AddRoleToInstanceProfile, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: aws.String(name), RoleName: aws.String(name)})
	}
	// A profile holds one role: a call that is repeated meets the first.
	if err != nil && !client.HasCode(err, "LimitExceeded") {
		return "", fmt.Errorf("make the instance profile %s for SSM: %w", name, err)
	}
	return name, nil
}

func isThere(err error) bool { return client.HasCode(err, "EntityAlreadyExists") }

func isGone(err error) bool { return client.HasCode(err, "NoSuchEntity") }

// removeProfile removes the profile and the role of a claim, which share a name. What isn't
// there is no error. All is tried, whatever fails.
func (r *region) removeProfile(ctx context.Context, name string) error {
	var errs []error
	drop := func(what string, err error) {
		if err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	n := aws.String(name)
	_, err := client.Call(ctx, r.IAM.RemoveRoleFromInstanceProfile, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: n, RoleName: n})
	drop("take the role from the profile", err)
	_, err = client.Call(ctx, r.IAM.DeleteInstanceProfile, &iam.DeleteInstanceProfileInput{InstanceProfileName: n})
	drop("remove the profile", err)
	_, err = client.Call(ctx, r.IAM.DetachRolePolicy, &iam.DetachRolePolicyInput{RoleName: n, PolicyArn: aws.String(managedPolicy(r.Name))})
	drop("detach its policy", err)
	_, err = client.Call(ctx, r.IAM.DeleteRole, &iam.DeleteRoleInput{RoleName: n})
	drop("remove the role", err)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the instance profile %s: %w", name, err)
	}
	return nil
}
