package access

import (
	"context"

	"github.com/gildhq/gild/engine/spec"
)

// Permissions looks at the permissions alone, through IAM alone.
func Permissions(ctx context.Context, api IAM, principal string, p *spec.Pipeline) []Finding {
	c := &check{p: p, principal: principal, home: Clients{IAM: api}, report: report{denied: set{}}}
	c.known = Known{Account: "111122223333", Roles: map[string]string{}}
	c.profile(ctx)
	c.findings = nil
	c.want = gather(c.known, []*spec.Pipeline{p})
	c.permissions(ctx)
	return c.findings
}
