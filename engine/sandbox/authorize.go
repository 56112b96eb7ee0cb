package sandbox

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// SetPolicy bounds what an access key may do by an IAM policy document; an empty document,
// or "null", takes the bounds away. A key without one may do everything, unless IAM has
// policies for its role.
func (s *Server) SetPolicy(accessKey, document string) error {
	if accessKey == "" {
		return errors.New("set a policy: name the access key it is for")
	}
	if document == "null" {
		document = ""
	}
	if document != "" {
		if _, err := parsePolicy(document); err != nil {
			return fmt.Errorf("set a policy of %s: %w", accessKey, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if document == "" {
		delete(s.policies, accessKey)
		return nil
	}
	s.policies[accessKey] = document
	return nil
}

// documents are the policies that bound the caller; bounded is false when none do.
func (c *call) documents() (docs []*policyDocument, bounded bool, err error) {
	var texts []string
	if text, ok := c.s.policies[c.r.AccessKey]; ok {
		texts = []string{text}
	} else if texts, ok = c.s.policyOf(c.principal()); !ok {
		return nil, false, nil
	}
	for _, text := range texts {
		doc, err := parsePolicy(text)
		if err != nil {
			return nil, true, err
		}
		docs = append(docs, doc)
	}
	return docs, true, nil
}

// authorize checks that the caller may make the call. Like AWS it does so before it looks
// at what the call is about, and a dry run ends here.
func (c *call) authorize(op operation) error {
	c.s.seedRegion(c.region)
	docs, bounded, err := c.documents()
	if err != nil {
		return err
	}
	if bounded {
		for _, a := range c.accesses(op) {
			a.Keys = merge(c.globalKeys(), a.Keys)
			if v := judge(docs, a); v != allowed {
				return c.denied(a, v)
			}
		}
	}
	if c.r.Service == "ec2" && c.p.yes("DryRun") {
		return &wire.Error{Code: "DryRunOperation", Message: "Request would have succeeded, but DryRun flag is set.", Status: http.StatusPreconditionFailed}
	}
	return nil
}

func (c *call) accesses(op operation) []access {
	switch {
	case op.access != nil:
		return op.access(c)
	case c.r.Service == "ec2":
		return c.ec2Accesses()
	}
	return []access{{c.r.Service + ":" + c.r.Action, "*", nil}}
}

// globalKeys are the condition keys that every request has. IAM has one region for all.
func (c *call) globalKeys() map[string][]string {
	region := c.region
	if c.r.Service == "iam" && partition(region) == "aws" {
		region = "us-east-1"
	}
	return merge(principalKeys(c.account, c.principal(), c.s), map[string][]string{"aws:RequestedRegion": {region}})
}

// principalKeys tell who asks. A session of a role has the role's ARN.
func principalKeys(account, principal string, s *Server) map[string][]string {
	if r, _, ok := s.roleOf(principal); ok {
		principal = r.ARN
	}
	return map[string][]string{"aws:PrincipalAccount": {account}, "aws:PrincipalArn": {principal}}
}

// denied words a refusal as the service does. EC2 adds a message that only
// sts:DecodeAuthorizationMessage can read.
func (c *call) denied(a access, v verdict) error {
	resource := ""
	if a.Resource != "" {
		resource = " on resource: " + a.Resource
	}
	why := "because no identity-based policy allows the " + a.Action + " action"
	if v == explicitDeny {
		why = "with an explicit deny in an identity-based policy"
	}
	text := fmt.Sprintf("User: %s is not authorized to perform: %s%s %s", c.principal(), a.Action, resource, why)
	switch c.r.Service {
	case "ec2":
		return &wire.Error{Code: "UnauthorizedOperation", Status: http.StatusForbidden, Message: "You are not authorized to perform this operation. " +
			text + ". Encoded authorization failure message: " + encodeDenial(c.principal(), a, v)}
	case "iam", "sts":
		return &wire.Error{Code: "AccessDenied", Status: http.StatusForbidden, Message: text}
	}
	return &wire.Error{Code: "AccessDeniedException", Status: http.StatusBadRequest, Message: text}
}

const denialMark = "gild-sandbox:"

// encodeDenial makes the message that says which permission was missing; decodeDenial reads it.
func encodeDenial(principal string, a access, v verdict) string {
	text, err := json.Marshal(map[string]any{"allowed": false, "explicitDeny": v == explicitDeny, "matchedStatements": map[string]any{"items": []any{}},
		"context": map[string]any{"principal": map[string]any{"arn": principal}, "action": a.Action, "resource": a.Resource,
			"conditions": map[string]any{"items": []any{}}}})
	if err != nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append([]byte(denialMark), text...))
}

func decodeDenial(encoded string) (text string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(raw), denialMark)
}
