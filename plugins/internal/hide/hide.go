// Package hide takes the values of a step's environment, secrets among them, out of text
// that is about to be cut: the engine masks secrets later, and knows them only whole.
//
// Environments and text go in, text with *** for each value comes out. The package doesn't
// know which values are secrets, and never finds one in another form than its own, that of
// its lines, or that which it has inside of a JSON string.
package hide

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
)

const (
	// shortest is the least length of a value to hide, in bytes: what is shorter is part of
	// too many words.
	shortest = 4
	mask     = "***"
)

// Values are texts to hide. The zero value hides nothing. It is safe for concurrent use.
type Values struct {
	mu      sync.Mutex
	known   map[string]bool
	texts   []string
	longest int
}

// Of returns the values of one environment.
func Of(env map[string]string) *Values {
	v := &Values{}
	v.Add(env)
	return v
}

// Add adds the values of an environment.
func (v *Values) Add(env map[string]string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, value := range env {
		v.add(value)
		v.add(inJSON(value))
		if strings.ContainsAny(value, "\r\n") {
			for line := range strings.SplitSeq(value, "\n") {
				v.add(strings.TrimSuffix(line, "\r"))
				v.add(inJSON(strings.TrimSuffix(line, "\r")))
			}
		}
	}
}

func (v *Values) add(text string) {
	if len(text) < shortest || v.known[text] {
		return
	}
	if v.known == nil {
		v.known = map[string]bool{}
	}
	v.known[text] = true
	v.texts = append(v.texts, text)
	v.longest = max(v.longest, len(text))
}

// inJSON is what a text looks like inside of a JSON string.
func inJSON(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		return text // a string always has a form
	}
	return string(quoted[1 : len(quoted)-1])
}

// Longest is the length of the longest text to hide, in bytes: who cuts text has to know
// this much on both sides of what is shown.
func (v *Values) Longest() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.longest
}

// Text returns the text without the values.
func (v *Values) Text(text string) string { return v.Slice(text, 0, len(text)) }

// Slice returns text[from:to] without the values and without the pieces of values that
// begin before or end after it.
func (v *Values) Slice(text string, from, to int) string {
	var out strings.Builder
	for _, s := range v.spans(text) {
		start, end := max(s.start, from), min(s.end, to)
		if start >= end {
			continue
		}
		out.WriteString(text[from:start])
		out.WriteString(mask)
		from = end
	}
	out.WriteString(text[from:to])
	return out.String()
}

// span is a part of a text.
type span struct{ start, end int }

// spans are where the values are, in order and without overlaps.
func (v *Values) spans(text string) []span {
	v.mu.Lock()
	texts := v.texts
	v.mu.Unlock()
	var all []span
	for _, value := range texts {
		for from := 0; ; {
			i := strings.Index(text[from:], value)
			if i < 0 {
				break
			}
			all = append(all, span{from + i, from + i + len(value)})
			// The next one may overlap this one.
			from += i + 1
		}
	}
	slices.SortFunc(all, func(a, b span) int { return a.start - b.start })
	var joined []span
	for _, s := range all {
		if n := len(joined); n > 0 && s.start <= joined[n-1].end {
			joined[n-1].end = max(joined[n-1].end, s.end)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}
