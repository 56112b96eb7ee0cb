package main

import "strings"

// wanted lists the operations that are kept, by service.
func wanted() map[string][]string {
	return map[string][]string{
		"ec2": strings.Fields(`
			DescribeRegions DescribeAvailabilityZones DescribeInstanceTypes DescribeInstanceTypeOfferings
			DescribeImages DescribeImageAttribute ModifyImageAttribute ResetImageAttribute CreateImage RegisterImage
			CopyImage DeregisterImage EnableImageDeprecation DisableImageDeprecation EnableImage DisableImage
			EnableImageDeregistrationProtection DisableImageDeregistrationProtection GetImageBlockPublicAccessState
			RunInstances DescribeInstances DescribeInstanceStatus DescribeInstanceAttribute StartInstances
			StopInstances RebootInstances TerminateInstances GetConsoleOutput ModifyInstanceMetadataOptions
			ModifyInstanceAttribute
			CreateVolume DescribeVolumes AttachVolume DetachVolume DeleteVolume
			CreateSnapshot CreateSnapshots DescribeSnapshots DescribeSnapshotAttribute ModifySnapshotAttribute
			CopySnapshot DeleteSnapshot
			CreateKeyPair ImportKeyPair DescribeKeyPairs DeleteKeyPair
			CreateSecurityGroup DescribeSecurityGroups DescribeSecurityGroupRules AuthorizeSecurityGroupIngress
			RevokeSecurityGroupIngress AuthorizeSecurityGroupEgress RevokeSecurityGroupEgress DeleteSecurityGroup
			DescribeVpcs DescribeSubnets DescribeRouteTables DescribeInternetGateways DescribeVpcEndpoints
			DescribeNetworkInterfaces
			CreateTags DeleteTags DescribeTags
			DescribeAccountAttributes DescribeSpotInstanceRequests CancelSpotInstanceRequests DescribeSpotPriceHistory
			GetEbsEncryptionByDefault GetEbsDefaultKmsKeyId
			AssociateIamInstanceProfile DescribeIamInstanceProfileAssociations
			DescribeLaunchTemplates DescribeLaunchTemplateVersions`),
		"ssm": strings.Fields(`
			SendCommand GetCommandInvocation ListCommandInvocations CancelCommand DescribeInstanceInformation
			GetParameter GetParameters GetParametersByPath PutParameter DeleteParameter GetParameterHistory
			LabelParameterVersion AddTagsToResource`),
		"ebs": strings.Fields(`
			StartSnapshot PutSnapshotBlock CompleteSnapshot GetSnapshotBlock ListSnapshotBlocks ListChangedBlocks`),
		"sts": strings.Fields(`GetCallerIdentity AssumeRole DecodeAuthorizationMessage`),
		"iam": strings.Fields(`
			CreateRole GetRole DeleteRole ListRoles TagRole ListRoleTags
			AttachRolePolicy DetachRolePolicy ListAttachedRolePolicies PutRolePolicy DeleteRolePolicy ListRolePolicies
			CreateInstanceProfile GetInstanceProfile DeleteInstanceProfile ListInstanceProfiles
			AddRoleToInstanceProfile RemoveRoleFromInstanceProfile ListInstanceProfilesForRole
			TagInstanceProfile ListInstanceProfileTags SimulatePrincipalPolicy`),
		"kms":                  strings.Fields(`DescribeKey ListAliases CreateKey CreateAlias CreateGrant`),
		"ec2-instance-connect": strings.Fields(`SendSSHPublicKey`),
	}
}
