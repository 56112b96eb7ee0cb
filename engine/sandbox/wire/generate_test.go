package wire

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
	"unicode/utf8"
)

// maker makes values that are valid by a shape.
type maker struct {
	random *rand.Rand
	// seconds makes times without fractions, for protocols that don't carry them.
	seconds bool
	// input makes no value that an SDK takes for none, such as false.
	input bool
}

// value makes a value of a shape. Members below depth 0 are only the required ones.
func (g *maker) value(s *shape, depth int) any {
	switch s.kind {
	case "structure":
		out := map[string]any{}
		for _, m := range s.members {
			if depth <= 0 && !s.required[m.name] {
				continue
			}
			if s.required[m.name] || m.location == "uri" || g.random.IntN(10) < 7 {
				out[m.name] = g.value(m.shape, depth-1)
			}
		}
		// Clients don't send a structure of nothing, and an answer's payload is never missing.
		if len(out) == 0 && len(s.members) > 0 {
			out[s.members[0].name] = g.value(s.members[0].shape, 0)
		}
		if s.payload != "" {
			out[s.payload] = g.value(s.byName[s.payload].shape, 0)
		}
		return out
	case "list":
		n := 1 + g.random.IntN(3)
		if s.min != nil {
			n = max(n, int(*s.min))
		}
		if s.max != nil {
			n = min(n, int(*s.max))
		}
		out := make([]any, 0, n)
		for range n {
			out = append(out, g.value(s.item.shape, depth-1))
		}
		return out
	case "map":
		out := map[string]any{}
		for range 1 + g.random.IntN(2) {
			out[g.value(s.key.shape, 0).(string)] = g.value(s.value.shape, depth-1)
		}
		return out
	}
	return g.scalar(s)
}

func (g *maker) scalar(s *shape) any {
	switch s.kind {
	case "string":
		return g.text(s)
	case "integer", "long":
		low, high := int64(1), int64(1000)
		if s.min != nil {
			low = int64(*s.min)
		}
		if s.max != nil {
			high = int64(*s.max)
		}
		return low + g.random.Int64N(max(high, low)-low+1)
	case "double", "float":
		return float64(g.random.IntN(100)) / 4
	case "boolean":
		return g.input || g.random.IntN(2) == 0
	case "blob":
		return []byte(fmt.Sprintf("blob\x00\xff%d", g.random.IntN(1000)))
	case "timestamp":
		at := time.Date(2026, 11, 23, 8, g.random.IntN(60), g.random.IntN(60), g.random.IntN(1000)*1e6, time.UTC)
		if g.seconds {
			at = at.Truncate(time.Second)
		}
		return at
	}
	panic("no value of type " + s.kind)
}

// samples are texts of which at least one fits each pattern of the models.
func samples(n int) []string {
	hex := fmt.Sprintf("%017x", n)
	return []string{
		fmt.Sprintf(" a<&>\"'é%d\t+%%/=~*", n), fmt.Sprintf("a b%d", n), fmt.Sprintf("name%d", n), "i-" + hex, "snap-" + hex, fmt.Sprintf("/path%d/", n), "123456789012",
		"eu-west-1a", "eu-west-1", fmt.Sprintf("arn:aws:kms:eu-west-1:123456789012:key/%d", n), "00000000-0000-4000-8000-" + hex[:12],
		fmt.Sprintf("arn:aws:iam::123456789012:role/r%d", n), "$LATEST", "50%", "123456", "1.2.3", "2026-11-23T08:00:00Z", "tag:Name", "Name", strings.Repeat("ab12", 16),
		"alias/a", "QUFB", "ssh-ed25519 " + strings.Repeat("A", 300), "cluster-22222222222", "1", "text/plain", strings.Repeat("{}", 600),
	}
}

func (g *maker) text(s *shape) string {
	if len(s.enum) > 0 {
		return s.enum[g.random.IntN(len(s.enum))]
	}
	for _, text := range samples(g.random.IntN(1000)) {
		v := validator{}
		v.text(s, text, "")
		if len(v.problems) == 0 && utf8.RuneCountInString(text) > 0 {
			return text
		}
	}
	panic(fmt.Sprintf("no sample fits %s: %s (%v to %v)", s.name, s.source, deref(s.min), deref(s.max)))
}

func deref(f *float64) string {
	if f == nil {
		return "any"
	}
	return fmt.Sprint(*f)
}

// flat writes a value as JSON, so that values of different Go types can be compared.
func flat(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(data)
}
