package sandbox

import (
	"strings"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

func stsOperations() map[string]operation {
	free := func(*call) []access { return nil }
	return map[string]operation{
		"GetCallerIdentity":          {run: getCallerIdentity, access: free},
		"AssumeRole":                 {run: assumeRole, access: assumeAccess},
		"DecodeAuthorizationMessage": {run: decodeAuthorizationMessage},
	}
}

func getCallerIdentity(c *call) (answer, error) {
	arn := c.principal()
	id := "AIDA" + idSuffix(arn)
	if role, session, ok := c.s.roleOf(arn); ok {
		id = role.ID + ":" + session
	}
	return answer{"UserId": id, "Account": c.account, "Arn": arn}, nil
}

func assumeAccess(c *call) []access {
	keys := map[string][]string{"sts:RoleSessionName": {c.p.str("RoleSessionName")}}
	if c.p.has("ExternalId") {
		keys["sts:ExternalId"] = []string{c.p.str("ExternalId")}
	}
	return []access{{"sts:AssumeRole", c.p.str("RoleArn"), keys}}
}

func assumeRole(c *call) (answer, error) {
	arn, session := c.p.str("RoleArn"), c.p.str("RoleSessionName")
	denied := func() error {
		return fail("AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.principal(), arn)
	}
	r := c.s.roleByARN(arn)
	if r == nil || !r.trusts(c.principal(), c.account, c.p.str("ExternalId")) {
		return nil, denied()
	}
	if c.p.has("Policy") || c.p.has("PolicyArns") {
		return nil, fail("ValidationError", "This sandbox has no session policies: leave out Policy and PolicyArns.")
	}
	seconds := int64(3600)
	if c.p.has("DurationSeconds") {
		seconds = c.p.num("DurationSeconds")
	}
	_, _, chained := c.s.roleOf(c.principal())
	switch {
	case chained && seconds > 3600:
		return nil, fail("ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	case seconds > r.MaxSession:
		return nil, fail("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	who := "arn:" + partition(c.region) + ":sts::" + r.Account + ":assumed-role/" + r.Name + "/" + session
	cred := c.s.newSession(r.Account, who, time.Duration(seconds)*time.Second)
	return answer{
		"Credentials": answer{"AccessKeyId": cred.AccessKey, "SecretAccessKey": cred.Secret, "SessionToken": cred.Token,
			"Expiration": cred.Expires},
		"AssumedRoleUser": answer{"AssumedRoleId": r.ID + ":" + session, "Arn": who},
	}, nil
}

// roleOf returns the role and the session's name behind the ARN of an assumed role. It
// needs the lock.
func (s *Server) roleOf(principal string) (r *role, session string, ok bool) {
	p := strings.SplitN(principal, ":", 6)
	if len(p) != 6 || p[2] != "sts" {
		return nil, "", false
	}
	parts := strings.Split(p[5], "/")
	if len(parts) != 3 || parts[0] != "assumed-role" {
		return nil, "", false
	}
	r = s.roles.get(p[4] + "/" + strings.ToLower(parts[1]))
	return r, parts[2], r != nil
}

func decodeAuthorizationMessage(c *call) (answer, error) {
	text, ok := decodeDenial(c.p.str("EncodedMessage"))
	if !ok {
		return nil, &wire.Error{Code: "InvalidAuthorizationMessageException", Message: "Message is not valid"}
	}
	return answer{"DecodedMessage": text}, nil
}
