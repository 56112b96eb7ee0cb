package sandbox

import (
	"slices"
	"strings"
	"time"
)

// getters say what a filter of a Describe call compares, by the filter's name.
type getters[T any] map[string]func(*call, *T) []string

// one is a getter of a single text.
func one[T any](get func(*T) string) func(*call, *T) []string {
	return func(_ *call, v *T) []string { return []string{get(v)} }
}

func flag[T any](get func(*T) bool) func(*call, *T) []string {
	return func(_ *call, v *T) []string {
		if get(v) {
			return []string{"true"}
		}
		return []string{"false"}
	}
}

func when[T any](get func(*T) time.Time) func(*call, *T) []string {
	return func(_ *call, v *T) []string { return []string{stamp(get(v))} }
}

// matcher checks the Filters parameter and returns what it lets through. id gives the
// resource id, for the filters on tags.
func matcher[T any](c *call, known getters[T], id func(*T) string) (func(*T) bool, error) {
	type test struct {
		get    func(*call, *T) []string
		values []string
	}
	var tests []test
	for _, f := range c.p.subs("Filters") {
		name, values := f.str("Name"), f.texts("Values")
		if name == "" {
			return nil, missing("Filter.Name")
		}
		get := tagGetter(name, id)
		if get == nil {
			get = known[name]
		}
		if get == nil {
			return nil, invalidValue("The filter '%s' is invalid", name)
		}
		if len(values) == 0 {
			return nil, invalidValue("The filter '%s' requires at least one value", name)
		}
		tests = append(tests, test{get, values})
	}
	return func(v *T) bool {
		for _, t := range tests {
			have := t.get(c, v)
			if !slices.ContainsFunc(t.values, func(pattern string) bool {
				return slices.ContainsFunc(have, func(text string) bool { return wild(pattern, text) })
			}) {
				return false
			}
		}
		return true
	}, nil
}

func tagGetter[T any](name string, id func(*T) string) func(*call, *T) []string {
	if id == nil {
		return nil
	}
	if key, ok := strings.CutPrefix(name, "tag:"); ok {
		return func(c *call, v *T) []string {
			if text, ok := c.tagsOf(id(v))[key]; ok {
				return []string{text}
			}
			return nil
		}
	}
	if name == "tag-key" {
		return func(c *call, v *T) []string {
			var keys []string
			for key := range c.tagsOf(id(v)) {
				keys = append(keys, key)
			}
			return keys
		}
	}
	return nil
}

// wild matches a text with a pattern of EC2's filters: * is any text, ? any character, and a
// backslash takes the meaning from what follows.
func wild(pattern, text string) bool {
	if !strings.ContainsAny(pattern, `*?\`) {
		return pattern == text
	}
	p, t := []rune(pattern), []rune(text)
	// back is where to go on after a mismatch: the last *, and the text it has swallowed.
	star, back, i, j := -1, 0, 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, back = i, j
			i++
		case i < len(p) && matchRune(p, &i, t[j]):
			j++
		case star >= 0:
			back++
			i, j = star+1, back
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// matchRune matches one character and, if it does, moves on in the pattern.
func matchRune(p []rune, i *int, r rune) bool {
	switch {
	case p[*i] == '?':
		*i++
		return true
	case p[*i] == '\\' && *i+1 < len(p):
		if p[*i+1] != r {
			return false
		}
		*i += 2
		return true
	case p[*i] == r:
		*i++
		return true
	}
	return false
}
