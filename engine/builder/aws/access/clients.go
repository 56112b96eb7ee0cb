package access

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/spec"
)

// EC2 is what a check asks EC2.
type EC2 interface {
	DescribeInstanceTypeOfferings(context.Context, *ec2.DescribeInstanceTypeOfferingsInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error)
	DescribeInstanceTypes(context.Context, *ec2.DescribeInstanceTypesInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error)
	DescribeRegions(context.Context, *ec2.DescribeRegionsInput, ...func(*ec2.Options)) (*ec2.DescribeRegionsOutput, error)
	DescribeSecurityGroups(context.Context, *ec2.DescribeSecurityGroupsInput, ...func(*ec2.Options)) (*ec2.DescribeSecurityGroupsOutput, error)
	DescribeSubnets(context.Context, *ec2.DescribeSubnetsInput, ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error)
	DescribeVpcs(context.Context, *ec2.DescribeVpcsInput, ...func(*ec2.Options)) (*ec2.DescribeVpcsOutput, error)

	// These are only called with DryRun.
	CreateSecurityGroup(context.Context, *ec2.CreateSecurityGroupInput, ...func(*ec2.Options)) (*ec2.CreateSecurityGroupOutput, error)
	ImportKeyPair(context.Context, *ec2.ImportKeyPairInput, ...func(*ec2.Options)) (*ec2.ImportKeyPairOutput, error)
	RunInstances(context.Context, *ec2.RunInstancesInput, ...func(*ec2.Options)) (*ec2.RunInstancesOutput, error)
}

// IAM is what a check asks IAM.
type IAM interface {
	GetInstanceProfile(context.Context, *iam.GetInstanceProfileInput, ...func(*iam.Options)) (*iam.GetInstanceProfileOutput, error)
	GetRole(context.Context, *iam.GetRoleInput, ...func(*iam.Options)) (*iam.GetRoleOutput, error)
	SimulatePrincipalPolicy(context.Context, *iam.SimulatePrincipalPolicyInput, ...func(*iam.Options)) (*iam.SimulatePrincipalPolicyOutput, error)
}

// KMS is what a check asks KMS.
type KMS interface {
	DescribeKey(context.Context, *kms.DescribeKeyInput, ...func(*kms.Options)) (*kms.DescribeKeyOutput, error)
}

// STS is what a check asks STS.
type STS interface {
	GetCallerIdentity(context.Context, *sts.GetCallerIdentityInput, ...func(*sts.Options)) (*sts.GetCallerIdentityOutput, error)
}

// Clients of one region.
type Clients struct {
	EC2 EC2
	IAM IAM
	KMS KMS
	STS STS
}

// Cloud is the account that a check looks at.
type Cloud struct {
	// Region returns the clients of a region. It makes no call.
	Region func(ctx context.Context, name string) (Clients, error)
	// Base resolves the pipeline's base to an AMI that can be used, as a build would. Nil
	// leaves the base out, and with it a part of the permissions where these can't be simulated.
	Base func(ctx context.Context, p *spec.Pipeline) (builder.Base, error)
}

// Regions returns the clients of c by region, for a [Cloud].
func Regions(c *client.Clients) func(ctx context.Context, name string) (Clients, error) {
	return func(ctx context.Context, name string) (Clients, error) {
		r, err := c.Region(ctx, name)
		if err != nil {
			return Clients{}, err
		}
		return Clients{EC2: ec2Calls{r.EC2}, IAM: iamCalls{r.IAM}, KMS: r.KMS, STS: r.STS}, nil
	}
}

// ec2Calls are the EC2 of a [client.Region].
type ec2Calls struct{ calls client.EC2 }

func (c ec2Calls) DescribeInstanceTypeOfferings(ctx context.Context, in *ec2.DescribeInstanceTypeOfferingsInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypeOfferingsOutput, error) {
	return c.calls.DescribeInstanceTypeOfferings(ctx, in, o...)
}

func (c ec2Calls) DescribeInstanceTypes(ctx context.Context, in *ec2.DescribeInstanceTypesInput, o ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error) {
	return c.calls.DescribeInstanceTypes(ctx, in, o...)
}

func (c ec2Calls) DescribeRegions(ctx context.Context, in *ec2.DescribeRegionsInput, o ...func(*ec2.Options)) (*ec2.DescribeRegionsOutput, error) {
	return c.calls.DescribeRegions(ctx, in, o...)
}

func (c ec2Calls) DescribeSecurityGroups(ctx context.Context, in *ec2.DescribeSecurityGroupsInput, o ...func(*ec2.Options)) (*ec2.DescribeSecurityGroupsOutput, error) {
	return c.calls.DescribeSecurityGroups(ctx, in, o...)
}

func (c ec2Calls) DescribeSubnets(ctx context.Context, in *ec2.DescribeSubnetsInput, o ...func(*ec2.Options)) (*ec2.DescribeSubnetsOutput, error) {
	return c.calls.DescribeSubnets(ctx, in, o...)
}

func (c ec2Calls) DescribeVpcs(ctx context.Context, in *ec2.DescribeVpcsInput, o ...func(*ec2.Options)) (*ec2.DescribeVpcsOutput, error) {
	return c.calls.DescribeVpcs(ctx, in, o...)
}

func (c ec2Calls) CreateSecurityGroup(ctx context.Context, in *ec2.CreateSecurityGroupInput, o ...func(*ec2.Options)) (*ec2.CreateSecurityGroupOutput, error) {
	return c.calls.CreateSecurityGroup(ctx, in, o...)
}

func (c ec2Calls) ImportKeyPair(ctx context.Context, in *ec2.ImportKeyPairInput, o ...func(*ec2.Options)) (*ec2.ImportKeyPairOutput, error) {
	return c.calls.ImportKeyPair(ctx, in, o...)
}

func (c ec2Calls) RunInstances(ctx context.Context, in *ec2.RunInstancesInput, o ...func(*ec2.Options)) (*ec2.RunInstancesOutput, error) {
	return c.calls.RunInstances(ctx, in, o...)
}

// iamCalls are the IAM of a [client.Region].
type iamCalls struct{ calls client.IAM }

func (c iamCalls) GetInstanceProfile(ctx context.Context, in *iam.GetInstanceProfileInput, o ...func(*iam.Options)) (*iam.GetInstanceProfileOutput, error) {
	return c.calls.GetInstanceProfile(ctx, in, o...)
}

func (c iamCalls) GetRole(ctx context.Context, in *iam.GetRoleInput, o ...func(*iam.Options)) (*iam.GetRoleOutput, error) {
	return c.calls.GetRole(ctx, in, o...)
}

func (c iamCalls) SimulatePrincipalPolicy(ctx context.Context, in *iam.SimulatePrincipalPolicyInput, o ...func(*iam.Options)) (*iam.SimulatePrincipalPolicyOutput, error) {
	return c.calls.SimulatePrincipalPolicy(ctx, in, o...)
}
