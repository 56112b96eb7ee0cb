package sandbox

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

const maxTags = 50

// tagSet are the tags of one resource.
type tagSet struct {
	ID, Type, Account, Region string
	Tags                      map[string]string
}

// tagsOf returns the tags that the caller put on a resource.
func (c *call) tagsOf(id string) map[string]string {
	if set := c.s.tags.get(c.account + "/" + id); set != nil {
		return set.Tags
	}
	return nil
}

// setTags replaces the tags of one of the caller's resources; none removes the set.
func (c *call) setTags(id, typ string, tags map[string]string) {
	c.s.setTags(c.account, c.region, id, typ, tags)
}

func (s *Server) setTags(account, region, id, typ string, tags map[string]string) {
	if len(tags) == 0 {
		s.tags.remove(account + "/" + id)
		return
	}
	s.tags.put(account+"/"+id, &tagSet{ID: id, Type: typ, Account: account, Region: region, Tags: maps.Clone(tags)})
}

// tagList gives tags back, in the order of their keys.
func tagList(tags map[string]string) []any {
	out := []any{}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, answer{"Key": key, "Value": tags[key]})
	}
	return out
}

// checkTags reads a list of tags that a caller wants to set.
func checkTags(list []params) (map[string]string, error) {
	tags := map[string]string{}
	for _, t := range list {
		key, value := t.str("Key"), t.str("Value")
		switch {
		case key == "":
			return nil, invalidValue("Tag key cannot be empty.")
		case len([]rune(key)) > 128:
			return nil, invalidValue("Tag key exceeds the maximum length of 128 characters")
		case len([]rune(value)) > 256:
			return nil, invalidValue("Tag value exceeds the maximum length of 256 characters")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, invalidValue("Value ( %s ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved for internal use", key)
		}
		if _, twice := tags[key]; twice {
			return nil, invalidValue("Duplicate tag key '%s' specified.", key)
		}
		tags[key] = value
	}
	if len(tags) > maxTags {
		return nil, fail("TagLimitExceeded", "The maximum number of tags for a resource has been reached.")
	}
	return tags, nil
}

// tagsAtCreation reads TagSpecifications; types are what the operation makes.
func (c *call) tagsAtCreation(types ...string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, spec := range c.p.subs("TagSpecifications") {
		typ := spec.str("ResourceType")
		if typ == "" {
			return nil, missing("TagSpecification.ResourceType")
		}
		if !slices.Contains(types, typ) {
			return nil, invalidValue("'%s' is not a valid taggable resource type for this operation.", typ)
		}
		if _, twice := out[typ]; twice {
			return nil, invalidValue("Duplicate resource type '%s' in tag specifications.", typ)
		}
		tags, err := checkTags(spec.subs("Tags"))
		if err != nil {
			return nil, err
		}
		if len(tags) == 0 {
			return nil, invalidValue("Tag specification must have at least one tag")
		}
		out[typ] = tags
	}
	return out, nil
}

// taggable finds out what a resource is, and whether it is the caller's and here.
func (c *call) taggable(id string) (typ string, err error) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case kindImage.prefix:
		_, err = c.ownImage(id)
		return kindImage.typ, err
	case kindInstance.prefix:
		_, err = c.instance(id)
		return kindInstance.typ, err
	case kindSnapshot.prefix:
		_, err = c.ownSnapshot(id)
		return kindSnapshot.typ, err
	case kindVolume.prefix:
		_, err = c.volume(id)
		return kindVolume.typ, err
	case kindGroup.prefix:
		_, err = c.group(id)
		return kindGroup.typ, err
	}
	return c.taggableOther(prefix, id)
}

func (c *call) taggableOther(prefix, id string) (string, error) {
	net := c.network()
	found := func(k kind, ok bool) (string, error) {
		if !ok || !c.sees(id) {
			return "", k.notFound(id)
		}
		return k.typ, nil
	}
	switch prefix {
	case kindKey.prefix:
		key := c.keyByID(id)
		return found(kindKey, key != nil)
	case kindRule.prefix:
		_, r := c.rule(id)
		return found(kindRule, r != nil)
	case kindVPC.prefix:
		return found(kindVPC, id == net.VPC)
	case kindSubnet.prefix:
		return found(kindSubnet, net.subnet(id) != nil)
	case kindRoutes.prefix:
		return found(kindRoutes, id == net.Routes)
	case kindGateway.prefix:
		return found(kindGateway, id == net.Gateway)
	case kindSpot.prefix:
		sir := c.s.spots.get(id)
		return found(kindSpot, sir != nil && c.mine(sir.Account, sir.Region))
	case kindInterface.prefix:
		return found(kindInterface, c.instanceOfInterface(id) != nil)
	}
	return "", fail("InvalidID", "The ID '%s' is not valid", id)
}

func createTags(c *call) (answer, error) {
	tags, err := checkTags(c.p.subs("Tags"))
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, missing("Tag")
	}
	types, err := c.taggables()
	if err != nil {
		return nil, err
	}
	after := map[string]map[string]string{}
	for id := range types {
		after[id] = merged(c.tagsOf(id), tags)
		if len(after[id]) > maxTags {
			return nil, fail("TagLimitExceeded", "The maximum number of tags for resource %s has been reached.", id)
		}
	}
	for id, typ := range types {
		c.setTags(id, typ, after[id])
	}
	return answer{}, nil
}

func (c *call) taggables() (map[string]string, error) {
	types := map[string]string{}
	for _, id := range c.p.texts("Resources") {
		typ, err := c.taggable(id)
		if err != nil {
			return nil, err
		}
		types[id] = typ
	}
	if len(types) == 0 {
		return nil, missing("ResourceId")
	}
	return types, nil
}

// deleteTags removes tags by key, or only where the value is the one given; all of them
// when no tag is named.
func deleteTags(c *call) (answer, error) {
	types, err := c.taggables()
	if err != nil {
		return nil, err
	}
	for id, typ := range types {
		left := map[string]string{}
		if c.p.has("Tags") {
			left = maps.Clone(c.tagsOf(id))
		}
		for _, t := range c.p.subs("Tags") {
			if !t.has("Value") || left[t.str("Key")] == t.str("Value") {
				delete(left, t.str("Key"))
			}
		}
		c.setTags(id, typ, left)
	}
	return answer{}, nil
}

// tagRow is one tag, as DescribeTags gives it back.
type tagRow struct{ id, typ, key, value string }

func (t tagRow) order() string { return t.id + "/" + t.key }

func describeTags(c *call) (answer, error) {
	at, err := c.page(5, 1000, "")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[tagRow]{
		"resource-id":   one(func(t *tagRow) string { return t.id }),
		"resource-type": one(func(t *tagRow) string { return t.typ }),
		"key":           one(func(t *tagRow) string { return t.key }),
		"value":         one(func(t *tagRow) string { return t.value }),
		"tag-key":       one(func(t *tagRow) string { return t.key }),
		"tag-value":     one(func(t *tagRow) string { return t.value }),
	}, nil)
	if err != nil {
		return nil, err
	}
	var rows []tagRow
	for _, set := range c.s.tags.all {
		if !c.mine(set.Account, set.Region) {
			continue
		}
		for key, value := range set.Tags {
			row := tagRow{set.ID, set.Type, key, value}
			if match(&row) {
				rows = append(rows, row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b tagRow) int { return cmp.Compare(a.order(), b.order()) })
	rows, token := cut(c, at, rows, tagRow.order)
	out := answer{"Tags": list(rows, func(t tagRow) any {
		return answer{"ResourceId": t.id, "ResourceType": t.typ, "Key": t.key, "Value": t.value}
	})}
	set(out, "NextToken", token)
	return out, nil
}

// merged are two sets of tags; the second wins.
func merged(a, b map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}
