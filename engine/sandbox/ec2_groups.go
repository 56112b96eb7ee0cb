package sandbox

import (
	"slices"
	"strings"
	"time"
)

// group is a security group.
type group struct {
	ID, Account, Region, VPC string
	Name, Description        string
	Created                  time.Time
	Rules                    []rule
}

// group returns one of the caller's groups.
func (c *call) group(id string) (*group, error) {
	c.network()
	if err := kindGroup.check(id); err != nil {
		return nil, err
	}
	g := c.s.groups.get(id)
	if g == nil || !c.mine(g.Account, g.Region) || !c.sees(id) {
		return nil, kindGroup.notFound(id)
	}
	return g, nil
}

func (c *call) groupByName(name string) (*group, error) {
	c.network()
	for _, g := range c.s.groups.all {
		if g.Name == name && c.mine(g.Account, g.Region) && c.sees(g.ID) {
			return g, nil
		}
	}
	return nil, kindGroup.notFound(name)
}

// theGroup is the group that GroupId or GroupName names.
func (c *call) theGroup() (*group, error) {
	if id := c.p.str("GroupId"); id != "" {
		return c.group(id)
	}
	if name := c.p.str("GroupName"); name != "" {
		return c.groupByName(name)
	}
	return nil, fail("MissingParameter", "The request must contain the parameter groupName or groupId")
}

// groupList gives back groups as instances and interfaces name them.
func (c *call) groupList(ids []string) []any {
	out := []any{}
	for _, id := range ids {
		if g := c.s.groups.get(id); g != nil {
			out = append(out, answer{"GroupId": id, "GroupName": g.Name})
		}
	}
	return out
}

func createSecurityGroup(c *call) (answer, error) {
	name, description := c.p.str("GroupName"), c.p.str("Description")
	tags, err := c.tagsAtCreation(kindGroup.typ)
	if err != nil {
		return nil, err
	}
	n := c.network()
	switch vpc := c.p.or("VpcId", n.VPC); {
	case vpc != n.VPC && kindVPC.check(vpc) != nil:
		return nil, kindVPC.check(vpc)
	case vpc != n.VPC:
		return nil, kindVPC.notFound(vpc)
	case description == "":
		return nil, missing("GroupDescription")
	case name == "" || len(name) > 255 || strings.HasPrefix(name, "sg-"):
		return nil, invalidValue("Value (%s) for parameter GroupName is invalid. It must have 1 to 255 characters, and may not start with sg-.", name)
	case !groupText(name) || !groupText(description) || len(description) > 255:
		return nil, invalidValue("Value (%s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.", description)
	}
	count := 0
	for _, g := range c.s.groups.all {
		if !c.mine(g.Account, g.Region) {
			continue
		}
		if count++; g.Name == name {
			return nil, fail("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, n.VPC)
		}
	}
	if count >= c.s.cfg.Quotas.Groups {
		return nil, fail("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
	}
	g := &group{ID: newID(kindGroup.prefix), Account: c.account, Region: c.region, VPC: n.VPC, Name: name, Description: description, Created: c.now,
		Rules: []rule{{ID: newID(kindRule.prefix), Egress: true, Protocol: "-1", From: -1, To: -1, IPv4: "0.0.0.0/0"}}}
	c.s.groups.put(g.ID, g)
	c.setTags(g.ID, kindGroup.typ, tags[kindGroup.typ])
	c.born(g.ID)
	return answer{"GroupId": g.ID, "Tags": tagList(c.tagsOf(g.ID)), "SecurityGroupArn": c.arn("security-group", g.ID)}, nil
}

// groupText reports whether EC2 takes a text as the name or description of a group in a VPC.
func groupText(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" ._-:/()#,@[]+=&;{}!$*", r):
		default:
			return false
		}
	}
	return true
}

func groupGetters() getters[group] {
	permission := func(egress bool, get func(rule) string) func(*call, *group) []string {
		return func(_ *call, g *group) (out []string) {
			for _, r := range g.Rules {
				if r.Egress == egress {
					out = append(out, get(r))
				}
			}
			return out
		}
	}
	out := getters[group]{
		"group-id":    one(func(g *group) string { return g.ID }),
		"group-name":  one(func(g *group) string { return g.Name }),
		"description": one(func(g *group) string { return g.Description }),
		"vpc-id":      one(func(g *group) string { return g.VPC }),
		"owner-id":    one(func(g *group) string { return g.Account }),
	}
	for prefix, egress := range map[string]bool{"ip-permission.": false, "egress.ip-permission.": true} {
		out[prefix+"cidr"] = permission(egress, func(r rule) string { return r.IPv4 })
		out[prefix+"ipv6-cidr"] = permission(egress, func(r rule) string { return r.IPv6 })
		out[prefix+"group-id"] = permission(egress, func(r rule) string { return r.Group })
		out[prefix+"protocol"] = permission(egress, func(r rule) string { return r.Protocol })
		out[prefix+"from-port"] = permission(egress, func(r rule) string { return number(r.From) })
		out[prefix+"to-port"] = permission(egress, func(r rule) string { return number(r.To) })
	}
	return out
}

func describeSecurityGroups(c *call) (answer, error) {
	c.network()
	at, err := c.page(5, 1000, "GroupIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, groupGetters(), func(g *group) string { return g.ID })
	if err != nil {
		return nil, err
	}
	names := c.p.texts("GroupNames")
	for _, name := range names {
		if _, err := c.groupByName(name); err != nil {
			return nil, err
		}
	}
	see := func(g *group) bool { return c.mine(g.Account, g.Region) }
	found, err := pickAll(c, kindGroup, c.s.groups, c.p.texts("GroupIds"), see, func(g *group) bool {
		return match(g) && (len(names) == 0 || slices.Contains(names, g.Name))
	})
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(g *group) string { return g.ID })
	out := answer{"SecurityGroups": list(found, func(g *group) any {
		return answer{"GroupId": g.ID, "GroupName": g.Name, "Description": g.Description, "OwnerId": g.Account, "VpcId": g.VPC,
			"SecurityGroupArn": c.arn("security-group", g.ID), "Tags": tagList(c.tagsOf(g.ID)),
			"IpPermissions": permissions(g, false), "IpPermissionsEgress": permissions(g, true)}
	})}
	set(out, "NextToken", token)
	return out, nil
}

func deleteSecurityGroup(c *call) (answer, error) {
	g, err := c.theGroup()
	if err != nil {
		return nil, err
	}
	if g.ID == c.network().Group {
		return nil, fail("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.ID)
	}
	for _, i := range c.s.instances.all {
		if slices.Contains(i.Groups, g.ID) && i.State != "terminated" {
			return nil, fail("DependencyViolation", "resource %s has a dependent object", g.ID)
		}
	}
	for _, other := range c.s.groups.all {
		refers := func(r rule) bool { return r.Group == g.ID }
		if other.ID != g.ID && slices.ContainsFunc(other.Rules, refers) {
			return nil, fail("DependencyViolation", "resource %s has a dependent object", g.ID)
		}
	}
	for _, r := range g.Rules {
		c.setTags(r.ID, kindRule.typ, nil)
	}
	c.s.groups.remove(g.ID)
	c.setTags(g.ID, kindGroup.typ, nil)
	return answer{"Return": true, "GroupId": g.ID}, nil
}
