package client

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// The SDK's clients of EC2 and IAM have a method for each of hundreds of operations. The
// linker drops those that nobody calls, but only while the client is part of no value that
// may end up in an interface: the program has reflection in it (templates, expressions), and
// could look any of them up by name. As functions, the others don't come along, which makes
// the program 33 MB smaller.

// ec2Call and iamCall are operations as the SDK has them.
type (
	ec2Call[I, O any] = func(context.Context, *I, ...func(*ec2.Options)) (*O, error)
	iamCall[I, O any] = func(context.Context, *I, ...func(*iam.Options)) (*O, error)
)

// EC2 are the operations of EC2 that gild uses.
type EC2 struct {
	AuthorizeSecurityGroupIngress ec2Call[ec2.AuthorizeSecurityGroupIngressInput, ec2.AuthorizeSecurityGroupIngressOutput]
	CancelSpotInstanceRequests    ec2Call[ec2.CancelSpotInstanceRequestsInput, ec2.CancelSpotInstanceRequestsOutput]
	CopyImage                     ec2Call[ec2.CopyImageInput, ec2.CopyImageOutput]
	CreateImage                   ec2Call[ec2.CreateImageInput, ec2.CreateImageOutput]
	CreateSecurityGroup           ec2Call[ec2.CreateSecurityGroupInput, ec2.CreateSecurityGroupOutput]
	CreateTags                    ec2Call[ec2.CreateTagsInput, ec2.CreateTagsOutput]
	DeleteKeyPair                 ec2Call[ec2.DeleteKeyPairInput, ec2.DeleteKeyPairOutput]
	DeleteSecurityGroup           ec2Call[ec2.DeleteSecurityGroupInput, ec2.DeleteSecurityGroupOutput]
	DeleteSnapshot                ec2Call[ec2.DeleteSnapshotInput, ec2.DeleteSnapshotOutput]
	DeleteTags                    ec2Call[ec2.DeleteTagsInput, ec2.DeleteTagsOutput]
	DeleteVolume                  ec2Call[ec2.DeleteVolumeInput, ec2.DeleteVolumeOutput]
	DeregisterImage               ec2Call[ec2.DeregisterImageInput, ec2.DeregisterImageOutput]
	DescribeImages                ec2Call[ec2.DescribeImagesInput, ec2.DescribeImagesOutput]
	DescribeInstanceTypeOfferings ec2Call[ec2.DescribeInstanceTypeOfferingsInput, ec2.DescribeInstanceTypeOfferingsOutput]
	DescribeInstanceTypes         ec2Call[ec2.DescribeInstanceTypesInput, ec2.DescribeInstanceTypesOutput]
	DescribeInstances             ec2Call[ec2.DescribeInstancesInput, ec2.DescribeInstancesOutput]
	DescribeKeyPairs              ec2Call[ec2.DescribeKeyPairsInput, ec2.DescribeKeyPairsOutput]
	DescribeRegions               ec2Call[ec2.DescribeRegionsInput, ec2.DescribeRegionsOutput]
	DescribeSecurityGroups        ec2Call[ec2.DescribeSecurityGroupsInput, ec2.DescribeSecurityGroupsOutput]
	DescribeSnapshots             ec2Call[ec2.DescribeSnapshotsInput, ec2.DescribeSnapshotsOutput]
	DescribeSpotInstanceRequests  ec2Call[ec2.DescribeSpotInstanceRequestsInput, ec2.DescribeSpotInstanceRequestsOutput]
	DescribeSubnets               ec2Call[ec2.DescribeSubnetsInput, ec2.DescribeSubnetsOutput]
	DescribeVolumes               ec2Call[ec2.DescribeVolumesInput, ec2.DescribeVolumesOutput]
	DescribeVpcs                  ec2Call[ec2.DescribeVpcsInput, ec2.DescribeVpcsOutput]
	EnableImageDeprecation        ec2Call[ec2.EnableImageDeprecationInput, ec2.EnableImageDeprecationOutput]
	GetConsoleOutput              ec2Call[ec2.GetConsoleOutputInput, ec2.GetConsoleOutputOutput]
	ImportKeyPair                 ec2Call[ec2.ImportKeyPairInput, ec2.ImportKeyPairOutput]
	ModifyImageAttribute          ec2Call[ec2.ModifyImageAttributeInput, ec2.ModifyImageAttributeOutput]
	ModifyInstanceAttribute       ec2Call[ec2.ModifyInstanceAttributeInput, ec2.ModifyInstanceAttributeOutput]
	RebootInstances               ec2Call[ec2.RebootInstancesInput, ec2.RebootInstancesOutput]
	RegisterImage                 ec2Call[ec2.RegisterImageInput, ec2.RegisterImageOutput]
	RunInstances                  ec2Call[ec2.RunInstancesInput, ec2.RunInstancesOutput]
	StopInstances                 ec2Call[ec2.StopInstancesInput, ec2.StopInstancesOutput]
	TerminateInstances            ec2Call[ec2.TerminateInstancesInput, ec2.TerminateInstancesOutput]
}

func newEC2(c *ec2.Client) EC2 {
	return EC2{
		AuthorizeSecurityGroupIngress: c.AuthorizeSecurityGroupIngress,
		CancelSpotInstanceRequests:    c.CancelSpotInstanceRequests,
		CopyImage:                     c.CopyImage,
		CreateImage:                   c.CreateImage,
		CreateSecurityGroup:           c.CreateSecurityGroup,
		CreateTags:                    c.CreateTags,
		DeleteKeyPair:                 c.DeleteKeyPair,
		DeleteSecurityGroup:           c.DeleteSecurityGroup,
		DeleteSnapshot:                c.DeleteSnapshot,
		DeleteTags:                    c.DeleteTags,
		DeleteVolume:                  c.DeleteVolume,
		DeregisterImage:               c.DeregisterImage,
		DescribeImages:                c.DescribeImages,
		DescribeInstanceTypeOfferings: c.DescribeInstanceTypeOfferings,
		DescribeInstanceTypes:         c.DescribeInstanceTypes,
		DescribeInstances:             c.DescribeInstances,
		DescribeKeyPairs:              c.DescribeKeyPairs,
		DescribeRegions:               c.DescribeRegions,
		DescribeSecurityGroups:        c.DescribeSecurityGroups,
		DescribeSnapshots:             c.DescribeSnapshots,
		DescribeSpotInstanceRequests:  c.DescribeSpotInstanceRequests,
		DescribeSubnets:               c.DescribeSubnets,
		DescribeVolumes:               c.DescribeVolumes,
		DescribeVpcs:                  c.DescribeVpcs,
		EnableImageDeprecation:        c.EnableImageDeprecation,
		GetConsoleOutput:              c.GetConsoleOutput,
		ImportKeyPair:                 c.ImportKeyPair,
		ModifyImageAttribute:          c.ModifyImageAttribute,
		ModifyInstanceAttribute:       c.ModifyInstanceAttribute,
		RebootInstances:               c.RebootInstances,
		RegisterImage:                 c.RegisterImage,
		RunInstances:                  c.RunInstances,
		StopInstances:                 c.StopInstances,
		TerminateInstances:            c.TerminateInstances,
	}
}

// IAM are the operations of IAM that gild uses.
type IAM struct {
	AddRoleToInstanceProfile      iamCall[iam.AddRoleToInstanceProfileInput, iam.AddRoleToInstanceProfileOutput]
	AttachRolePolicy              iamCall[iam.AttachRolePolicyInput, iam.AttachRolePolicyOutput]
	CreateInstanceProfile         iamCall[iam.CreateInstanceProfileInput, iam.CreateInstanceProfileOutput]
	CreateRole                    iamCall[iam.CreateRoleInput, iam.CreateRoleOutput]
	DeleteInstanceProfile         iamCall[iam.DeleteInstanceProfileInput, iam.DeleteInstanceProfileOutput]
	DeleteRole                    iamCall[iam.DeleteRoleInput, iam.DeleteRoleOutput]
	DetachRolePolicy              iamCall[iam.DetachRolePolicyInput, iam.DetachRolePolicyOutput]
	GetInstanceProfile            iamCall[iam.GetInstanceProfileInput, iam.GetInstanceProfileOutput]
	GetRole                       iamCall[iam.GetRoleInput, iam.GetRoleOutput]
	ListInstanceProfileTags       iamCall[iam.ListInstanceProfileTagsInput, iam.ListInstanceProfileTagsOutput]
	ListInstanceProfiles          iamCall[iam.ListInstanceProfilesInput, iam.ListInstanceProfilesOutput]
	ListRoleTags                  iamCall[iam.ListRoleTagsInput, iam.ListRoleTagsOutput]
	ListRoles                     iamCall[iam.ListRolesInput, iam.ListRolesOutput]
	RemoveRoleFromInstanceProfile iamCall[iam.RemoveRoleFromInstanceProfileInput, iam.RemoveRoleFromInstanceProfileOutput]
	SimulatePrincipalPolicy       iamCall[iam.SimulatePrincipalPolicyInput, iam.SimulatePrincipalPolicyOutput]
}

func newIAM(c *iam.Client) IAM {
	return IAM{
		AddRoleToInstanceProfile:      c.AddRoleToInstanceProfile,
		AttachRolePolicy:              c.AttachRolePolicy,
		CreateInstanceProfile:         c.CreateInstanceProfile,
		CreateRole:                    c.CreateRole,
		DeleteInstanceProfile:         c.DeleteInstanceProfile,
		DeleteRole:                    c.DeleteRole,
		DetachRolePolicy:              c.DetachRolePolicy,
		GetInstanceProfile:            c.GetInstanceProfile,
		GetRole:                       c.GetRole,
		ListInstanceProfileTags:       c.ListInstanceProfileTags,
		ListInstanceProfiles:          c.ListInstanceProfiles,
		ListRoleTags:                  c.ListRoleTags,
		ListRoles:                     c.ListRoles,
		RemoveRoleFromInstanceProfile: c.RemoveRoleFromInstanceProfile,
		SimulatePrincipalPolicy:       c.SimulatePrincipalPolicy,
	}
}
