package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
)

// policySource returns the ARN of the user or role whose policies decide.
func (c *check) policySource(ctx context.Context) (string, error) {
	parts := strings.SplitN(c.principal, ":", 6)
	if len(parts) < 6 {
		return "", fmt.Errorf("%q is no ARN", c.principal)
	}
	kind, rest, _ := strings.Cut(parts[5], "/")
	switch {
	case kind == "user" && parts[2] == "iam":
		return c.principal, nil
	case kind != "assumed-role":
		return "", fmt.Errorf("the policies of %s can't be simulated", c.principal)
	}
	role, _, _ := strings.Cut(rest, "/")
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The ARN of a session lacks the path of its role.
	out, err := c.home.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: &role})
	if err != nil {
		return fmt.Sprintf("arn:%s:iam::%s:role/%s", parts[1], parts[4], role), nil
	}
	return aws.ToString(out.Role.Arn), nil
}

// simulate asks IAM about each statement of the policy. A statement asks about what it
// allows with the conditions under which it does.
func (c *check) simulate(ctx context.Context, source string) error {
	for _, s := range c.known.Policy(c.p).Statement {
		results, err := c.simulated(ctx, source, s)
		if err != nil {
			return err
		}
		c.judge(s, results)
	}
	return nil
}

// simulated returns the decision for each action and resource of a statement.
func (c *check) simulated(ctx context.Context, source string, s Statement) ([]iamtypes.EvaluationResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var resources []string
	for _, r := range s.Resource {
		resources = append(resources, c.example(r))
	}
	pages := iam.NewSimulatePrincipalPolicyPaginator(c.home.IAM, &iam.SimulatePrincipalPolicyInput{
		PolicySourceArn: &source, ActionNames: s.Action, ResourceArns: resources, ContextEntries: c.entries(s.Condition),
	})
	var all []iamtypes.EvaluationResult
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, page.EvaluationResults...)
	}
	if len(all) == 0 {
		return nil, errors.New("the simulation has no results")
	}
	return all, nil
}

// judge records what of a statement is denied.
func (c *check) judge(s Statement, results []iamtypes.EvaluationResult) {
	denied := Statement{Sid: s.Sid, Effect: s.Effect, Condition: s.Condition}
	var forbidden, guesses set = set{}, set{}
	for _, r := range results {
		action := aws.ToString(r.EvalActionName)
		for resource, decision := range decisions(r) {
			if decision == iamtypes.PolicyEvaluationDecisionTypeAllowed || !authorizedOn(action, resource) {
				continue
			}
			denied.Action = append(denied.Action, action)
			denied.Resource = append(denied.Resource, s.patternsOf(resource)...)
			if decision == iamtypes.PolicyEvaluationDecisionTypeExplicitDeny {
				forbidden.add(action)
			}
			guesses.add(r.MissingContextValues...)
		}
	}
	if len(denied.Action) == 0 {
		return
	}
	denied.Action, denied.Resource = sorted(denied.Action), sorted(denied.Resource)
	last := c.lacks([]Statement{denied})
	if len(forbidden) > 0 {
		last.Detail += "; a policy, boundary or organization denies " + joined(forbidden.sorted())
		last.Fix = "remove that denial: it can't be outweighed"
	}
	if len(guesses) > 0 {
		last.Detail += "; unless the request's " + joined(guesses.sorted()) + " makes it allowed"
		last.Optional, last.Unknown = true, true
	}
}

// decisions are by resource.
func decisions(r iamtypes.EvaluationResult) map[string]iamtypes.PolicyEvaluationDecisionType {
	if len(r.ResourceSpecificResults) == 0 {
		return map[string]iamtypes.PolicyEvaluationDecisionType{aws.ToString(r.EvalResourceName): r.EvalDecision}
	}
	out := map[string]iamtypes.PolicyEvaluationDecisionType{}
	for _, s := range r.ResourceSpecificResults {
		out[aws.ToString(s.EvalResourceName)] = s.EvalResourceDecision
	}
	return out
}

// authorizedOn reports whether AWS asks for an action on that type of resource at all.
func authorizedOn(action, resource string) bool {
	types := resourceTypes()[action]
	if resource == "*" || len(types) == 0 {
		return true
	}
	_, ok := types[typeOf(resource)]
	return ok
}

// typeOf returns the type in an ARN: "instance" of arn:aws:ec2:eu-west-1:111122223333:instance/i-1.
func typeOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	kind, _, _ := strings.Cut(parts[len(parts)-1], "/")
	return kind
}

// patternsOf are the resources of a statement that an example was made of.
func (s Statement) patternsOf(resource string) []string {
	return slices.DeleteFunc(slices.Clone(s.Resource), func(p string) bool { return !matches(p, resource) })
}

// example makes an ARN of a pattern, as it could be of a thing.
func (c *check) example(pattern string) string {
	if pattern == "*" {
		return pattern
	}
	parts := strings.SplitN(pattern, ":", 6)
	if parts[3] == "*" {
		parts[3] = c.p.AWS.Region
	}
	if parts[4] == "*" {
		parts[4] = c.known.Account
	}
	parts[5] = strings.NewReplacer("*", "0123456789abcdef0", "?", "0").Replace(parts[5])
	return strings.Join(parts, ":")
}

// entries are the facts of a request that fulfils a condition.
func (c *check) entries(condition Condition) []iamtypes.ContextEntry {
	var entries []iamtypes.ContextEntry
	add := func(key string, kind iamtypes.ContextKeyTypeEnum, values ...string) {
		entries = append(entries, iamtypes.ContextEntry{ContextKeyName: &key, ContextKeyType: kind, ContextKeyValues: values})
	}
	for _, operator := range keys(condition) {
		for _, key := range keys(condition[operator]) {
			value := condition[operator][key][0]
			switch {
			case strings.HasPrefix(operator, "ForAnyValue:"):
				add(key, iamtypes.ContextKeyTypeEnumStringList, value)
			case strings.HasPrefix(operator, "Bool"):
				add(key, iamtypes.ContextKeyTypeEnumBoolean, value)
			case strings.HasPrefix(operator, "Arn"):
				add(key, iamtypes.ContextKeyTypeEnumString, c.example(value))
			case value == "?*":
				add(key, iamtypes.ContextKeyTypeEnumString, "doctor")
			default:
				add(key, iamtypes.ContextKeyTypeEnumString, strings.ReplaceAll(value, "${aws:PrincipalAccount}", c.known.Account))
			}
		}
	}
	if condition["StringEquals"]["aws:RequestedRegion"] == nil {
		add("aws:RequestedRegion", iamtypes.ContextKeyTypeEnumString, c.p.AWS.Region)
	}
	return entries
}
