package access

import (
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// row says which actions one feature of a pipeline needs, and in which statement they are.
type row struct {
	// feature is what of the file asks for it, in the file's words.
	feature string
	sid     string
	actions []string
	// implied actions are authorized by AWS in the course of other calls; nobody calls them.
	implied bool
	// when is when they are called, if not in every build.
	when string
	// on tells whether the pipelines have the feature; nil means that all have.
	on func(*want) bool
	// at is the feature's place in the file; nil means that of builders.aws.
	at func(*spec.Pipeline) diag.Pos
}

// The features of a pipeline.
const (
	everyBuild = "every build"
	theBase    = "base"
	theGroup   = "builders.aws.instance without security-groups"
	theProfile = "builders.aws.instance.profile"
	madeRole   = "builders.aws.connect: ssm without instance.profile"
	overSSM    = "builders.aws.connect: ssm"
	overSSH    = "builders.aws.connect: ssh"
	opensPort  = "builders.aws.connect: ssh or instance-connect, without security-groups"
	overEIC    = "builders.aws.connect: instance-connect"
	onSpot     = "builders.aws.instance.spot"
	withKeys   = "kms-key"
	withIMDS   = "builders.aws.image.imds"
	withENA    = "builders.aws.image.ena"
	asked      = "builders.aws.image.boot-mode or tpm"
	deprecates = "publish.deprecate-after"
	copies     = "copy.regions"
	collects   = "gild gc"
	looks      = "gild doctor and gild validate --online"
)

// table is the one place that says which feature needs which action.
func table() []row {
	run := []string{"ec2:RunInstances"}
	useKey := []string{
		"kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo",
	}
	return []row{
		{feature: everyBuild, sid: "Look", actions: []string{
			"ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeSnapshots", "ec2:DescribeSubnets",
		}},
		{feature: everyBuild, sid: "Look", actions: []string{"ec2:DescribeSecurityGroups", "ec2:DescribeVolumes"}, when: "an attempt that failed is cleaned up"},
		{feature: collects, sid: "Look", actions: []string{"ec2:DescribeKeyPairs", "ec2:DescribeSpotInstanceRequests"}, when: "gild gc runs"},
		{feature: looks, sid: "Look", actions: []string{
			"ec2:DescribeInstanceTypeOfferings", "ec2:DescribeInstanceTypes", "ec2:DescribeRegions", "ec2:DescribeVpcs",
		}},

		{feature: theBase, sid: "LaunchFromBase", actions: run, on: (*want).fromOwner, at: basePos},
		{feature: theBase, sid: "LaunchFromAMI", actions: run, on: (*want).fromAMI, at: basePos},
		{feature: everyBuild, sid: "LaunchFromOurs", actions: run},
		{feature: everyBuild, sid: "LaunchInto", actions: run, at: instancePos},
		{feature: everyBuild, sid: "Launch", actions: run, at: typesPos},
		{feature: everyBuild, sid: "LaunchMade", actions: run, at: instancePos},
		{feature: everyBuild, sid: "LaunchWith", actions: run, on: (*want).launchesWith, at: instancePos},
		{feature: everyBuild, sid: "TagNew", actions: []string{"ec2:CreateTags"}, implied: true},

		{feature: everyBuild, sid: "Ours", actions: []string{
			"ec2:CreateImage", "ec2:GetConsoleOutput", "ec2:StopInstances", "ec2:TerminateInstances",
		}},
		{feature: everyBuild, sid: "Ours", actions: []string{"ec2:RebootInstances"}, when: "a step restarts the machine"},
		{feature: collects, sid: "Ours", actions: []string{"ec2:DeleteVolume"}, when: "a volume was left"},
		{feature: withENA, sid: "Ours", actions: []string{"ec2:ModifyInstanceAttribute"}, when: "the base doesn't say that it has ENA", on: (*want).ena},
		{feature: onSpot, sid: "Ours", actions: []string{"ec2:CancelSpotInstanceRequests"}, when: "a request was left", on: (*want).spots, at: instancePos},
		{feature: onSpot, sid: "SpotRole", actions: []string{"iam:CreateServiceLinkedRole"}, implied: true, on: (*want).spots, at: instancePos},

		{feature: everyBuild, sid: "MakeImages", actions: []string{"ec2:CreateImage"}},
		{feature: everyBuild, sid: "MakeImages", actions: []string{"ec2:CopyImage"}, when: "a checkpoint already has the sealed state"},
		{feature: copies, sid: "MakeImages", actions: []string{"ec2:CopyImage"}, on: (*want).copied, at: copyPos},
		{feature: everyBuild, sid: "OurImages", actions: []string{"ec2:CreateTags", "ec2:DeleteTags"}, when: "an image is published"},
		{feature: collects, sid: "OurImages", actions: []string{"ec2:DeleteSnapshot", "ec2:DeregisterImage"}, when: "a checkpoint, candidate or old build goes"},
		{feature: withIMDS, sid: "OurImages", actions: []string{"ec2:ModifyImageAttribute"}, when: "the base doesn't demand it already", on: (*want).imds},
		{feature: asked, sid: "OurImages", actions: []string{"ec2:RegisterImage"}, when: "the base has it otherwise", on: (*want).registers},
		{feature: asked, sid: "RegisterImages", actions: []string{"ec2:RegisterImage"}, when: "the base has it otherwise", on: (*want).registers},
		{feature: deprecates, sid: "OurImages", actions: []string{"ec2:EnableImageDeprecation"}, on: (*want).deprecates, at: publishPos},

		{feature: theGroup, sid: "Make", actions: []string{"ec2:CreateSecurityGroup"}, on: (*want).makesGroup, at: instancePos},
		{feature: theGroup, sid: "MakeGroupIn", actions: []string{"ec2:CreateSecurityGroup"}, on: (*want).makesGroup, at: instancePos},
		{feature: theGroup, sid: "Ours", actions: []string{"ec2:DeleteSecurityGroup"}, on: (*want).makesGroup, at: instancePos},
		{feature: opensPort, sid: "Ours", actions: []string{"ec2:AuthorizeSecurityGroupIngress"}, on: (*want).opensPort, at: connectPos},

		{feature: overSSH, sid: "Make", actions: []string{"ec2:ImportKeyPair"}, on: (*want).overSSH, at: connectPos},
		{feature: overSSH, sid: "Ours", actions: []string{"ec2:DeleteKeyPair"}, on: (*want).overSSH, at: connectPos},
		{feature: overEIC, sid: "PushKey", actions: []string{"ec2-instance-connect:SendSSHPublicKey"}, on: (*want).overEIC, at: connectPos},
		{feature: overSSM, sid: "RunOnOurs", actions: []string{"ssm:SendCommand"}, on: (*want).overSSM, at: connectPos},
		{feature: overSSM, sid: "RunShell", actions: []string{"ssm:SendCommand"}, on: (*want).overSSM, at: connectPos},
		{feature: overSSM, sid: "FollowCommands", actions: []string{
			"ssm:DescribeInstanceInformation", "ssm:GetCommandInvocation",
		}, on: (*want).overSSM, at: connectPos},
		{feature: overSSM, sid: "FollowCommands", actions: []string{"ssm:CancelCommand"}, when: "a command is cut off", on: (*want).overSSM, at: connectPos},
		{feature: theBase, sid: "ReadParameter", actions: []string{"ssm:GetParameter"}, on: (*want).readsParameter, at: basePos},

		{feature: madeRole, sid: "MakeProfile", actions: []string{"iam:CreateInstanceProfile", "iam:CreateRole"}, on: (*want).makesProfile, at: connectPos},
		{feature: madeRole, sid: "MakeProfile", actions: []string{"iam:TagInstanceProfile", "iam:TagRole"}, implied: true, on: (*want).makesProfile, at: connectPos},
		{feature: madeRole, sid: "ArmRole", actions: []string{"iam:AttachRolePolicy", "iam:DetachRolePolicy"}, on: (*want).makesProfile, at: connectPos},
		{feature: madeRole, sid: "OurProfiles", actions: []string{
			"iam:AddRoleToInstanceProfile", "iam:DeleteInstanceProfile", "iam:DeleteRole", "iam:RemoveRoleFromInstanceProfile",
		}, on: (*want).makesProfile, at: connectPos},
		{feature: collects, sid: "OurProfiles", actions: []string{"iam:ListInstanceProfileTags", "iam:ListRoleTags"}, when: "a profile was left",
			on: (*want).makesProfile, at: connectPos},
		{feature: collects, sid: "FindProfiles", actions: []string{"iam:ListInstanceProfiles", "iam:ListRoles"}, when: "gild gc runs", on: (*want).makesProfile, at: connectPos},
		{feature: looks, sid: "GivenProfile", actions: []string{"iam:GetInstanceProfile"}, on: (*want).givenProfile, at: instancePos},
		{feature: theProfile, sid: "PassRole", actions: []string{"iam:PassRole"}, implied: true, on: (*want).passesRole, at: instancePos},

		{feature: withKeys, sid: "UseKeys", actions: useKey, implied: true, on: (*want).keysByID, at: keyPos},
		{feature: looks, sid: "FindKeys", actions: []string{"kms:DescribeKey"}, on: (*want).keysByID, at: keyPos},
		{feature: withKeys, sid: "UseKeysByAlias", actions: useKey, implied: true, on: (*want).keysByAlias, at: keyPos},
		{feature: looks, sid: "FindKeysByAlias", actions: []string{"kms:DescribeKey"}, on: (*want).keysByAlias, at: keyPos},
	}
}

func basePos(p *spec.Pipeline) diag.Pos     { return p.Base.Pos }
func publishPos(p *spec.Pipeline) diag.Pos  { return p.Publish.Pos }
func copyPos(p *spec.Pipeline) diag.Pos     { return p.Copy.Pos }
func instancePos(p *spec.Pipeline) diag.Pos { return or(p.AWS.Instance.Pos, p.AWS.Pos) }
func connectPos(p *spec.Pipeline) diag.Pos  { return or(p.AWS.Connect.Pos, p.AWS.Pos) }
func typesPos(p *spec.Pipeline) diag.Pos    { return or(p.AWS.Instance.TypesPos, instancePos(p)) }

// keyPos is the first place that names a key.
func keyPos(p *spec.Pipeline) diag.Pos {
	for _, k := range keysOf(p) {
		return k.pos
	}
	return p.AWS.Pos
}

// or returns the first place that is known.
func or(pos, otherwise diag.Pos) diag.Pos {
	if pos == (diag.Pos{}) {
		return otherwise
	}
	return pos
}
