package sandbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// rule is one rule of a security group: one direction, one range of ports, one peer.
type rule struct {
	ID       string
	Egress   bool   `json:",omitempty"`
	Protocol string // "tcp", "udp", "icmp", "icmpv6", a number, or "-1" for all
	// From and To are ports, or type and code of ICMP; -1 is all.
	From, To int64
	// One of these is the peer.
	IPv4, IPv6, Group, PrefixList string
	Peer                          string // the account of Group, when it isn't the own one
	Description                   string
}

// same reports whether two rules let the same through.
func (r rule) same(o rule) bool {
	r.ID, o.ID, r.Description, o.Description = "", "", "", ""
	return r == o
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// rule finds one of the caller's rules by its id.
func (c *call) rule(id string) (*group, *rule) {
	for _, g := range c.s.groups.all {
		for i := range g.Rules {
			if g.Rules[i].ID == id && c.mine(g.Account, g.Region) {
				return g, &g.Rules[i]
			}
		}
	}
	return nil, nil
}

// rulesOf reads the rules of an Authorize or Revoke call, in both of the forms it has.
func (c *call) rulesOf(egress bool) ([]rule, error) {
	perms := c.p.subs("IpPermissions")
	if c.p.has("IpProtocol") || c.p.has("CidrIp") || c.p.has("SourceSecurityGroupName") {
		if len(perms) > 0 {
			return nil, invalidCombination("The parameter 'ipProtocol' may not be used in combination with 'ipPermissions'")
		}
		perms = []params{c.flatPermission()}
	}
	if len(perms) == 0 {
		return nil, missing("ipPermissions")
	}
	var out []rule
	for _, p := range perms {
		rules, err := c.rulesOfPermission(p, egress)
		if err != nil {
			return nil, err
		}
		out = append(out, rules...)
	}
	return out, nil
}

// flatPermission is the older form, in which the call has one rule.
func (c *call) flatPermission() params {
	p := params{"IpProtocol": c.p.or("IpProtocol", "-1")}
	for _, name := range []string{"FromPort", "ToPort"} {
		if c.p.has(name) {
			p[name] = c.p.num(name)
		}
	}
	if cidr := c.p.str("CidrIp"); cidr != "" {
		p["IpRanges"] = []any{map[string]any{"CidrIp": cidr}}
	}
	if name := c.p.str("SourceSecurityGroupName"); name != "" {
		p["UserIdGroupPairs"] = []any{map[string]any{"GroupName": name}}
	}
	return p
}

func (c *call) rulesOfPermission(p params, egress bool) ([]rule, error) {
	base, err := portsOf(p)
	if err != nil {
		return nil, err
	}
	base.Egress = egress
	var out []rule
	add := func(p params, change func(*rule)) {
		r := base
		r.Description = p.str("Description")
		change(&r)
		out = append(out, r)
	}
	for _, p := range p.subs("IpRanges") {
		cidr, err := checkCIDR(p.str("CidrIp"), true)
		if err != nil {
			return nil, err
		}
		add(p, func(r *rule) { r.IPv4 = cidr })
	}
	for _, p := range p.subs("Ipv6Ranges") {
		cidr, err := checkCIDR(p.str("CidrIpv6"), false)
		if err != nil {
			return nil, err
		}
		add(p, func(r *rule) { r.IPv6 = cidr })
	}
	for _, p := range p.subs("UserIdGroupPairs") {
		peer, err := c.peerGroup(p)
		if err != nil {
			return nil, err
		}
		add(p, func(r *rule) { r.Group = peer })
	}
	for _, p := range p.subs("PrefixListIds") {
		return nil, fail("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", p.str("PrefixListId"))
	}
	if len(out) == 0 {
		return nil, fail("InvalidPermission.Malformed", "The rule has no source or destination: give a range or a group.")
	}
	for _, r := range out {
		if !groupText(r.Description) || len(r.Description) > 255 {
			return nil, invalidValue("Invalid rule description. Valid descriptions are strings less than 256 characters from the following set:  a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*")
		}
	}
	return out, nil
}

// peerGroup is the group of another rule's end.
func (c *call) peerGroup(p params) (string, error) {
	if account := p.str("UserId"); account != "" && account != c.account {
		return "", invalidValue("The sandbox has no peered VPCs, so a rule can't name a group of account %s.", account)
	}
	if id := p.str("GroupId"); id != "" {
		g, err := c.group(id)
		if err != nil {
			return "", err
		}
		return g.ID, nil
	}
	g, err := c.groupByName(p.str("GroupName"))
	if err != nil {
		return "", err
	}
	return g.ID, nil
}

// portsOf reads protocol and ports.
func portsOf(p params) (rule, error) {
	r := rule{Protocol: strings.ToLower(p.str("IpProtocol")), From: -1, To: -1}
	names := map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}
	if name, ok := names[r.Protocol]; ok {
		r.Protocol = name
	}
	switch r.Protocol {
	case "tcp", "udp":
		if !p.has("FromPort") || !p.has("ToPort") {
			return r, invalidValue("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		r.From, r.To = p.num("FromPort"), p.num("ToPort")
		if r.From == -1 && r.To == -1 {
			r.From, r.To = 0, 65535
		}
		if r.From < 0 || r.To > 65535 || r.From > r.To {
			return r, invalidValue("Invalid value '%d-%d' for portRange. Must be from 0 to 65535, the lower one first.", r.From, r.To)
		}
	case "icmp", "icmpv6":
		if p.has("FromPort") {
			r.From = p.num("FromPort")
		}
		if p.has("ToPort") {
			r.To = p.num("ToPort")
		}
	case "":
		return r, missing("ipProtocol")
	default:
		if n, err := strconv.Atoi(r.Protocol); err != nil || n < -1 || n > 255 {
			return r, fail("InvalidPermission.Malformed", "Unsupported IP protocol \"%s\"", r.Protocol)
		}
	}
	return r, nil
}

func checkCIDR(text string, four bool) (string, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4() != four {
		return "", invalidValue("CIDR block %s is malformed", text)
	}
	return prefix.Masked().String(), nil
}

// authorize adds rules in one direction.
func authorizeRules(egress bool) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		g, err := c.theGroup()
		if err != nil {
			return nil, err
		}
		rules, err := c.rulesOf(egress)
		if err != nil {
			return nil, err
		}
		tags, err := c.tagsAtCreation(kindRule.typ)
		if err != nil {
			return nil, err
		}
		count := len(rules)
		for _, have := range g.Rules {
			if have.Egress == egress {
				count++
			}
			for _, r := range rules {
				if r.same(have) {
					return nil, fail("InvalidPermission.Duplicate", "the specified rule \"peer: %s, %s, ALLOW\" already exists", r.peer(), r.words())
				}
			}
		}
		if count > c.s.cfg.Quotas.Rules {
			return nil, fail("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		for i := range rules {
			rules[i].ID = newID(kindRule.prefix)
			c.setTags(rules[i].ID, kindRule.typ, tags[kindRule.typ])
		}
		g.Rules = append(g.Rules, rules...)
		c.s.groups.put(g.ID, g)
		c.s.openPorts(g.ID)
		return answer{"Return": true, "SecurityGroupRules": list(rules, func(r rule) any { return c.ruleAnswer(g, r) })}, nil
	}
}

func (r rule) peer() string { return r.IPv4 + r.IPv6 + r.Group }

func (r rule) words() string {
	if r.Protocol == "-1" {
		return "ALL"
	}
	return fmt.Sprintf("%s, from port: %d, to port: %d", strings.ToUpper(r.Protocol), r.From, r.To)
}

// revokeRules removes rules in one direction, by id or by what they say.
func revokeRules(egress bool) func(*call) (answer, error) {
	return func(c *call) (answer, error) {
		g, err := c.theGroup()
		if err != nil {
			return nil, err
		}
		gone, err := c.rulesToRevoke(g, egress)
		if err != nil {
			return nil, err
		}
		var revoked []any
		for _, r := range gone {
			at := slices.IndexFunc(g.Rules, func(have rule) bool { return have.ID == r.ID })
			g.Rules = slices.Delete(g.Rules, at, at+1)
			c.setTags(r.ID, kindRule.typ, nil)
			a := answer{"SecurityGroupRuleId": r.ID, "GroupId": g.ID, "IsEgress": egress, "IpProtocol": r.Protocol, "FromPort": r.From, "ToPort": r.To}
			set(a, "CidrIpv4", r.IPv4)
			set(a, "CidrIpv6", r.IPv6)
			set(a, "ReferencedGroupId", r.Group)
			set(a, "Description", r.Description)
			revoked = append(revoked, a)
		}
		c.s.groups.put(g.ID, g)
		c.s.openPorts(g.ID)
		return answer{"Return": true, "RevokedSecurityGroupRules": revoked}, nil
	}
}

func (c *call) rulesToRevoke(g *group, egress bool) (gone []rule, err error) {
	ids := c.p.texts("SecurityGroupRuleIds")
	for _, id := range ids {
		owner, r := c.rule(id)
		if owner != g || r.Egress != egress {
			return nil, kindRule.notFound(id)
		}
		gone = append(gone, *r)
	}
	if len(ids) > 0 {
		return gone, nil
	}
	rules, err := c.rulesOf(egress)
	if err != nil {
		return nil, err
	}
	for _, r := range rules {
		at := slices.IndexFunc(g.Rules, r.same)
		if at < 0 {
			return nil, fail("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
		gone = append(gone, g.Rules[at])
	}
	return gone, nil
}

func (c *call) ruleAnswer(g *group, r rule) answer {
	a := answer{"SecurityGroupRuleId": r.ID, "GroupId": g.ID, "GroupOwnerId": g.Account, "IsEgress": r.Egress,
		"IpProtocol": r.Protocol, "FromPort": r.From, "ToPort": r.To, "Tags": tagList(c.tagsOf(r.ID)),
		"SecurityGroupRuleArn": c.arn("security-group-rule", r.ID)}
	set(a, "CidrIpv4", r.IPv4)
	set(a, "CidrIpv6", r.IPv6)
	set(a, "Description", r.Description)
	if r.Group != "" {
		a["ReferencedGroupInfo"] = answer{"GroupId": r.Group, "UserId": g.Account, "VpcId": g.VPC}
	}
	return a
}

// permissions gives the rules of one direction back in the older form: peers of one range
// of ports together.
func permissions(g *group, egress bool) []any {
	type at struct {
		protocol string
		from, to int64
	}
	out, index := []any{}, map[at]answer{}
	for _, r := range g.Rules {
		if r.Egress != egress {
			continue
		}
		key := at{r.Protocol, r.From, r.To}
		p := index[key]
		if p == nil {
			p = answer{"IpProtocol": r.Protocol, "IpRanges": []any{}, "Ipv6Ranges": []any{}, "UserIdGroupPairs": []any{}, "PrefixListIds": []any{}}
			if r.Protocol != "-1" {
				p["FromPort"], p["ToPort"] = r.From, r.To
			}
			index[key] = p
			out = append(out, p)
		}
		name, peer := "IpRanges", answer{"CidrIp": r.IPv4}
		switch {
		case r.IPv6 != "":
			name, peer = "Ipv6Ranges", answer{"CidrIpv6": r.IPv6}
		case r.Group != "":
			name, peer = "UserIdGroupPairs", answer{"GroupId": r.Group, "UserId": g.Account}
		}
		set(peer, "Description", r.Description)
		p[name] = append(p[name].([]any), peer)
	}
	return out
}

// groupRule is a rule with its group.
type groupRule struct {
	group *group
	rule  rule
}

func describeSecurityGroupRules(c *call) (answer, error) {
	c.network()
	at, err := c.page(5, 1000, "SecurityGroupRuleIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[groupRule]{
		"group-id":               one(func(r *groupRule) string { return r.group.ID }),
		"security-group-rule-id": one(func(r *groupRule) string { return r.rule.ID }),
	}, func(r *groupRule) string { return r.rule.ID })
	if err != nil {
		return nil, err
	}
	asked := c.p.texts("SecurityGroupRuleIds")
	for _, id := range asked {
		if err := kindRule.check(id); err != nil {
			return nil, err
		}
		if _, r := c.rule(id); r == nil {
			return nil, kindRule.notFound(id)
		}
	}
	var found []groupRule
	for _, g := range c.s.groups.all {
		if !c.mine(g.Account, g.Region) {
			continue
		}
		for _, r := range g.Rules {
			row := groupRule{g, r}
			if match(&row) && (len(asked) == 0 || slices.Contains(asked, r.ID)) {
				found = append(found, row)
			}
		}
	}
	slices.SortFunc(found, func(a, b groupRule) int { return strings.Compare(a.rule.ID, b.rule.ID) })
	found, token := cut(c, at, found, func(r groupRule) string { return r.rule.ID })
	out := answer{"SecurityGroupRules": list(found, func(r groupRule) any { return c.ruleAnswer(r.group, r.rule) })}
	set(out, "NextToken", token)
	return out, nil
}
