package sandbox

import (
	"encoding/base64"
	"strings"
)

// page is a part of a list that is sorted by id. A page goes on after the last id that was
// seen, so what comes and goes meanwhile neither repeats nor hides anything else.
type page struct {
	after string
	limit int64 // 0: no limit
}

// page reads MaxResults and NextToken. Below low or above high AWS refuses MaxResults;
// with ids (names what they are in) it refuses both together.
func (c *call) page(low, high int64, ids string) (page, error) {
	var p page
	if c.p.has("MaxResults") {
		p.limit = c.p.num("MaxResults")
		if p.limit < low || p.limit > high {
			return p, invalidValue("Value ( %d ) for parameter maxResults is invalid. Expecting a value between %d and %d.", p.limit, low, high)
		}
		if ids != "" && len(c.p.texts(ids)) > 0 {
			return p, invalidCombination("The parameter %s cannot be used with the parameter maxResults", ids)
		}
	}
	if token := c.p.str("NextToken"); token != "" {
		text, err := base64.RawURLEncoding.DecodeString(token)
		action, after, ok := strings.Cut(string(text), " ")
		if err != nil || !ok || action != c.r.Action {
			return p, fail("InvalidNextToken", "The token '%s' is invalid.", token)
		}
		p.after = after
	}
	return p, nil
}

// cut returns the items of the page, which are sorted by id, and the token of the next one,
// empty at the end.
func cut[T any](c *call, p page, items []T, id func(T) string) (part []T, token string) {
	for _, item := range items {
		if p.after != "" && id(item) <= p.after {
			continue
		}
		if p.limit > 0 && int64(len(part)) == p.limit {
			last := c.r.Action + " " + id(part[len(part)-1])
			return part, base64.RawURLEncoding.EncodeToString([]byte(last))
		}
		part = append(part, item)
	}
	return part, ""
}
