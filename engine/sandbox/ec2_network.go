package sandbox

import (
	"cmp"
	"fmt"
	"slices"
)

// network is the default VPC of an account in a region. There are no others.
type network struct {
	Account, Region            string
	VPC, Gateway, Routes, DHCP string
	Group                      string // the default security group
	Subnets                    []subnet
	Hosts                      int // private addresses given out
}

type subnet struct{ ID, Zone, ZoneID, CIDR, Prefix string }

func (n *network) subnet(id string) *subnet {
	for i := range n.Subnets {
		if n.Subnets[i].ID == id {
			return &n.Subnets[i]
		}
	}
	return nil
}

// network returns the caller's, which is made at the first look at the region.
func (c *call) network() *network {
	at := scoped(c.account, c.region, "")
	if n := c.s.networks.get(at); n != nil {
		return n
	}
	id := func(prefix string, more ...string) string {
		return idOf(prefix, append([]string{c.account, c.region}, more...)...)
	}
	n := &network{Account: c.account, Region: c.region,
		VPC: id("vpc"), Gateway: id("igw"), Routes: id("rtb"), DHCP: id("dopt"), Group: id("sg")}
	r, _ := findRegion(c.region)
	for i, z := range r.allZones() {
		prefix := fmt.Sprintf("172.31.%d", i*16)
		n.Subnets = append(n.Subnets, subnet{ID: id("subnet", z.name), Zone: z.name, ZoneID: z.id, CIDR: prefix + ".0/20", Prefix: prefix})
	}
	c.s.networks.put(at, n)
	c.s.groups.put(n.Group, &group{ID: n.Group, Account: c.account, Region: c.region, VPC: n.VPC, Name: "default",
		Description: "default VPC security group",
		Rules: []rule{
			{ID: id("sgr", "in"), Protocol: "-1", From: -1, To: -1, Group: n.Group},
			{ID: id("sgr", "out"), Egress: true, Protocol: "-1", From: -1, To: -1, IPv4: "0.0.0.0/0"},
		}})
	return n
}

// host gives out a private address in a subnet. The first four and the last are the VPC's.
func (n *network) host(sub *subnet) string {
	n.Hosts++
	at := 4 + n.Hosts%4000
	var high int
	fmt.Sscanf(sub.Prefix, "172.31.%d", &high)
	return fmt.Sprintf("172.31.%d.%d", high+at/256, at%256)
}

// pickAll returns the objects a Describe call asks for, sorted by id: those named, each of
// which must be there, or all. see tells what the caller may know of.
func pickAll[T any](c *call, k kind, t *table[T], ids []string, see, match func(*T) bool) ([]*T, error) {
	var out []*T
	if len(ids) > 0 {
		ids = slices.Compact(slices.Sorted(slices.Values(ids)))
		for _, id := range ids {
			if err := k.check(id); err != nil {
				return nil, err
			}
			v := t.get(id)
			if v == nil || !see(v) || !c.sees(id) {
				return nil, k.notFound(id)
			}
			if match(v) {
				out = append(out, v)
			}
		}
		return out, nil
	}
	for id, v := range t.all {
		if see(v) && c.sees(id) && match(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// named checks that every id that is asked for is one of those there are.
func named(k kind, asked, have []string) error {
	for _, id := range asked {
		if err := k.check(id); err != nil {
			return err
		}
		if !slices.Contains(have, id) {
			return k.notFound(id)
		}
	}
	return nil
}

func describeVPCs(c *call) (answer, error) {
	n := c.network()
	match, err := matcher(c, getters[network]{
		"vpc-id":          one(func(n *network) string { return n.VPC }),
		"cidr":            one(func(*network) string { return "172.31.0.0/16" }),
		"cidr-block":      one(func(*network) string { return "172.31.0.0/16" }),
		"is-default":      one(func(*network) string { return "true" }),
		"isDefault":       one(func(*network) string { return "true" }),
		"state":           one(func(*network) string { return "available" }),
		"owner-id":        one(func(n *network) string { return n.Account }),
		"dhcp-options-id": one(func(n *network) string { return n.DHCP }),
	}, func(n *network) string { return n.VPC })
	if err != nil {
		return nil, err
	}
	if err := named(kindVPC, c.p.texts("VpcIds"), []string{n.VPC}); err != nil {
		return nil, err
	}
	vpcs := []any{}
	if match(n) {
		vpcs = append(vpcs, answer{"VpcId": n.VPC, "CidrBlock": "172.31.0.0/16", "State": "available", "IsDefault": true,
			"OwnerId": n.Account, "DhcpOptionsId": n.DHCP, "InstanceTenancy": "default", "Tags": tagList(c.tagsOf(n.VPC)),
			"CidrBlockAssociationSet": []any{answer{"AssociationId": idOf("vpc-cidr-assoc", n.VPC), "CidrBlock": "172.31.0.0/16",
				"CidrBlockState": answer{"State": "associated"}}}})
	}
	return answer{"Vpcs": vpcs}, nil
}

func describeSubnets(c *call) (answer, error) {
	n := c.network()
	at, err := c.page(5, 1000, "SubnetIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[subnet]{
		"subnet-id":               one(func(s *subnet) string { return s.ID }),
		"vpc-id":                  one(func(*subnet) string { return n.VPC }),
		"availability-zone":       one(func(s *subnet) string { return s.Zone }),
		"availabilityZone":        one(func(s *subnet) string { return s.Zone }),
		"availability-zone-id":    one(func(s *subnet) string { return s.ZoneID }),
		"cidr-block":              one(func(s *subnet) string { return s.CIDR }),
		"cidr":                    one(func(s *subnet) string { return s.CIDR }),
		"default-for-az":          one(func(*subnet) string { return "true" }),
		"defaultForAz":            one(func(*subnet) string { return "true" }),
		"map-public-ip-on-launch": one(func(*subnet) string { return "true" }),
		"state":                   one(func(*subnet) string { return "available" }),
		"owner-id":                one(func(*subnet) string { return n.Account }),
	}, func(s *subnet) string { return s.ID })
	if err != nil {
		return nil, err
	}
	var all []string
	for _, s := range n.Subnets {
		all = append(all, s.ID)
	}
	asked := c.p.texts("SubnetIds")
	if err := named(kindSubnet, asked, all); err != nil {
		return nil, err
	}
	var subs []subnet
	for _, s := range n.Subnets {
		if match(&s) && (len(asked) == 0 || slices.Contains(asked, s.ID)) {
			subs = append(subs, s)
		}
	}
	slices.SortFunc(subs, func(a, b subnet) int { return cmp.Compare(a.ID, b.ID) })
	subs, token := cut(c, at, subs, func(s subnet) string { return s.ID })
	out := answer{"Subnets": list(subs, func(s subnet) any { return c.subnetAnswer(n, s) })}
	set(out, "NextToken", token)
	return out, nil
}

func (c *call) subnetAnswer(n *network, s subnet) answer {
	used := 0
	for _, i := range c.s.instances.all {
		if i.Subnet == s.ID && i.State != "terminated" {
			used++
		}
	}
	return answer{"SubnetId": s.ID, "VpcId": n.VPC, "AvailabilityZone": s.Zone, "AvailabilityZoneId": s.ZoneID,
		"CidrBlock": s.CIDR, "State": "available", "DefaultForAz": true, "MapPublicIpOnLaunch": true,
		"OwnerId": n.Account, "AvailableIpAddressCount": 4091 - used, "AssignIpv6AddressOnCreation": false,
		"SubnetArn": c.arn("subnet", s.ID), "Tags": tagList(c.tagsOf(s.ID)), "Ipv6CidrBlockAssociationSet": []any{}}
}

func describeRouteTables(c *call) (answer, error) {
	n := c.network()
	match, err := matcher(c, getters[network]{
		"route-table-id":               one(func(n *network) string { return n.Routes }),
		"vpc-id":                       one(func(n *network) string { return n.VPC }),
		"association.main":             one(func(*network) string { return "true" }),
		"association.subnet-id":        func(*call, *network) []string { return nil },
		"route.gateway-id":             func(_ *call, n *network) []string { return []string{"local", n.Gateway} },
		"route.destination-cidr-block": func(*call, *network) []string { return []string{"172.31.0.0/16", "0.0.0.0/0"} },
		"owner-id":                     one(func(n *network) string { return n.Account }),
	}, func(n *network) string { return n.Routes })
	if err != nil {
		return nil, err
	}
	if err := named(kindRoutes, c.p.texts("RouteTableIds"), []string{n.Routes}); err != nil {
		return nil, err
	}
	out := []any{}
	if match(n) {
		out = append(out, answer{"RouteTableId": n.Routes, "VpcId": n.VPC, "OwnerId": n.Account, "Tags": tagList(c.tagsOf(n.Routes)),
			"Associations": []any{answer{"Main": true, "RouteTableAssociationId": idOf("rtbassoc", n.Routes), "RouteTableId": n.Routes,
				"AssociationState": answer{"State": "associated"}}},
			"Routes": []any{
				answer{"DestinationCidrBlock": "172.31.0.0/16", "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"},
				answer{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": n.Gateway, "Origin": "CreateRoute", "State": "active"},
			}})
	}
	return answer{"RouteTables": out}, nil
}

func describeInternetGateways(c *call) (answer, error) {
	n := c.network()
	match, err := matcher(c, getters[network]{
		"internet-gateway-id": one(func(n *network) string { return n.Gateway }),
		"attachment.vpc-id":   one(func(n *network) string { return n.VPC }),
		"attachment.state":    one(func(*network) string { return "available" }),
		"owner-id":            one(func(n *network) string { return n.Account }),
	}, func(n *network) string { return n.Gateway })
	if err != nil {
		return nil, err
	}
	if err := named(kindGateway, c.p.texts("InternetGatewayIds"), []string{n.Gateway}); err != nil {
		return nil, err
	}
	out := []any{}
	if match(n) {
		out = append(out, answer{"InternetGatewayId": n.Gateway, "OwnerId": n.Account, "Tags": tagList(c.tagsOf(n.Gateway)),
			"Attachments": []any{answer{"State": "attached", "VpcId": n.VPC}}})
	}
	return answer{"InternetGateways": out}, nil
}

// describeVPCEndpoints: a sandbox has none, and no operation to make one.
func describeVPCEndpoints(c *call) (answer, error) {
	for _, id := range c.p.texts("VpcEndpointIds") {
		return nil, fail("InvalidVpcEndpointId.NotFound", "The Vpc Endpoint Id '%s' does not exist", id)
	}
	return answer{"VpcEndpoints": []any{}}, nil
}
