package sandbox

import (
	"maps"
	"slices"
)

// instanceOfInterface returns the caller's instance that has a network interface; they come
// and go with their instances.
func (c *call) instanceOfInterface(id string) *instance {
	for _, i := range c.s.instances.all {
		if i.Interface == id && c.mine(i.Account, i.Region) && i.State != "terminated" {
			return i
		}
	}
	return nil
}

func describeNetworkInterfaces(c *call) (answer, error) {
	at, err := c.page(5, 1000, "NetworkInterfaceIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[instance]{
		"network-interface-id":   one(func(i *instance) string { return i.Interface }),
		"attachment.instance-id": one(func(i *instance) string { return i.ID }),
		"attachment.status":      one(func(*instance) string { return "attached" }),
		"status":                 one(func(*instance) string { return "in-use" }),
		"subnet-id":              one(func(i *instance) string { return i.Subnet }),
		"vpc-id":                 one(func(i *instance) string { return i.VPC }),
		"availability-zone":      one(func(i *instance) string { return i.Zone }),
		"private-ip-address":     one(func(i *instance) string { return i.Private }),
		"owner-id":               one(func(i *instance) string { return i.Account }),
		"group-id":               func(_ *call, i *instance) []string { return i.Groups },
		"mac-address":            one(func(i *instance) string { return i.MAC }),
	}, func(i *instance) string { return i.Interface })
	if err != nil {
		return nil, err
	}
	byID := map[string]*instance{}
	for _, i := range c.s.instances.all {
		if c.mine(i.Account, i.Region) && i.State != "terminated" {
			byID[i.Interface] = i
		}
	}
	asked := c.p.texts("NetworkInterfaceIds")
	if err := named(kindInterface, asked, slices.Sorted(maps.Keys(byID))); err != nil {
		return nil, err
	}
	if len(asked) == 0 {
		asked = slices.Sorted(maps.Keys(byID))
	}
	var found []*instance
	for _, id := range asked {
		if i := byID[id]; match(i) {
			found = append(found, i)
		}
	}
	found, token := cut(c, at, found, func(i *instance) string { return i.Interface })
	out := answer{"NetworkInterfaces": list(found, func(i *instance) any {
		a := c.interfaceAnswer(i)
		a["AvailabilityZone"] = i.Zone
		a["RequesterManaged"] = false
		a["TagSet"] = tagList(c.tagsOf(i.Interface))
		sub := a["Attachment"].(answer)
		sub["InstanceId"], sub["InstanceOwnerId"] = i.ID, i.Account
		return a
	})}
	set(out, "NextToken", token)
	return out, nil
}

// interfaceAnswer is a network interface as DescribeInstances has it.
func (c *call) interfaceAnswer(i *instance) answer {
	a := answer{"NetworkInterfaceId": i.Interface, "SubnetId": i.Subnet, "VpcId": i.VPC, "OwnerId": i.Account,
		"Description": "", "Status": "in-use", "MacAddress": i.MAC, "PrivateIpAddress": i.Private, "SourceDestCheck": true,
		"InterfaceType": "interface", "Groups": c.groupList(i.Groups), "Ipv6Addresses": []any{},
		"Attachment": answer{"AttachmentId": idOf("eni-attach", i.Interface), "DeviceIndex": 0, "Status": "attached",
			"AttachTime": i.Launched, "DeleteOnTermination": true, "NetworkCardIndex": 0}}
	address := answer{"Primary": true, "PrivateIpAddress": i.Private}
	if public := i.publicAddress(); public != "" {
		association := answer{"IpOwnerId": "amazon", "PublicIp": public, "PublicDnsName": ""}
		a["Association"], address["Association"] = association, association
	}
	a["PrivateIpAddresses"] = []any{address}
	return a
}
