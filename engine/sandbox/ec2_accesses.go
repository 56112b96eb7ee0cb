package sandbox

import (
	"maps"
	"slices"
	"strings"
)

// makes lists the types of resources that an action makes.
func makes(action string) []string {
	switch action {
	case "RunInstances":
		return []string{"instance", "volume", "network-interface"}
	case "CreateImage", "CopyImage":
		return []string{"image", "snapshot"}
	case "RegisterImage":
		return []string{"image"}
	case "CreateSnapshot", "CreateSnapshots", "CopySnapshot":
		return []string{"snapshot"}
	case "CreateVolume":
		return []string{"volume"}
	case "CreateKeyPair", "ImportKeyPair":
		return []string{"key-pair"}
	case "CreateSecurityGroup":
		return []string{"security-group", "vpc"}
	}
	return nil
}

// ec2Accesses are the permissions that a call of EC2 needs: the action on every resource it
// names and on every kind it makes, ec2:CreateTags for tags at creation, and iam:PassRole.
func (c *call) ec2Accesses() []access {
	action := "ec2:" + c.r.Action
	base := map[string][]string{"aws:RequestedRegion": {c.region}, "ec2:Region": {c.region}}
	if strings.HasPrefix(c.r.Action, "Describe") || strings.HasPrefix(c.r.Action, "Get") {
		return []access{{action, "*", base}}
	}
	specs := map[string][]params{}
	for _, spec := range c.p.subs("TagSpecifications") {
		specs[spec.str("ResourceType")] = spec.subs("Tags")
	}
	var out []access
	for _, typ := range makes(c.r.Action) {
		keys := merge(base, requestTags(specs[typ]), c.launchKeys())
		out = append(out, access{action, c.ec2ARN(typ, "*"), keys})
		if len(specs[typ]) > 0 {
			out = append(out, access{"ec2:CreateTags", c.ec2ARN(typ, "*"), merge(keys, map[string][]string{"ec2:CreateAction": {c.r.Action}})})
		}
	}
	if typ := kindSpot.typ; len(specs[typ]) > 0 {
		out = append(out, access{"ec2:CreateTags", c.ec2ARN(typ, "*"), merge(base, requestTags(specs[typ]), map[string][]string{"ec2:CreateAction": {c.r.Action}})})
	}
	for typ, ids := range c.namedResources() {
		for _, id := range ids {
			out = append(out, access{action, c.ec2ARN(typ, id), merge(base, c.resourceKeys(typ, id), requestTags(c.p.subs("Tags")))})
		}
	}
	if c.p.has("IamInstanceProfile") {
		out = append(out, c.passRole()...)
	}
	if len(out) == 0 {
		out = []access{{action, "*", base}}
	}
	return out
}

// ec2ARN names a resource; images and snapshots have no account in theirs.
func (c *call) ec2ARN(typ, id string) string {
	account := c.account
	if typ == "image" || typ == "snapshot" {
		account = ""
	}
	return partitionARN(c.region, "ec2", account, typ+"/"+id)
}

// namedResources are the resources that the parameters name, by type.
func (c *call) namedResources() map[string][]string {
	out := map[string][]string{}
	add := func(typ string, ids ...string) {
		for _, id := range ids {
			if id != "" {
				out[typ] = append(out[typ], id)
			}
		}
	}
	p := c.p
	add("instance", append(p.texts("InstanceIds"), p.str("InstanceId"), p.sub("InstanceSpecification").str("InstanceId"))...)
	add("image", p.str("ImageId"))
	add("snapshot", p.str("SnapshotId"))
	add("volume", p.str("VolumeId"))
	add("subnet", p.str("SubnetId"))
	add("key-pair", p.str("KeyName"))
	add("security-group", append(p.texts("SecurityGroupIds"), p.str("GroupId"))...)
	for _, m := range p.subs("BlockDeviceMappings") {
		add("snapshot", m.sub("Ebs").str("SnapshotId"))
	}
	for _, id := range p.texts("Resources") {
		typ, err := c.taggable(id)
		if err != nil {
			typ = "*"
		}
		add(typ, id)
	}
	if c.r.Action == "CreateKeyPair" || c.r.Action == "ImportKeyPair" {
		delete(out, "key-pair")
	}
	return out
}

// resourceKeys are the condition keys of something that exists.
func (c *call) resourceKeys(typ, id string) map[string][]string {
	out := map[string][]string{}
	at := id
	if k := c.key(id); typ == "key-pair" && k != nil {
		at = k.ID
	}
	for key, value := range c.tagsOf(at) {
		out["aws:ResourceTag/"+key] = []string{value}
		out["ec2:ResourceTag/"+key] = []string{value}
	}
	if i := c.s.images.get(id); i != nil {
		owner := []string{i.Account}
		if i.Alias != "" {
			owner = append(owner, i.Alias)
		}
		out["ec2:Owner"] = owner
	}
	return merge(out, c.launchKeys())
}

// launchKeys are the condition keys of what RunInstances asks for.
func (c *call) launchKeys() map[string][]string {
	if c.r.Action != "RunInstances" {
		return nil
	}
	out := map[string][]string{"ec2:InstanceType": {c.p.str("InstanceType")}}
	m := c.p.sub("MetadataOptions")
	if m.has("HttpTokens") {
		out["ec2:MetadataHttpTokens"] = []string{m.str("HttpTokens")}
	}
	return out
}

func requestTags(tags []params) map[string][]string {
	out := map[string][]string{}
	for _, t := range tags {
		out["aws:RequestTag/"+t.str("Key")] = []string{t.str("Value")}
		out["aws:TagKeys"] = append(out["aws:TagKeys"], t.str("Key"))
	}
	return out
}

// passRole is what giving an instance a role needs.
func (c *call) passRole() []access {
	p := c.p.sub("IamInstanceProfile")
	found, ok := c.s.findProfile(c.account, p.or("Arn", p.str("Name")))
	if !ok || found.Role == "" {
		return nil
	}
	return []access{{"iam:PassRole", found.Role, map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}}}
}

// merge lays sets of condition keys over each other.
func merge(sets ...map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, set := range sets {
		for key, values := range set {
			out[key] = slices.Clone(values)
		}
	}
	maps.DeleteFunc(out, func(_ string, values []string) bool { return len(values) == 0 })
	return out
}
