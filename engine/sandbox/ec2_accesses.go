package sandbox

import (
	"maps"
	"slices"
	"strings"
)

// subject is a resource that an action of EC2 is authorized on.
type subject struct {
	typ string
	// id is as in the resource's ARN: "*" for what is yet to be made and has no name.
	id   string
	keys map[string][]string
}

// ec2Accesses are the permissions that a call of EC2 needs, by the Service Authorization
// Reference: the action on every resource it names and on every kind it makes, ec2:CreateTags
// for tags at creation, and iam:PassRole.
func (c *call) ec2Accesses() []access {
	action, region := "ec2:"+c.r.Action, map[string][]string{"ec2:Region": {c.region}}
	made := c.madeSubjects()
	var out []access
	for _, s := range slices.Concat(made, c.namedSubjects()) {
		out = append(out, access{action, c.ec2ARN(s.typ, s.id), merge(region, s.keys)})
	}
	if len(out) == 0 {
		out = []access{{action, "*", region}}
	}
	for _, s := range made {
		if len(s.keys["aws:TagKeys"]) > 0 {
			keys := merge(region, s.keys, map[string][]string{"ec2:CreateAction": {c.r.Action}})
			out = append(out, access{"ec2:CreateTags", c.ec2ARN(s.typ, s.id), keys})
		}
	}
	if c.p.has("IamInstanceProfile") {
		out = append(out, c.passRole()...)
	}
	return out
}

// ec2ARN names a resource; images and snapshots have no account in theirs.
func (c *call) ec2ARN(typ, id string) string {
	account, region := c.account, c.region
	if typ == kindImage.typ || typ == kindSnapshot.typ {
		account = ""
	}
	if source := c.p.str("SourceRegion"); typ == kindSnapshot.typ && id != "*" && source != "" {
		region = source
	}
	return partitionARN(region, "ec2", account, typ+"/"+id)
}

// makes lists the types of resources that an action makes, and those that it is authorized to
// make only when it tags them.
func makes(action string) (always, tagged []string) {
	switch action {
	case "RunInstances":
		return []string{kindInstance.typ, kindVolume.typ, kindInterface.typ}, []string{kindSpot.typ}
	case "CreateImage", "CopyImage":
		return []string{kindImage.typ, kindSnapshot.typ}, nil
	case "RegisterImage":
		return []string{kindImage.typ}, nil
	case "CreateSnapshot", "CreateSnapshots", "CopySnapshot":
		return []string{kindSnapshot.typ}, nil
	case "CreateVolume":
		return []string{kindVolume.typ}, nil
	case "CreateKeyPair", "ImportKeyPair":
		return []string{kindKey.typ}, nil
	case "CreateSecurityGroup":
		return []string{kindGroup.typ}, nil
	case "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress":
		return nil, []string{kindRule.typ}
	}
	return nil, nil
}

func (c *call) madeSubjects() []subject {
	tags := map[string]map[string][]string{}
	for _, spec := range c.p.subs("TagSpecifications") {
		tags[spec.str("ResourceType")] = requestTags(spec.subs("Tags"))
	}
	always, tagged := makes(c.r.Action)
	for _, typ := range tagged {
		if len(tags[typ]) > 0 {
			always = append(always, typ)
		}
	}
	var out []subject
	for _, typ := range always {
		id := "*"
		if typ == kindKey.typ {
			id = c.p.str("KeyName")
		}
		out = append(out, subject{typ, id, merge(tags[typ], c.newKeys(typ))})
	}
	return out
}

// namedSubjects are the resources that the parameters name.
func (c *call) namedSubjects() []subject {
	if c.looksAtAny() {
		return nil
	}
	var out []subject
	add := func(typ string, ids ...string) {
		for _, id := range ids {
			if s := (subject{typ: typ, id: id}); id != "" && !slices.ContainsFunc(out, s.is) {
				s.keys = merge(c.resourceKeys(typ, id), requestTags(c.p.subs("Tags")))
				out = append(out, s)
			}
		}
	}
	p := c.p
	instances := append(p.texts("InstanceIds"), p.str("InstanceId"), p.sub("InstanceSpecification").str("InstanceId"))
	add(kindInstance.typ, instances...)
	add(kindImage.typ, p.str("ImageId"))
	add(kindVolume.typ, p.str("VolumeId"))
	add(kindSpot.typ, p.texts("SpotInstanceRequestIds")...)
	add(kindGroup.typ, c.namedGroups()...)
	switch c.r.Action {
	case "RunInstances":
		add(kindKey.typ, p.str("KeyName"))
		add(kindSubnet.typ, p.str("SubnetId"))
		for _, card := range p.subs("NetworkInterfaces") {
			add(kindSubnet.typ, card.str("SubnetId"))
		}
	case "DeleteKeyPair":
		add(kindKey.typ, c.keyName())
	case "CreateSecurityGroup":
		add(kindVPC.typ, p.or("VpcId", c.network().VPC))
	case "CreateSnapshots":
		if i := c.s.instances.get(p.sub("InstanceSpecification").str("InstanceId")); i != nil {
			for _, v := range c.s.attached(i) {
				add(kindVolume.typ, v.ID)
			}
		}
	}
	add(kindSnapshot.typ, p.str("SnapshotId"), p.str("SourceSnapshotId"))
	if c.r.Action != "CreateImage" {
		for _, m := range p.subs("BlockDeviceMappings") {
			add(kindSnapshot.typ, m.sub("Ebs").str("SnapshotId"))
		}
	}
	for _, id := range p.texts("Resources") {
		if typ, err := c.taggable(id); err == nil {
			add(typ, c.idInARN(typ, id))
		} else {
			add("*", id)
		}
	}
	return out
}

func (s subject) is(o subject) bool { return s.typ == o.typ && s.id == o.id }

// looksAtAny reports whether a call only looks, and IAM knows no resources for it.
func (c *call) looksAtAny() bool {
	switch c.r.Action {
	case "DescribeImageAttribute", "DescribeInstanceAttribute", "DescribeSnapshotAttribute", "GetConsoleOutput":
		return false
	}
	return strings.HasPrefix(c.r.Action, "Describe") || strings.HasPrefix(c.r.Action, "Get")
}

// namedGroups are the security groups that a call uses, by their ids. An instance for which
// none is named gets the default one.
func (c *call) namedGroups() []string {
	p := c.p
	switch c.r.Action {
	case "CreateSecurityGroup":
		return nil
	case "ModifyInstanceAttribute":
		return p.texts("Groups")
	}
	ids, names := append(p.texts("SecurityGroupIds"), p.str("GroupId")), append(p.texts("SecurityGroups"), p.str("GroupName"))
	for _, card := range p.subs("NetworkInterfaces") {
		ids = append(ids, card.texts("Groups")...)
	}
	for _, name := range names {
		if g, err := c.groupByName(name); err == nil {
			ids = append(ids, g.ID)
		} else if name != "" {
			ids = append(ids, name)
		}
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	if c.r.Action == "RunInstances" && len(ids) == 0 {
		return []string{c.network().Group}
	}
	return ids
}

// keyName is the name of the key pair that a call names, also by its id.
func (c *call) keyName() string {
	if name := c.p.str("KeyName"); name != "" {
		return name
	}
	return c.idInARN(kindKey.typ, c.p.str("KeyPairId"))
}

// idInARN is what the ARN of a resource has for its id: key pairs are called by their names.
func (c *call) idInARN(typ, id string) string {
	if typ == kindKey.typ {
		if k := c.keyByID(id); k != nil {
			return k.Name
		}
	}
	return id
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
		maps.Copy(out, set)
	}
	maps.DeleteFunc(out, func(_ string, values []string) bool { return len(values) == 0 })
	return out
}
