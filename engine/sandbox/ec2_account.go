package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
)

// profile is an instance profile, as instances need it.
type profile struct {
	ARN, ID, Name string
	// Role is the ARN of its role, or empty while it has none.
	Role string
}

// defaultKey is the ARN of an account's key for EBS in a region, "alias/aws/ebs".
func defaultKey(account, region string) string {
	sum := sha256.Sum256([]byte("kms\x00" + account + "\x00" + region))
	h := hex.EncodeToString(sum[:])
	return partitionARN(region, "kms", account, "key/"+h[:8]+"-"+h[8:12]+"-4"+h[13:16]+"-a"+h[17:20]+"-"+h[20:32])
}

// kmsKey turns what a request has as KmsKeyId into the ARN of a key that can be used.
func (c *call) kmsKey(key string) (string, error) {
	if key == "" || key == "alias/aws/ebs" {
		return defaultKey(c.account, c.region), nil
	}
	if arn, ok := c.s.findKey(c.account, c.region, key); ok {
		return arn, nil
	}
	return "", fail("InvalidParameterValue", "The key '%s' does not exist, is not enabled, or you are not allowed to use it.", key)
}

func describeAccountAttributes(c *call) (answer, error) {
	q := c.s.cfg.Quotas
	attributes := []struct {
		name   string
		values []string
	}{
		{"supported-platforms", []string{"VPC"}}, {"default-vpc", []string{c.network().VPC}},
		{"max-instances", []string{number(int64(q.VCPUs))}}, {"max-elastic-ips", []string{"5"}},
		{"vpc-max-security-groups-per-interface", []string{"5"}}, {"vpc-max-elastic-ips", []string{"5"}},
	}
	asked := c.p.texts("AttributeNames")
	out := []any{}
	for _, a := range attributes {
		if len(asked) > 0 && !slices.Contains(asked, a.name) {
			continue
		}
		out = append(out, answer{"AttributeName": a.name, "AttributeValues": list(a.values, func(v string) any { return answer{"AttributeValue": v} })})
	}
	return answer{"AccountAttributes": out}, nil
}

func getEBSEncryptionByDefault(*call) (answer, error) {
	return answer{"EbsEncryptionByDefault": false, "SseType": "none"}, nil
}

func getEBSDefaultKMSKeyID(*call) (answer, error) { return answer{"KmsKeyId": "alias/aws/ebs"}, nil }

func getImageBlockPublicAccessState(*call) (answer, error) {
	return answer{"ImageBlockPublicAccessState": "unblocked", "ManagedBy": "account"}, nil
}

func associateIAMInstanceProfile(c *call) (answer, error) {
	i, err := c.instance(c.p.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	found, err := c.profile(c.p.sub("IamInstanceProfile"))
	if err != nil {
		return nil, err
	}
	if !i.alive() {
		return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a valid state (%s).", i.ID, i.State)
	}
	if i.Profile != "" {
		return nil, wrongState("There is an existing association for instance %s", i.ID)
	}
	i.Profile, i.ProfileID, i.Association = found.ARN, found.ID, newID("iip-assoc")
	c.s.instances.put(i.ID, i)
	return answer{"IamInstanceProfileAssociation": i.associationAnswer("associating")}, nil
}

func (i *instance) associationAnswer(state string) answer {
	return answer{"AssociationId": i.Association, "InstanceId": i.ID, "State": state,
		"IamInstanceProfile": answer{"Arn": i.Profile, "Id": i.ProfileID}}
}

func describeIAMInstanceProfileAssociations(c *call) (answer, error) {
	at, err := c.page(5, 1000, "AssociationIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[instance]{
		"instance-id": one(func(i *instance) string { return i.ID }),
		"state":       one(func(*instance) string { return "associated" }),
	}, nil)
	if err != nil {
		return nil, err
	}
	asked := c.p.texts("AssociationIds")
	var found []*instance
	for _, i := range c.s.instances.all {
		if c.mine(i.Account, i.Region) && i.Profile != "" && i.alive() && match(i) && (len(asked) == 0 || slices.Contains(asked, i.Association)) {
			found = append(found, i)
		}
	}
	for _, id := range asked {
		if !slices.ContainsFunc(found, func(i *instance) bool { return i.Association == id }) {
			return nil, fail("InvalidAssociationID.NotFound", "The association ID '%s' does not exist", id)
		}
	}
	found, token := cut(c, at, found, func(i *instance) string { return i.ID })
	out := answer{"IamInstanceProfileAssociations": list(found, func(i *instance) any { return i.associationAnswer("associated") })}
	set(out, "NextToken", token)
	return out, nil
}

// describeLaunchTemplates: a sandbox has none, and no operation to make one.
func describeLaunchTemplates(c *call) (answer, error) {
	for _, id := range c.p.texts("LaunchTemplateIds") {
		return nil, noTemplate(id, "")
	}
	for _, name := range c.p.texts("LaunchTemplateNames") {
		return nil, noTemplate("", name)
	}
	return answer{"LaunchTemplates": []any{}}, nil
}

func describeLaunchTemplateVersions(c *call) (answer, error) {
	if id, name := c.p.str("LaunchTemplateId"), c.p.str("LaunchTemplateName"); id != "" || name != "" {
		return nil, noTemplate(id, name)
	}
	return answer{"LaunchTemplateVersions": []any{}}, nil
}

func noTemplate(id, name string) error {
	if name != "" {
		return fail("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", name)
	}
	return fail("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
}
