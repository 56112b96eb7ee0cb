package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/gildhq/gild/engine/builder/aws/client"
	"github.com/gildhq/gild/engine/builder/aws/publisher"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// callTimeout bounds each look at AWS.
const callTimeout = time.Minute

// check is one pipeline while it is looked at.
type check struct {
	report
	cloud Cloud
	home  Clients
	p     *spec.Pipeline
	want  *want
	known Known
	// principal is the ARN of the credentials.
	principal string
	// base is the AMI that the base was resolved to; subnet and vpc are where an instance
	// would be put, types those that can be launched. Empty when unknown.
	base, subnet, vpc string
	types             []string
	// broken is set when something that a launch names isn't there.
	broken bool
}

// Check asks AWS whether a pipeline can be built with these credentials: the credentials,
// the regions, instance types, base, network, keys, instance profile and permissions. It
// changes nothing; what would is asked with DryRun. The findings stand in the order of
// looking; what depends on something that isn't there isn't looked for. Cancelling ctx
// leaves the rest unknown.
//
// Quotas aren't among it: those that stop a build (vCPUs) are told by Service Quotas only.
func Check(ctx context.Context, cloud Cloud, p *spec.Pipeline) []Finding {
	c := &check{cloud: cloud, p: p, report: report{denied: set{}}, known: Known{Roles: map[string]string{}}}
	if p.AWS == nil {
		c.bad("aws-builder", "builders.aws", "the pipeline doesn't say how to build on AWS", "add builders.aws with a region", p.Base.Pos)
		return c.findings
	}
	home, err := cloud.Region(ctx, p.AWS.Region)
	if err != nil {
		c.bad("aws-credentials", "credentials", tell(err), "", p.AWS.Pos)
		return c.findings
	}
	c.home = home
	if !c.credentials(ctx) || !c.regions(ctx) {
		return c.findings
	}
	c.want = gather(c.known, []*spec.Pipeline{p})
	c.network(ctx)
	c.instanceTypes(ctx)
	c.image(ctx)
	c.keys(ctx)
	c.profile(ctx)
	c.want = gather(c.known, []*spec.Pipeline{p})
	c.permissions(ctx)
	return c.findings
}

// credentials reports whether AWS knows them.
func (c *check) credentials(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := c.home.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil && c.elsewhere() != "" && !expired(err) {
		// Credentials are global, but a region that isn't enabled, or isn't one, refuses them.
		if clients, e := c.cloud.Region(ctx, c.elsewhere()); e == nil {
			if o, e := clients.STS.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); e == nil {
				out, err = o, nil
			}
		}
	}
	if err != nil {
		c.bad("aws-credentials", "credentials", tell(err), "", c.p.AWS.Pos)
		return false
	}
	c.known.Account, c.principal = aws.ToString(out.Account), aws.ToString(out.Arn)
	c.want = gather(c.known, []*spec.Pipeline{c.p})
	c.ok("aws-credentials", "credentials", fmt.Sprintf("%s in account %s", c.principal, c.known.Account), c.p.AWS.Pos)
	return true
}

// elsewhere is a region of the partition that can't be switched off, or empty when the
// pipeline is in it or none is known.
func (c *check) elsewhere() string {
	region := map[string]string{"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}[publisher.Partition(c.p.AWS.Region)]
	if region == c.p.AWS.Region {
		return ""
	}
	return region
}

// place is where the file asks for a row's feature.
func (r row) place(p *spec.Pipeline) diag.Pos {
	if r.at == nil {
		return p.AWS.Pos
	}
	return r.at(p)
}

// isDenied tells a refusal for want of a permission from other failures.
func isDenied(err error) bool {
	return client.HasCode(err, "UnauthorizedOperation", "AccessDenied", "AccessDeniedException")
}

func expired(err error) bool {
	return client.HasCode(err, "ExpiredToken", "ExpiredTokenException", "RequestExpired")
}

// tell shortens what the SDK says to what helps.
func tell(err error) string {
	var ours *client.Error
	var api smithy.APIError
	switch {
	case errors.As(err, &ours):
		return ours.Error()
	case errors.As(err, &api):
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	return err.Error()
}

func joined(values []string) string { return strings.Join(values, ", ") }
