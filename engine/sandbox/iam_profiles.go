package sandbox

import (
	"net/http"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

func (c *call) instanceProfile() (*instanceProfile, error) {
	name := c.p.str("InstanceProfileName")
	if p := c.s.profiles.get(c.iamID(name)); p != nil && c.sees(p.ID) {
		return p, nil
	}
	return nil, noEntity("Instance Profile %s cannot be found.", name)
}

func (c *call) saveProfile(p *instanceProfile) {
	c.s.profiles.put(p.Account+"/"+strings.ToLower(p.Name), p)
}

// profileOf finds an instance profile by its name or ARN.
func (s *Server) profileOf(account, nameOrARN string) (profile, bool) {
	for _, p := range s.profiles.all {
		if p.Account != account || p.ARN != nameOrARN && !strings.EqualFold(p.Name, nameOrARN) {
			continue
		}
		out := profile{ARN: p.ARN, ID: p.ID, Name: p.Name}
		if r := s.roles.get(account + "/" + strings.ToLower(p.Role)); p.Role != "" && r != nil {
			out.Role = r.ARN
		}
		return out, true
	}
	return profile{}, false
}

func (c *call) profilesWith(r *role) (out []*instanceProfile) {
	for _, p := range c.s.profiles.all {
		if p.Account == r.Account && strings.EqualFold(p.Role, r.Name) {
			out = append(out, p)
		}
	}
	return out
}

func (c *call) profileAnswer(p *instanceProfile, tags bool) answer {
	a := answer{"Path": p.Path, "InstanceProfileName": p.Name, "InstanceProfileId": p.ID, "Arn": p.ARN, "CreateDate": p.Created}
	roles := []any{}
	if r := c.s.roles.get(c.iamID(p.Role)); p.Role != "" && r != nil {
		roles = append(roles, r.answer(false))
	}
	a["Roles"] = roles
	if tags && len(p.Tags) > 0 {
		a["Tags"] = tagList(p.Tags)
	}
	return a
}

func createInstanceProfile(c *call) (answer, error) {
	name := c.p.str("InstanceProfileName")
	if c.s.profiles.get(c.iamID(name)) != nil {
		return nil, &wire.Error{Code: "EntityAlreadyExists", Message: "Instance Profile " + name + " already exists.", Status: http.StatusConflict}
	}
	tags, err := c.iamTags(nil)
	if err != nil {
		return nil, err
	}
	p := &instanceProfile{Name: name, Path: c.p.or("Path", "/"), Account: c.account, Created: c.now.Truncate(time.Second), Tags: tags}
	p.ARN = c.iamARN("instance-profile", p.Path, name)
	p.ID = "AIPA" + idSuffix(p.ARN+c.r.ID)
	c.saveProfile(p)
	c.born(p.ID)
	return answer{"InstanceProfile": c.profileAnswer(p, true)}, nil
}

func getInstanceProfile(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	return answer{"InstanceProfile": c.profileAnswer(p, true)}, nil
}

func deleteInstanceProfile(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	if p.Role != "" {
		return nil, deleteConflict("remove roles from instance profile")
	}
	c.s.profiles.remove(c.iamID(p.Name))
	return answer{}, nil
}

func listInstanceProfiles(c *call) (answer, error) {
	var found []*instanceProfile
	for _, p := range c.s.profiles.all {
		if p.Account == c.account && strings.HasPrefix(p.Path, c.p.or("PathPrefix", "/")) {
			found = append(found, p)
		}
	}
	return c.profilePage(found), nil
}

func (c *call) profilePage(found []*instanceProfile) answer {
	return iamPage(c, "InstanceProfiles", found, func(p *instanceProfile) string { return p.Name },
		func(p *instanceProfile) any { return c.profileAnswer(p, false) })
}

func listInstanceProfilesForRole(c *call) (answer, error) {
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	return c.profilePage(c.profilesWith(r)), nil
}

func addRoleToInstanceProfile(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	r, err := c.role()
	if err != nil {
		return nil, err
	}
	if p.Role != "" {
		return nil, &wire.Error{Code: "LimitExceeded", Message: "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1", Status: http.StatusConflict}
	}
	p.Role = r.Name
	c.saveProfile(p)
	return answer{}, nil
}

func removeRoleFromInstanceProfile(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(p.Role, c.p.str("RoleName")) {
		return nil, noEntity("The role with name %s cannot be found.", c.p.str("RoleName"))
	}
	p.Role = ""
	c.saveProfile(p)
	return answer{}, nil
}

func tagInstanceProfile(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	tags, err := c.iamTags(p.Tags)
	if err != nil {
		return nil, err
	}
	p.Tags = tags
	c.saveProfile(p)
	return answer{}, nil
}

func listInstanceProfileTags(c *call) (answer, error) {
	p, err := c.instanceProfile()
	if err != nil {
		return nil, err
	}
	return c.tagPage(p.Tags), nil
}
