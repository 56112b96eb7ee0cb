package sandbox

import (
	"context"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// call is one request while it is handled.
type call struct {
	s       *Server
	ctx     context.Context
	r       *wire.Request
	p       params
	account string
	region  string
	now     time.Time
	faults  []Fault
	visible map[string]bool // what lag decided for an id, so that one call sees one world
}

// principal is the ARN of the caller.
func (c *call) principal() string { return c.s.principalOf(c.r.AccessKey, c.account) }

// principalOf needs Server.mu.
func (s *Server) principalOf(accessKey, account string) string {
	if cred := s.credentials.get(accessKey); cred != nil {
		return cred.Principal
	}
	return "arn:" + "aws:iam::" + account + ":user/" + DefaultKey
}

// wellKnown returns the account of a key that needs no setting up.
func wellKnown(accessKey string) (account string, ok bool) {
	if accessKey == DefaultKey {
		return DefaultAccount, true
	}
	rest, ok := strings.CutPrefix(accessKey, "AKIA")
	if !ok || len(rest) < 12 || strings.Trim(rest[:12], "0123456789") != "" {
		return "", false
	}
	return rest[:12], true
}

// arn of an EC2 resource.
func (c *call) arn(typ, id string) string {
	return partitionARN(c.region, "ec2", c.account, typ+"/"+id)
}

func partitionARN(region, service, account, rest string) string {
	return "arn:" + partition(region) + ":" + service + ":" + region + ":" + account + ":" + rest
}

// sees decides once per call whether an id is visible yet: with a lag set, a new one isn't
// for its first lookups.
func (c *call) sees(id string) bool {
	if seen, ok := c.visible[id]; ok {
		return seen
	}
	left, lagging := c.s.fresh[id]
	c.visible[id] = !lagging
	if lagging {
		if left--; left <= 0 {
			delete(c.s.fresh, id)
		} else {
			c.s.fresh[id] = left
		}
	}
	return !lagging
}

// born must be called for every new id.
func (c *call) born(ids ...string) {
	for _, id := range ids {
		c.visible[id] = true
		if c.s.faults.Lag > 0 {
			c.s.fresh[id] = c.s.faults.Lag
		}
	}
}

// mine reports whether an object of an account and region is the caller's, here.
func (c *call) mine(account, region string) bool { return account == c.account && region == c.region }

// instance returns one of the caller's instances.
func (c *call) instance(id string) (*instance, error) {
	if err := kindInstance.check(id); err != nil {
		return nil, err
	}
	i := c.s.instances.get(id)
	if i == nil || !c.mine(i.Account, i.Region) || !c.sees(id) {
		return nil, kindInstance.notFound(id)
	}
	return i, nil
}

// image returns an image that the caller may see.
func (c *call) image(id string) (*image, error) {
	if err := kindImage.check(id); err != nil {
		return nil, err
	}
	i := c.s.images.get(id)
	if i == nil || i.Region != c.region || !c.maySee(i) || !c.sees(id) {
		return nil, kindImage.notFound(id)
	}
	return i, nil
}

// ownImage returns one of the caller's images; what it does can only be done by the owner.
func (c *call) ownImage(id string) (*image, error) {
	i, err := c.image(id)
	if err != nil {
		return nil, err
	}
	if i.Account != c.account {
		return nil, fail("AuthFailure", "Not authorized for image:%s", id)
	}
	return i, nil
}

// snapshot returns a snapshot that the caller may see.
func (c *call) snapshot(id string) (*snapshot, error) {
	if err := kindSnapshot.check(id); err != nil {
		return nil, err
	}
	sn := c.s.snapshots.get(id)
	if sn == nil || sn.Region != c.region || !c.mayRestore(sn) || !c.sees(id) {
		return nil, kindSnapshot.notFound(id)
	}
	return sn, nil
}

// ownSnapshot returns one of the caller's snapshots.
func (c *call) ownSnapshot(id string) (*snapshot, error) {
	sn, err := c.snapshot(id)
	if err != nil {
		return nil, err
	}
	if sn.Account != c.account {
		return nil, fail("UnauthorizedOperation", "You are not authorized to perform this operation on snapshot %s.", id)
	}
	return sn, nil
}

// volume returns one of the caller's volumes.
func (c *call) volume(id string) (*volume, error) {
	if err := kindVolume.check(id); err != nil {
		return nil, err
	}
	v := c.s.volumes.get(id)
	if v == nil || !c.mine(v.Account, v.Region) || !c.sees(id) {
		return nil, kindVolume.notFound(id)
	}
	return v, nil
}
