package sandbox

import (
	"crypto/sha256"
	"encoding/base32"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// role is an IAM role. Names of roles and profiles have no case: their ids in the tables
// are in lower case.
type role struct {
	ARN, ID, Name, Path, Account string
	Trust, Description           string
	MaxSession                   int64 // seconds
	Created                      time.Time
	Tags                         map[string]string
	Attached                     []string          // ARNs of managed policies
	Inline                       map[string]string // documents by name
}

// instanceProfile carries a role to instances.
type instanceProfile struct {
	ARN, ID, Name, Path, Account string
	Created                      time.Time
	Tags                         map[string]string
	Role                         string // its name, or empty
}

func iamOperations() map[string]operation {
	out := quick(map[string]func(*call) (answer, error){
		"AddRoleToInstanceProfile":      addRoleToInstanceProfile,
		"AttachRolePolicy":              attachRolePolicy,
		"CreateInstanceProfile":         createInstanceProfile,
		"CreateRole":                    createRole,
		"DeleteInstanceProfile":         deleteInstanceProfile,
		"DeleteRole":                    deleteRole,
		"DeleteRolePolicy":              deleteRolePolicy,
		"DetachRolePolicy":              detachRolePolicy,
		"GetInstanceProfile":            getInstanceProfile,
		"GetRole":                       getRole,
		"ListAttachedRolePolicies":      listAttachedRolePolicies,
		"ListInstanceProfileTags":       listInstanceProfileTags,
		"ListInstanceProfiles":          listInstanceProfiles,
		"ListInstanceProfilesForRole":   listInstanceProfilesForRole,
		"ListRolePolicies":              listRolePolicies,
		"ListRoleTags":                  listRoleTags,
		"ListRoles":                     listRoles,
		"PutRolePolicy":                 putRolePolicy,
		"RemoveRoleFromInstanceProfile": removeRoleFromInstanceProfile,
		"SimulatePrincipalPolicy":       simulatePrincipalPolicy,
		"TagInstanceProfile":            tagInstanceProfile,
		"TagRole":                       tagRole,
	})
	for action, op := range out {
		op.access = iamAccess
		out[action] = op
	}
	return out
}

// iamAccess are the permissions for a call, on the role or profile that it names.
func iamAccess(c *call) []access {
	action, tag := "iam:"+c.r.Action, ""
	resource := "*"
	role, profile := c.p.str("RoleName"), c.p.str("InstanceProfileName")
	switch {
	case profile != "":
		resource, tag = c.profileARN(profile), "iam:TagInstanceProfile"
	case role != "":
		resource, tag = c.roleARN(role), "iam:TagRole"
	case c.p.has("PolicySourceArn"):
		resource = c.p.str("PolicySourceArn")
	}
	keys := requestTags(c.p.subs("Tags"))
	all := []access{{action, resource, merge(keys, map[string][]string{"iam:PolicyARN": c.policyARN()})}}
	if len(keys) > 0 && tag != action {
		all = append(all, access{tag, resource, keys})
	}
	if c.r.Action == "AddRoleToInstanceProfile" {
		all = append(all, access{"iam:PassRole", c.roleARN(role), map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}}})
	}
	return all
}

// policyARN is the managed policy that a call is about.
func (c *call) policyARN() []string {
	if arn := c.p.str("PolicyArn"); arn != "" {
		return []string{arn}
	}
	return nil
}

// roleARN is the ARN of a role. The path of one that isn't there, or not yet, is the call's.
func (c *call) roleARN(name string) string {
	if r := c.s.roles.get(c.iamID(name)); r != nil {
		return r.ARN
	}
	return c.iamARN("role", c.p.or("Path", "/"), name)
}

func (c *call) profileARN(name string) string {
	if p := c.s.profiles.get(c.iamID(name)); p != nil {
		return p.ARN
	}
	return c.iamARN("instance-profile", c.p.or("Path", "/"), name)
}

func (c *call) iamID(name string) string { return c.account + "/" + strings.ToLower(name) }

func (c *call) iamARN(typ, path, name string) string {
	return "arn:" + partition(c.region) + ":iam::" + c.account + ":" + typ + path + name
}

// idSuffix makes the part of an IAM id after its prefix, always the same for a text.
func idSuffix(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base32.StdEncoding.EncodeToString(sum[:])[:17]
}

func noEntity(format string, args ...any) error {
	e := fail("NoSuchEntity", format, args...)
	e.Status = http.StatusNotFound
	return e
}

func deleteConflict(text string) error {
	return &wire.Error{Code: "DeleteConflict", Message: "Cannot delete entity, must " + text + " first.", Status: http.StatusConflict}
}

func (c *call) role() (*role, error) {
	name := c.p.str("RoleName")
	if r := c.s.roles.get(c.iamID(name)); r != nil && c.sees(r.ID) {
		return r, nil
	}
	return nil, noEntity("The role with name %s cannot be found.", name)
}

func (c *call) saveRole(r *role) { c.s.roles.put(r.Account+"/"+strings.ToLower(r.Name), r) }

func (s *Server) roleByARN(arn string) *role {
	for _, r := range s.roles.all {
		if r.ARN == arn {
			return r
		}
	}
	return nil
}

func createRole(c *call) (answer, error) {
	name := c.p.str("RoleName")
	if c.s.roles.get(c.iamID(name)) != nil {
		return nil, &wire.Error{Code: "EntityAlreadyExists", Message: "Role with name " + name + " already exists.", Status: http.StatusConflict}
	}
	if _, err := parseTrust(c.p.str("AssumeRolePolicyDocument")); err != nil {
		return nil, malformed(err)
	}
	tags, err := c.iamTags(nil)
	if err != nil {
		return nil, err
	}
	if c.p.has("PermissionsBoundary") {
		return nil, fail("InvalidInput", "This sandbox has no permissions boundaries: leave out PermissionsBoundary.")
	}
	r := &role{Name: name, Path: c.p.or("Path", "/"), Account: c.account, Trust: c.p.str("AssumeRolePolicyDocument"),
		Description: c.p.str("Description"), MaxSession: 3600, Created: c.now.Truncate(time.Second), Tags: tags, Inline: map[string]string{}}
	if c.p.has("MaxSessionDuration") {
		r.MaxSession = c.p.num("MaxSessionDuration")
	}
	r.ARN = c.iamARN("role", r.Path, name)
	r.ID = "AROA" + idSuffix(r.ARN+c.r.ID)
	c.saveRole(r)
	c.born(r.ID)
	return answer{"Role": r.answer(true)}, nil
}

func malformed(err error) error { return fail("MalformedPolicyDocument", "%v", err) }

// iamTags reads Tags, on top of those that are there.
func (c *call) iamTags(have map[string]string) (map[string]string, error) {
	tags, err := checkTags(c.p.subs("Tags"))
	if err != nil {
		return nil, fail("InvalidInput", "%v", err)
	}
	tags = merged(have, tags)
	if len(tags) > maxTags {
		return nil, &wire.Error{Code: "LimitExceeded", Message: "The number of tags has reached the maximum limit.", Status: http.StatusConflict}
	}
	return tags, nil
}

// answer describes a role. Documents are percent-encoded in IAM's answers.
func (r *role) answer(whole bool) answer {
	a := answer{"Path": r.Path, "RoleName": r.Name, "RoleId": r.ID, "Arn": r.ARN, "CreateDate": r.Created,
		"AssumeRolePolicyDocument": strings.ReplaceAll(url.QueryEscape(r.Trust), "+", "%20")}
	set(a, "Description", r.Description)
	if whole {
		a["MaxSessionDuration"] = r.MaxSession
		if len(r.Tags) > 0 {
			a["Tags"] = tagList(r.Tags)
		}
	}
	return a
}

func getRole(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	return answer{"Role": r.answer(true)}, nil
}

func deleteRole(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	switch {
	case len(c.profilesWith(r)) > 0:
		return nil, deleteConflict("remove roles from instance profile")
	case len(r.Attached) > 0:
		return nil, deleteConflict("detach all policies")
	case len(r.Inline) > 0:
		return nil, deleteConflict("delete policies")
	}
	c.s.roles.remove(c.iamID(r.Name))
	return answer{}, nil
}

// iamPage cuts a list, sorted by name, as every List action of IAM does.
func iamPage[T any](c *call, member string, items []T, name func(T) string, show func(T) any) answer {
	limit := int64(100)
	if c.p.has("MaxItems") {
		limit = c.p.num("MaxItems")
	}
	slices.SortFunc(items, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	part, marker := after(items, c.p.str("Marker"), limit, name)
	out := answer{member: list(part, show), "IsTruncated": marker != ""}
	set(out, "Marker", marker)
	return out
}

func listRoles(c *call) (answer, error) {
	var found []*role
	for _, r := range c.s.roles.all {
		if r.Account == c.account && strings.HasPrefix(r.Path, c.p.or("PathPrefix", "/")) {
			found = append(found, r)
		}
	}
	return iamPage(c, "Roles", found, func(r *role) string { return r.Name }, func(r *role) any { return r.answer(false) }), nil
}

func tagRole(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	tags, err := c.iamTags(r.Tags)
	if err != nil {
		return nil, err
	}
	r.Tags = tags
	c.saveRole(r)
	return answer{}, nil
}

func listRoleTags(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	return c.tagPage(r.Tags), nil
}

func (c *call) tagPage(tags map[string]string) answer {
	return iamPage(c, "Tags", tagList(tags), func(t any) string { return t.(answer)["Key"].(string) }, func(t any) any { return t })
}
