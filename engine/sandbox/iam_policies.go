package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// managedPolicies are the documents of the policies of AWS that can be attached, by name.
// They are shorter than AWS's where they allow services that the sandbox doesn't have.
func managedPolicies() map[string]string {
	allow := func(actions ...string) string {
		text, err := json.Marshal(actions)
		if err != nil {
			return ""
		}
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":` + string(text) + `,"Resource":"*"}]}`
	}
	agent := []string{
		"ssm:DescribeAssociation", "ssm:GetDeployablePatchSnapshotForInstance", "ssm:GetDocument", "ssm:DescribeDocument", "ssm:GetManifest",
		"ssm:GetParameter", "ssm:GetParameters", "ssm:ListAssociations", "ssm:ListInstanceAssociations", "ssm:PutInventory",
		"ssm:PutComplianceItems", "ssm:PutConfigurePackageResult", "ssm:UpdateAssociationStatus", "ssm:UpdateInstanceAssociationStatus",
		"ssm:UpdateInstanceInformation", "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel",
		"ssmmessages:OpenDataChannel", "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
		"ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
	}
	return map[string]string{
		"AdministratorAccess":          allow("*"),
		"AmazonEC2FullAccess":          allow("ec2:*"),
		"AmazonEC2ReadOnlyAccess":      allow("ec2:Describe*"),
		"AmazonSSMFullAccess":          allow("ssm:*", "ssmmessages:*", "ec2messages:*"),
		"AmazonSSMManagedInstanceCore": allow(agent...),
		"IAMFullAccess":                allow("iam:*"),
	}
}

// managedName returns the name of a managed policy by its ARN.
func managedName(arn string) (name string, ok bool) {
	p := strings.SplitN(arn, ":", 6)
	if len(p) != 6 || p[2] != "iam" || p[4] != "aws" {
		return "", false
	}
	name = p[5][strings.LastIndex(p[5], "/")+1:]
	_, ok = managedPolicies()[name]
	return name, ok && p[5] == "policy/"+name
}

// documents are what bounds whoever has the role.
func (r *role) documents() (out []string) {
	for _, arn := range r.Attached {
		if name, ok := managedName(arn); ok {
			out = append(out, managedPolicies()[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Inline)) {
		out = append(out, r.Inline[name])
	}
	return out
}

// policiesOf returns what IAM lets a principal do. Of users it knows nothing.
func (s *Server) policiesOf(principal string) (documents []string, known bool) {
	if r := s.roleByARN(principal); r != nil {
		return r.documents(), true
	}
	if !strings.Contains(principal, ":assumed-role/") {
		return nil, false
	}
	if r, _, ok := s.roleOf(principal); ok {
		return r.documents(), true
	}
	return nil, true // the role is gone, and what it allowed with it
}

// roleAllows reports whether a role may do something to any resource.
func (s *Server) roleAllows(arn, action string) bool {
	texts, known := s.policiesOf(arn)
	if !known {
		return false
	}
	var docs []*policyDocument
	for _, text := range texts {
		doc, err := parsePolicy(text)
		if err != nil {
			s.workFailed("read the policies of a role", arn, err)
			return false
		}
		docs = append(docs, doc)
	}
	return judge(docs, access{Action: action}) == allowed
}

func attachRolePolicy(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	arn := c.p.str("PolicyArn")
	if _, ok := managedName(arn); !ok {
		return nil, noEntity("Policy %s does not exist or is not attachable.", arn)
	}
	if !slices.Contains(r.Attached, arn) {
		r.Attached = append(r.Attached, arn)
		c.saveRole(r)
	}
	return answer{}, nil
}

func detachRolePolicy(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	arn := c.p.str("PolicyArn")
	at := slices.Index(r.Attached, arn)
	if at < 0 {
		return nil, noEntity("Policy %s was not found.", arn)
	}
	r.Attached = slices.Delete(r.Attached, at, at+1)
	c.saveRole(r)
	return answer{}, nil
}

func listAttachedRolePolicies(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	name := func(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }
	return iamPage(c, "AttachedPolicies", slices.Clone(r.Attached), name,
		func(arn string) any { return answer{"PolicyName": name(arn), "PolicyArn": arn} }), nil
}

func putRolePolicy(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	if _, err := parsePolicy(c.p.str("PolicyDocument")); err != nil {
		return nil, malformed(err)
	}
	r.Inline[c.p.str("PolicyName")] = c.p.str("PolicyDocument")
	c.saveRole(r)
	return answer{}, nil
}

func deleteRolePolicy(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	name := c.p.str("PolicyName")
	if _, ok := r.Inline[name]; !ok {
		return nil, noEntity("The role policy with name %s cannot be found.", name)
	}
	delete(r.Inline, name)
	c.saveRole(r)
	return answer{}, nil
}

func listRolePolicies(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	same := func(name string) string { return name }
	return iamPage(c, "PolicyNames", slices.Collect(maps.Keys(r.Inline)), same, func(name string) any { return name }), nil
}

// trustPolicy is the policy that says who may assume a role.
type trustPolicy struct {
	Version   string
	ID        string `json:"Id"`
	Statement oneOrMore[trustStatement]
}

type trustStatement struct {
	Sid, Effect string
	Principal   principals
	Action      oneOrMore[string]
	Condition   map[string]map[string]oneOrMore[any]
}

// principals are "*" or lists by type: AWS, Service, Federated.
type principals map[string]oneOrMore[string]

func (p *principals) UnmarshalJSON(text []byte) error {
	if string(text) == `"*"` {
		*p = principals{"AWS": {"*"}}
		return nil
	}
	return json.Unmarshal(text, (*map[string]oneOrMore[string])(p))
}

func parseTrust(text string) (*trustPolicy, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var doc trustPolicy
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("read the trust policy: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read the trust policy: there is more behind it")
	}
	for _, st := range doc.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" || len(st.Principal) == 0 || len(st.Action) == 0 {
			return nil, errors.New("read the trust policy: a statement needs Effect, Principal and Action")
		}
		for op := range st.Condition {
			if _, ok := conditionTest(op); !ok {
				return nil, fmt.Errorf("read the trust policy: the sandbox doesn't know the condition operator %q", op)
			}
		}
	}
	if len(doc.Statement) == 0 {
		return nil, errors.New("read the trust policy: it has no statement")
	}
	return &doc, nil
}

// trusts reports whether a role lets a principal assume it.
func (r *role) trusts(principal, account, externalID string) bool {
	doc, err := parseTrust(r.Trust)
	if err != nil {
		return false
	}
	a := access{Action: "sts:AssumeRole", Keys: map[string][]string{"aws:PrincipalArn": {principal}, "aws:PrincipalAccount": {account}}}
	if externalID != "" {
		a.Keys["sts:ExternalId"] = []string{externalID}
	}
	trusted := false
	for _, st := range doc.Statement {
		who := slices.ContainsFunc(st.Principal["AWS"], func(p string) bool {
			return p == "*" || p == account || p == principal || strings.HasSuffix(p, ":iam::"+account+":root")
		})
		if !who || !(statement{Action: st.Action, Condition: st.Condition}).matches(a) {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		trusted = true
	}
	return trusted
}

// simulatePrincipalPolicy judges actions without doing them.
func simulatePrincipalPolicy(c *call) (answer, error) {
	docs, bounded, err := c.simulated()
	if err != nil {
		return nil, err
	}
	keys := principalKeys(c.account, c.p.str("PolicySourceArn"), c.s)
	for _, e := range c.p.subs("ContextEntries") {
		keys[e.str("ContextKeyName")] = e.texts("ContextKeyValues")
	}
	resources := c.p.texts("ResourceArns")
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	var results []answer
	for _, action := range c.p.texts("ActionNames") {
		if !strings.Contains(action, ":") {
			return nil, fail("InvalidInput", "Invalid Action: %s", action)
		}
		for _, resource := range resources {
			decision := "allowed"
			if bounded {
				decision = judge(docs, access{Action: action, Resource: resource, Keys: keys}).word()
			}
			results = append(results, answer{"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision,
				"MatchedStatements": []any{}, "MissingContextValues": []any{}})
		}
	}
	return c.resultPage(results), nil
}

func (v verdict) word() string {
	switch v {
	case allowed:
		return "allowed"
	case explicitDeny:
		return "explicitDeny"
	}
	return "implicitDeny"
}

// resultPage cuts results by their number, since they have an order of their own.
func (c *call) resultPage(results []answer) answer {
	at := map[string]int{}
	var names []string
	for i := range results {
		name := fmt.Sprintf("%06d", i)
		at[name] = i
		names = append(names, name)
	}
	same := func(name string) string { return name }
	return iamPage(c, "EvaluationResults", names, same, func(name string) any { return results[at[name]] })
}

// simulated are the policies of the principal that a simulation is about.
func (c *call) simulated() (docs []*policyDocument, bounded bool, err error) {
	source := c.p.str("PolicySourceArn")
	switch r, _, assumed := c.s.roleOf(c.principal()); {
	case source == c.principal() || assumed && source == r.ARN:
		docs, bounded, err = c.documents()
	case strings.HasSuffix(source, ":iam::"+c.account+":user/"+DefaultKey):
	default:
		texts, known := c.s.policiesOf(source)
		if !known {
			return nil, false, noEntity("%s cannot be found.", source)
		}
		bounded = true
		for _, text := range texts {
			doc, err := parsePolicy(text)
			if err != nil {
				return nil, true, err
			}
			docs = append(docs, doc)
		}
	}
	for _, text := range c.p.texts("PolicyInputList") {
		doc, err := parsePolicy(text)
		if err != nil {
			return nil, bounded, fail("InvalidInput", "%v", err)
		}
		docs = append(docs, doc)
	}
	return docs, bounded, err
}
