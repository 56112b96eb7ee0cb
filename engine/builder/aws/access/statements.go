package access

import (
	"slices"
	"strings"
)

// The names that gild gives, which the policies rely on.
const (
	// RunTag and PipelineTag are on everything that gild makes, from its creation on: the id
	// of the run, and the name of the pipeline.
	RunTag      = "gild:run"
	PipelineTag = "gild:pipeline"
	// MadePrefix begins the names of the roles and instance profiles that gild makes, and
	// MadePath is where in IAM they are.
	MadePrefix = "gild-"
	MadePath   = "/gild/"
	// CorePolicy is the name of the AWS managed policy of the roles that gild makes: what
	// the agent of Systems Manager needs.
	CorePolicy = "AmazonSSMManagedInstanceCore"
	// ShellDocument is the one document that gild runs through Systems Manager.
	ShellDocument = "AWS-RunShellScript"
)

// tokenLength is how many characters follow MadePrefix.
const tokenLength = 32

// shape is a statement without its actions.
type shape struct {
	sid       string
	resources []string
	condition Condition
}

// shapes are the statements that the rows of the table speak of, in the order of a document.
func (w *want) shapes() []shape {
	home, everywhere := w.home.sorted(), w.everywhere()
	all := []string{"*"}
	return slices.Concat([]shape{
		{"Look", all, Condition{}.and("StringEquals", "aws:RequestedRegion", everywhere...)},
	}, w.launchShapes(home), []shape{
		{"TagNew", w.ec2(everywhere, w.taggedTypes()...), w.only(everywhere, Condition{}.and("StringEquals", "ec2:CreateAction", w.taggingCalls()...))},
		{"Make", w.ec2(home, w.alongTypes()...), w.only(home, w.made())},
		{"MakeGroupIn", w.vpcARNs(home), w.only(home, nil)},
		{"Ours", w.ec2(home, slices.Concat([]string{"instance", "volume"}, w.alongTypes(), w.spotTypes())...), w.only(home, w.ours())},
		{"MakeImages", w.ec2(everywhere, "image", "snapshot"), w.only(everywhere, w.made())},
		{"OurImages", w.ec2(everywhere, "image", "snapshot"), w.only(everywhere, w.ours())},
		{"RegisterImages", w.ec2(home, "image"), w.only(home, w.made())},
		{"SpotRole", w.iam("role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"),
			Condition{}.and("StringEquals", "iam:AWSServiceName", "spot.amazonaws.com")},
		{"PushKey", w.ec2(home, "instance"), w.only(home, w.asUser(w.ours()))},
		{"RunOnOurs", w.ec2(home, "instance"), w.only(home, Condition{}.and("StringEquals", "ssm:resourceTag/"+PipelineTag, w.names.sorted()...))},
		{"RunShell", w.arns("ssm", home, "*", "document/"+ShellDocument), w.only(home, nil)},
		{"FollowCommands", all, Condition{}.and("StringEquals", "aws:RequestedRegion", home...)},
		{"ReadParameter", w.parameterARNs(home), w.only(home, nil)},
	}, w.profileShapes(), w.keyShapes())
}

// launchShapes are the statements of RunInstances, which AWS authorizes on each thing that
// it uses or makes.
func (w *want) launchShapes(home []string) []shape {
	image := w.ec2(home, "image")
	byOwner := Condition(nil)
	if !w.anyOwner {
		byOwner = Condition{}.and("StringEquals", "ec2:Owner", w.owners.sorted()...)
	}
	instance := w.made().and("StringEquals", "ec2:MetadataHttpTokens", "required")
	if len(w.types) > 0 {
		instance = instance.and("StringEquals", "ec2:InstanceType", w.types.sorted()...)
	}
	return []shape{
		{"LaunchFromBase", image, w.only(home, byOwner)},
		{"LaunchFromAMI", w.named(home, "", "image/", w.amis.sorted()), w.only(home, nil)},
		{"LaunchFromOurs", image, w.only(home, w.startable())},
		{"LaunchInto", w.into(home), w.only(home, w.inVPC())},
		{"Launch", w.ec2(home, "instance"), w.only(home, instance)},
		{"LaunchMade", w.ec2(home, slices.Concat([]string{"network-interface", "volume"}, w.spotTypes())...), w.only(home, w.made())},
		{"LaunchWith", w.ec2(home, w.alongTypes()...), w.only(home, w.ours())},
	}
}

// alongTypes are what is made along with an instance, for it alone.
func (w *want) alongTypes() []string {
	var types []string
	if w.madeGroup {
		types = append(types, "security-group")
	}
	if w.keyPair {
		types = append(types, "key-pair")
	}
	return types
}

// spotTypes is empty when there are no spot instances.
func (w *want) spotTypes() []string {
	if w.spot {
		return []string{"spot-instances-request"}
	}
	return nil
}

// into are what an instance is put into: the subnet and given groups.
func (w *want) into(home []string) []string {
	groups := w.named(home, "*", "security-group/", w.groups.sorted())
	if w.anySubnet {
		return append(groups, w.ec2(home, "subnet")...)
	}
	return append(groups, w.named(home, "*", "subnet/", w.subnets.sorted())...)
}

// inVPC holds launching in the VPC that is given, if one is and no subnet says more.
func (w *want) inVPC() Condition {
	if len(w.vpcs) == 0 || w.anyVPC || len(w.subnets) > 0 {
		return nil
	}
	return Condition{}.and("ArnLike", "ec2:Vpc", w.vpcARNs(w.home.sorted())...)
}

func (w *want) vpcARNs(home []string) []string {
	if w.anyVPC || len(w.subnets) > 0 {
		return w.ec2(home, "vpc")
	}
	return w.named(home, "*", "vpc/", w.vpcs.sorted())
}

// taggedTypes are what gets tags as it is made.
func (w *want) taggedTypes() []string {
	return slices.Concat([]string{"instance", "volume", "network-interface", "image", "snapshot"}, w.alongTypes(), w.spotTypes())
}

// taggingCalls are the calls that may tag what they make.
func (w *want) taggingCalls() []string {
	calls := []string{"CopyImage", "CreateImage", "RunInstances"}
	for call, on := range map[string]bool{
		"CreateSecurityGroup": w.madeGroup, "ImportKeyPair": w.keyPair, "RegisterImage": w.register,
	} {
		if on {
			calls = append(calls, call)
		}
	}
	return sorted(calls)
}

// asUser limits the users that Instance Connect may log in as.
func (w *want) asUser(c Condition) Condition {
	if w.anyUser || len(w.users) == 0 {
		return c
	}
	return c.and("StringEquals", "ec2:osuser", w.users.sorted()...)
}

func (w *want) parameterARNs(home []string) []string {
	var names []string
	for _, p := range w.parameters.sorted() {
		names = append(names, strings.TrimPrefix(p, "/"))
	}
	return w.arnsOf("ssm", home, "*", "parameter/", names)
}

func (w *want) profileShapes() []shape {
	var core, roles, profiles []string
	for _, p := range w.partitions.sorted() {
		core = append(core, "arn:"+p+":iam::aws:policy/"+CorePolicy)
	}
	if w.madeProfile {
		roles = w.madeIAM("role")
	}
	for _, p := range w.profiles.sorted() {
		if strings.HasPrefix(p, "arn:") {
			profiles = append(profiles, p)
		} else {
			profiles = append(profiles, w.iam("instance-profile/"+p)...)
		}
		roles = append(roles, w.roleOf(p)...)
	}
	ourRoles, ourProfiles := w.madeIAM("role"), w.madeIAM("instance-profile")
	// IAM can't know the path of one that is gone: without these, removing it again is
	// refused instead of answered with NoSuchEntity. They hold for names of gild's length
	// only, because anybody may call a role gild-ci.
	gone := MadePrefix + strings.Repeat("?", tokenLength)
	goneRoles := slices.Concat(ourRoles, w.iam("role/"+gone))
	goneProfiles := slices.Concat(ourProfiles, w.iam("instance-profile/"+gone))
	return []shape{
		{"MakeProfile", slices.Concat(ourRoles, ourProfiles), w.made()},
		{"ArmRole", goneRoles, Condition{}.and("ArnEquals", "iam:PolicyARN", core...)},
		{"OurProfiles", slices.Concat(goneRoles, goneProfiles), nil},
		{"FindProfiles", []string{"*"}, nil},
		{"GivenProfile", sorted(profiles), nil},
		{"PassRole", sorted(roles), Condition{}.and("StringEquals", "iam:PassedToService", w.services("ec2")...)},
	}
}

// roleOf is the role in a given instance profile: what is known, else the role of the same
// name, which is what the console makes.
func (w *want) roleOf(profile string) []string {
	if arn := w.known.Roles[profile]; arn != "" {
		return []string{arn}
	}
	return w.iam("role/" + profile[strings.LastIndex(profile, "/")+1:])
}

func (w *want) keyShapes() []shape {
	var via []string
	for _, region := range w.keyRegions() {
		via = append(via, w.services("ec2."+region)...)
	}
	use := func() Condition {
		return Condition{}.and("StringEquals", "kms:ViaService", via...).and("BoolIfExists", "kms:GrantIsForAWSResource", "true")
	}
	byAlias := func(c Condition) Condition {
		return c.and("ForAnyValue:StringEquals", "kms:ResourceAliases", w.aliases()...)
	}
	return []shape{
		{"UseKeys", w.keyARNs(false), use()},
		{"FindKeys", w.keyARNs(false), nil},
		{"UseKeysByAlias", w.keyARNs(true), byAlias(use())},
		{"FindKeysByAlias", w.keyARNs(true), byAlias(nil)},
	}
}

// made holds for a request that tags what it makes as ours.
func (w *want) made() Condition {
	return Condition{}.and("StringLike", "aws:RequestTag/"+RunTag, "?*").and("StringEquals", "aws:RequestTag/"+PipelineTag, w.names.sorted()...)
}

// ours holds for what gild made for the pipelines.
func (w *want) ours() Condition {
	return Condition{}.and("StringEquals", "ec2:ResourceTag/"+PipelineTag, w.names.sorted()...)
}

// startable holds for the images that a build starts instances of, besides a publisher's: its
// checkpoints and candidates, and those of the pipeline that is its base, whose file may call
// it anything.
func (w *want) startable() Condition {
	if !w.onOurs {
		return w.ours()
	}
	return Condition{}.and("StringLike", "ec2:ResourceTag/"+RunTag, "?*")
}
