package access

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// permissions finds out which permissions of the policy the credentials lack: by
// simulation where that is allowed, else by trying EC2's calls with DryRun.
func (c *check) permissions(ctx context.Context) {
	if strings.HasSuffix(c.principal, ":root") {
		c.ok("aws-permission", "permissions", "the root user of an account has them all", c.p.AWS.Pos)
		return
	}
	before := len(c.findings)
	source, err := c.policySource(ctx)
	if err == nil {
		err = c.simulate(ctx, source)
	}
	if err != nil {
		// What was found before the simulation broke off is found again, or isn't known.
		c.findings = c.findings[:before]
		c.tryDry(ctx, err)
		return
	}
	if len(c.findings) == before {
		c.ok("aws-permission", "permissions", "simulated: all of gild schema iam", c.p.AWS.Pos)
	}
}

// refusal finds action and resource in what AWS, or our client, says of a denied call.
var refusal = regexp.MustCompile(`(?:to perform:|allow|denies) ([a-z0-9-]+:[A-Za-z0-9]+)(?: on(?: resource:)? (\S+))?`)

// refused returns what a denied call was refused for. It is the call's own action when AWS
// doesn't say, and resource is empty then.
func refused(err error, call string) (action, resource string) {
	m := refusal.FindStringSubmatch(err.Error())
	if m == nil {
		return call, ""
	}
	return m[1], strings.TrimRight(m[2], ".,;")
}

// touches reports whether a statement is about a resource; empty means any.
func (s Statement) touches(resource string) bool {
	return resource == "" || resource == "*" || slices.ContainsFunc(s.Resource, func(pattern string) bool { return matches(pattern, resource) })
}

// matches holds a text against a pattern in which * stands for any text, and ? for any
// character.
func matches(pattern, text string) bool {
	star, from := -1, 0 // the last *, and where what it stands for ends for now
	p, t := 0, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p, t = p+1, t+1
		case star >= 0:
			from++
			p, t = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
