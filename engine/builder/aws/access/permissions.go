package access

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/diag"
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

// unsure records actions that nothing could be found out about.
func (c *check) unsure(actions []string, why string, pos diag.Pos) {
	c.unknown("aws-permission", "permissions", fmt.Sprintf("%s: not looked at are %s", why, joined(sorted(actions))),
		"allow iam:SimulatePrincipalPolicy to "+c.caller()+", or compare with gild schema iam", pos)
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

// matches holds an ARN against a pattern in which * stands for any text.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	last := len(parts) - 1
	if !strings.HasPrefix(text, parts[0]) || !strings.HasSuffix(text[len(parts[0]):], parts[last]) {
		return false
	}
	text = text[len(parts[0]) : len(text)-len(parts[last])]
	for _, part := range parts[1:last] {
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}
