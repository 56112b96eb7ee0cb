package sandbox

import "strconv"

// newKeys are the condition keys of what a call makes, but for its tags.
func (c *call) newKeys(typ string) map[string][]string {
	out := map[string][]string{}
	set := func(key, value string) {
		if value != "" {
			out[key] = []string{value}
		}
	}
	p := c.p
	switch {
	case c.r.Action == "RunInstances" && typ == kindInstance.typ:
		c.newInstanceKeys(set)
	case c.r.Action == "RunInstances" && typ == kindInterface.typ:
		subnet := p.str("SubnetId")
		for _, card := range p.subs("NetworkInterfaces") {
			subnet = card.or("SubnetId", subnet)
			if card.has("AssociatePublicIpAddress") {
				set("ec2:AssociatePublicIpAddress", strconv.FormatBool(card.yes("AssociatePublicIpAddress")))
			}
		}
		if subnet != "" {
			set("ec2:Subnet", c.ec2ARN(kindSubnet.typ, subnet))
		}
		set("ec2:Vpc", c.ec2ARN(kindVPC.typ, c.network().VPC))
	case c.r.Action == "CreateVolume":
		set("ec2:AvailabilityZone", p.str("AvailabilityZone"))
		set("ec2:Encrypted", strconv.FormatBool(p.yes("Encrypted")))
		set("ec2:VolumeType", p.or("VolumeType", "gp2"))
		if p.has("Size") {
			set("ec2:VolumeSize", number(p.num("Size")))
		}
		if id := p.str("SnapshotId"); id != "" {
			set("ec2:ParentSnapshot", c.ec2ARN(kindSnapshot.typ, id))
		}
	case c.r.Action == "CreateKeyPair":
		set("ec2:KeyPairType", p.or("KeyType", "rsa"))
	case c.r.Action == "CreateSnapshot":
		set("ec2:ParentVolume", c.ec2ARN(kindVolume.typ, p.str("VolumeId")))
	}
	return out
}

// newInstanceKeys are those of the instances that RunInstances asks for.
func (c *call) newInstanceKeys(set func(key, value string)) {
	p, meta := c.p, c.p.sub("MetadataOptions")
	market := "on-demand"
	if p.sub("InstanceMarketOptions").str("MarketType") == "spot" {
		market = "spot"
	}
	set("ec2:InstanceType", p.or("InstanceType", "m1.small"))
	set("ec2:InstanceMarketType", market)
	set("ec2:RootDeviceType", "ebs")
	set("ec2:Tenancy", p.sub("Placement").or("Tenancy", "default"))
	set("ec2:EbsOptimized", strconv.FormatBool(p.yes("EbsOptimized")))
	set("ec2:AvailabilityZone", p.sub("Placement").str("AvailabilityZone"))
	set("ec2:MetadataHttpTokens", meta.str("HttpTokens"))
	set("ec2:MetadataHttpEndpoint", meta.str("HttpEndpoint"))
	if meta.has("HttpPutResponseHopLimit") {
		set("ec2:MetadataHttpPutResponseHopLimit", number(meta.num("HttpPutResponseHopLimit")))
	}
	profile := p.sub("IamInstanceProfile")
	if found, ok := c.s.findProfile(c.account, profile.or("Arn", profile.str("Name"))); ok {
		set("ec2:InstanceProfile", found.ARN)
	}
}

// resourceKeys are the condition keys of a resource that is there; of one that isn't, none.
func (c *call) resourceKeys(typ, id string) map[string][]string {
	out := map[string][]string{}
	set := func(key, value string) {
		if value != "" {
			out[key] = []string{value}
		}
	}
	switch typ {
	case kindImage.typ:
		out = c.imageKeys(id)
	case kindInstance.typ:
		c.instanceKeys(id, set)
	case kindSnapshot.typ:
		if sn := c.s.snapshots.get(id); sn != nil {
			out["ec2:Owner"] = owners(sn.Account, sn.Alias)
			set("ec2:SnapshotID", id)
			set("ec2:VolumeSize", number(sn.SizeGiB))
			set("ec2:Encrypted", strconv.FormatBool(sn.Encrypted))
		}
	case kindVolume.typ:
		if v := c.s.volumes.get(id); v != nil {
			set("ec2:VolumeID", id)
			set("ec2:AvailabilityZone", v.Zone)
			set("ec2:VolumeType", v.Type)
			set("ec2:VolumeSize", number(v.SizeGiB))
			set("ec2:Encrypted", strconv.FormatBool(v.Encrypted))
		}
	default:
		c.networkKeys(typ, id, set)
	}
	return merge(out, c.tagKeys(typ, id))
}

func (c *call) tagKeys(typ, id string) map[string][]string {
	if k := c.key(id); typ == kindKey.typ && k != nil {
		id = k.ID
	}
	out := map[string][]string{}
	for key, value := range c.tagsOf(id) {
		out["aws:ResourceTag/"+key] = []string{value}
		out["ec2:ResourceTag/"+key] = []string{value}
	}
	return out
}

func (c *call) imageKeys(id string) map[string][]string {
	i := c.s.images.get(id)
	if i == nil {
		return nil
	}
	return map[string][]string{"ec2:ImageID": {id}, "ec2:ImageType": {"machine"}, "ec2:Owner": owners(i.Account, i.Alias),
		"ec2:Public": {strconv.FormatBool(i.Public)}, "ec2:RootDeviceType": {"ebs"}}
}

// owners is what ec2:Owner may be compared with: an account or its alias.
func owners(account, alias string) []string {
	if alias != "" {
		return []string{account, alias}
	}
	return []string{account}
}

func (c *call) instanceKeys(id string, set func(key, value string)) {
	i := c.s.instances.get(id)
	if i == nil {
		return
	}
	market := "on-demand"
	if i.SpotRequest != "" {
		market = "spot"
	}
	set("ec2:InstanceID", id)
	set("ec2:InstanceType", i.Type)
	set("ec2:InstanceMarketType", market)
	set("ec2:InstanceProfile", i.Profile)
	set("ec2:RootDeviceType", "ebs")
	set("ec2:Tenancy", i.Tenancy)
	set("ec2:EbsOptimized", strconv.FormatBool(i.EBSOptimized))
	set("ec2:AvailabilityZone", i.Zone)
	set("ec2:MetadataHttpTokens", i.Metadata.Tokens)
	set("ec2:MetadataHttpEndpoint", i.Metadata.Endpoint)
	set("ec2:MetadataHttpPutResponseHopLimit", number(i.Metadata.Hops))
}

func (c *call) networkKeys(typ, id string, set func(key, value string)) {
	vpc := c.ec2ARN(kindVPC.typ, c.network().VPC)
	switch typ {
	case kindGroup.typ:
		set("ec2:SecurityGroupID", id)
		set("ec2:Vpc", vpc)
	case kindSubnet.typ:
		set("ec2:SubnetID", id)
		if s := c.network().subnet(id); s != nil {
			set("ec2:Vpc", vpc)
			set("ec2:AvailabilityZone", s.Zone)
		}
	case kindVPC.typ:
		set("ec2:VpcID", id)
		set("ec2:Tenancy", "default")
	case kindInterface.typ:
		set("ec2:NetworkInterfaceID", id)
		set("ec2:Vpc", vpc)
	case kindKey.typ:
		set("ec2:KeyPairName", id)
		if k := c.key(id); k != nil {
			set("ec2:KeyPairType", k.Type)
		}
	}
}

func requestTags(tags []params) map[string][]string {
	out := map[string][]string{}
	for _, t := range tags {
		out["aws:RequestTag/"+t.str("Key")] = []string{t.str("Value")}
		out["aws:TagKeys"] = append(out["aws:TagKeys"], t.str("Key"))
	}
	return out
}
