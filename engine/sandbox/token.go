package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"time"
)

// token is a ClientToken that was used: what for, and what came of it.
type token struct {
	Params string // digest
	IDs    []string
	At     time.Time
}

// replay looks a ClientToken up: the first use's ids when the parameters are the same, nil
// when it wasn't used before, and IdempotentParameterMismatch when they differ.
func (c *call) replay(name string) (*token, error) {
	if name == "" {
		return nil, nil
	}
	if len(name) > 64 {
		return nil, invalidValue("Value (%s) for parameter clientToken is invalid. It may have at most 64 characters.", name)
	}
	t := c.s.tokens.get(c.tokenID(name))
	if t == nil {
		return nil, nil
	}
	digest, err := c.paramsDigest()
	if err != nil {
		return nil, err
	}
	if t.Params != digest {
		return nil, fail("IdempotentParameterMismatch", "The client token you have provided is associated with a resource with different parameters.")
	}
	return t, nil
}

// keepToken remembers what a ClientToken was used for; an empty one is no token.
func (c *call) keepToken(name string, ids ...string) {
	if name == "" {
		return
	}
	digest, err := c.paramsDigest()
	if err != nil {
		c.s.workFailed("remember a client token", name, err)
		return
	}
	c.s.tokens.put(c.tokenID(name), &token{Params: digest, IDs: ids, At: c.now})
}

func (c *call) tokenID(name string) string {
	return scoped(c.account, c.region, c.r.Service+"/"+c.r.Action+"/"+name)
}

func (c *call) paramsDigest() (string, error) {
	p := maps.Clone(c.p)
	delete(p, "ClientToken")
	delete(p, "DryRun")
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}
