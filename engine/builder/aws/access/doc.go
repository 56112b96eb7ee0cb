// Package access tells what a pipeline needs of an AWS account: which permissions, as the
// least IAM policy, and whether they and everything else that the file names are there.
//
// In goes a resolved pipeline. [Policy] makes a policy document of it without asking anybody;
// [Check] asks AWS through small interfaces and returns findings, each with its place in the
// file and, where a permission is missing, with the statement that gives it. One table (see
// [Needs]) says which feature of a file needs which action. The package changes nothing on
// AWS: calls that would are only made with DryRun.
//
// # How narrow the policy is
//
// A statement names the region, the type of resource and, where the file gives one, its id.
// What makes something demands that it be tagged with a run and with the pipeline's name;
// what changes or removes something demands that it be of this pipeline by its tag. So the
// credentials of one pipeline can't touch an instance or image of another, nor anything that
// gild didn't make, and gild gc with them can't either: it lists what it had to leave.
// Instances can be started only from images of the base's owner and our own, only of the
// types in the file, and only with IMDSv2. Tags can be set on new things, and on this
// pipeline's images and snapshots. A role can be given only AmazonSSMManagedInstanceCore, and
// only to EC2. Keys can be used only by EC2, in the regions where the file names them.
//
// Some things can't be narrowed: EC2's Describe calls, and following an SSM command, are
// authorized on "*" only; listing roles and profiles likewise. A policy knows a key by its
// alias only through the condition kms:ResourceAliases. And for a given instance profile a
// file doesn't name the role, so the policy takes it to have the profile's name, which the
// console gives it; Check says when that is wrong, and [Known] makes it right.
//
// sts:GetCallerIdentity needs no permission. sts:DecodeAuthorizationMessage,
// iam:SimulatePrincipalPolicy and iam:GetRole only make messages better; the policy leaves
// them out.
//
// # Where the facts come from
//
// Actions, the resource types and condition keys that each supports, and the forms of ARNs
// are those of AWS's Service Authorization Reference, as of September 2026, for Amazon EC2,
// AWS Systems Manager, IAM, KMS and EC2 Instance Connect; the tests hold every statement
// against that part of it which is repeated in facts.go, and the names of actions against the
// operations of the SDK. That CreateTags is authorized with ec2:CreateAction for tags given
// at creation, that EC2 uses a key through CreateGrant, Decrypt,
// GenerateDataKeyWithoutPlaintext and ReEncrypt, and that ARNs of images and snapshots have no
// account, is from the user guides of EC2, EBS and KMS. IAM's limits are from its own.
package access
