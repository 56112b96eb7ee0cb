package access

// resourceTypes maps every action of the policies to the types of resources that AWS
// authorizes it on, and these to the condition keys, apart from those of the request as a
// whole, that the policies use on them. An action without types is authorized on "*" only.
//
// It says what the Service Authorization Reference says, reduced to what is used here.
func resourceTypes() map[string]map[string][]string {
	var (
		none = map[string][]string{}
		made = []string{"aws:RequestTag/gild:run", "aws:RequestTag/gild:pipeline"}
		ours = []string{"ec2:ResourceTag/gild:pipeline"}
		role = map[string][]string{"role": nil}
		prof = map[string][]string{"instance-profile": nil}
		key  = map[string][]string{"key": {"kms:ViaService", "kms:ResourceAliases"}}
		at   = map[string][]string{"instance": ours}
	)
	return map[string]map[string][]string{
		"ec2:DescribeImages":                none,
		"ec2:DescribeInstanceTypeOfferings": none,
		"ec2:DescribeInstanceTypes":         none,
		"ec2:DescribeInstances":             none,
		"ec2:DescribeKeyPairs":              none,
		"ec2:DescribeRegions":               none,
		"ec2:DescribeSecurityGroups":        none,
		"ec2:DescribeSnapshots":             none,
		"ec2:DescribeSpotInstanceRequests":  none,
		"ec2:DescribeSubnets":               none,
		"ec2:DescribeVolumes":               none,
		"ec2:DescribeVpcs":                  none,

		"ec2:RunInstances": {
			"image":                  {"ec2:Owner", "ec2:ResourceTag/gild:run", "ec2:ResourceTag/gild:pipeline"},
			"instance":               {"aws:RequestTag/gild:run", "aws:RequestTag/gild:pipeline", "ec2:InstanceType", "ec2:MetadataHttpTokens"},
			"key-pair":               ours,
			"network-interface":      made,
			"security-group":         {"ec2:ResourceTag/gild:pipeline", "ec2:Vpc"},
			"spot-instances-request": made,
			"subnet":                 {"ec2:Vpc"},
			"volume":                 made,
		},
		"ec2:GetConsoleOutput":        at,
		"ec2:RebootInstances":         at,
		"ec2:ModifyInstanceAttribute": at,
		"ec2:StopInstances":           at,
		"ec2:TerminateInstances":      at,

		"ec2:CreateImage":            {"image": made, "instance": ours, "snapshot": made},
		"ec2:CopyImage":              {"image": made, "snapshot": made},
		"ec2:DeregisterImage":        {"image": ours},
		"ec2:EnableImageDeprecation": {"image": ours},
		"ec2:ModifyImageAttribute":   {"image": ours},
		"ec2:RegisterImage":          {"image": made, "snapshot": ours},
		"ec2:DeleteTags":             {"image": ours, "snapshot": ours},
		"ec2:DeleteSnapshot":         {"snapshot": ours},
		"ec2:DeleteVolume":           {"volume": ours},

		"ec2:CreateSecurityGroup":           {"security-group": made, "vpc": nil},
		"ec2:AuthorizeSecurityGroupIngress": {"security-group": ours, "security-group-rule": made},
		"ec2:DeleteSecurityGroup":           {"security-group": ours},
		"ec2:ImportKeyPair":                 {"key-pair": made},
		"ec2:DeleteKeyPair":                 {"key-pair": ours},
		"ec2:CancelSpotInstanceRequests":    {"spot-instances-request": ours},
		"ec2:CreateTags": {
			"image": {"ec2:ResourceTag/gild:pipeline", "ec2:CreateAction"}, "snapshot": {"ec2:ResourceTag/gild:pipeline", "ec2:CreateAction"},
			"instance": {"ec2:CreateAction"}, "volume": {"ec2:CreateAction"}, "network-interface": {"ec2:CreateAction"},
			"security-group": {"ec2:CreateAction"}, "security-group-rule": {"ec2:CreateAction"}, "key-pair": {"ec2:CreateAction"},
			"spot-instances-request": {"ec2:CreateAction"},
		},

		"ssm:SendCommand":                       {"document": nil, "instance": {"ssm:resourceTag/gild:pipeline"}},
		"ssm:CancelCommand":                     none,
		"ssm:DescribeInstanceInformation":       none,
		"ssm:GetCommandInvocation":              none,
		"ssm:GetParameter":                      {"parameter": nil},
		"ec2-instance-connect:SendSSHPublicKey": {"instance": {"ec2:ResourceTag/gild:pipeline", "ec2:osuser"}},

		"iam:CreateRole":                    {"role": made},
		"iam:TagRole":                       {"role": made},
		"iam:AttachRolePolicy":              {"role": {"iam:PolicyARN"}},
		"iam:DetachRolePolicy":              {"role": {"iam:PolicyARN"}},
		"iam:DeleteRole":                    role,
		"iam:ListRoleTags":                  role,
		"iam:ListRoles":                     none,
		"iam:PassRole":                      {"role": {"iam:PassedToService"}},
		"iam:CreateServiceLinkedRole":       {"role": {"iam:AWSServiceName"}},
		"iam:CreateInstanceProfile":         {"instance-profile": made},
		"iam:TagInstanceProfile":            {"instance-profile": made},
		"iam:AddRoleToInstanceProfile":      prof,
		"iam:RemoveRoleFromInstanceProfile": prof,
		"iam:DeleteInstanceProfile":         prof,
		"iam:GetInstanceProfile":            prof,
		"iam:ListInstanceProfileTags":       prof,
		"iam:ListInstanceProfiles":          none,

		"kms:CreateGrant":                     {"key": {"kms:ViaService", "kms:ResourceAliases", "kms:GrantIsForAWSResource"}},
		"kms:Decrypt":                         key,
		"kms:DescribeKey":                     key,
		"kms:GenerateDataKeyWithoutPlaintext": key,
		"kms:ReEncryptFrom":                   key,
		"kms:ReEncryptTo":                     key,
	}
}
