package wire

import (
	"slices"
	"strconv"
	"strings"
)

// tree is a form's keys, cut at their dots.
type tree struct {
	value *string
	under map[string]*tree
	order []string // of under, as they came
}

const (
	// maxDepth is how many parts a key may have; the models need nine.
	maxDepth = 24
	// maxKeys is how many keys a form may have: a thousand ids with room to spare.
	maxKeys = 20_000
)

// parseForm reads a form into a tree. A key that comes twice is a problem, for no client
// means it.
func parseForm(raw string) (*tree, *problem) {
	root := &tree{}
	keys := 0
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if keys++; keys > maxKeys {
			return nil, &problem{kind: wrong, path: "the request", got: strconv.Itoa(keys), want: "is more parameters than a request may have"}
		}
		k, v, _ := strings.Cut(part, "=")
		key, err := unescape(k)
		if err != nil {
			return nil, &problem{kind: wrong, path: k, got: k, want: "is not a form"}
		}
		value, err := unescape(v)
		if err != nil {
			return nil, &problem{kind: wrong, path: key, got: v, want: "is not a form"}
		}
		names := strings.Split(key, ".")
		if len(names) > maxDepth {
			return nil, &problem{kind: unknown, path: key}
		}
		at := root
		for _, name := range names {
			at = at.child(name)
		}
		if at.value != nil {
			return nil, &problem{kind: wrong, path: key, got: value, want: "is given more than once"}
		}
		at.value = &value
	}
	return root, nil
}

func (t *tree) child(name string) *tree {
	if c, ok := t.under[name]; ok {
		return c
	}
	if t.under == nil {
		t.under = map[string]*tree{}
	}
	c := &tree{}
	t.under[name] = c
	t.order = append(t.order, name)
	return c
}

// take returns a leaf's value and removes it, for the parts of a form that aren't members.
func (t *tree) take(name string) string {
	c, ok := t.under[name]
	if !ok || c.value == nil {
		return ""
	}
	delete(t.under, name)
	t.order = slices.DeleteFunc(t.order, func(n string) bool { return n == name })
	return *c.value
}

// formReader turns a tree into values, by the rules of ec2 or query.
type formReader struct {
	ec2      bool
	problems []problem
}

func (f *formReader) fail(p problem) any {
	f.problems = append(f.problems, p)
	return nil
}

func (f *formReader) read(m *member, t *tree, path string) any {
	s := m.shape
	switch s.kind {
	case "structure":
		return f.structure(s, t, path)
	case "list":
		return f.list(m, t, path)
	case "map":
		return f.mapping(m, t, path)
	}
	if t.value == nil || len(t.under) > 0 {
		return f.fail(problem{kind: unknown, path: deepest(t, path)})
	}
	v, want := scalar(s, *t.value)
	if want != "" {
		return f.fail(problem{kind: wrong, path: path, got: *t.value, want: want})
	}
	return v
}

// name is what a member is called in a request.
func (f *formReader) name(m *member) string {
	switch {
	case f.ec2 && m.queryName != "":
		return m.queryName
	case f.ec2 && m.locationName != "":
		return strings.ToUpper(m.locationName[:1]) + m.locationName[1:]
	case !f.ec2 && m.locationName != "":
		return m.locationName
	}
	return m.name
}

func (f *formReader) structure(s *shape, t *tree, path string) any {
	out := map[string]any{}
	known := map[string]bool{}
	for _, m := range s.members {
		name := f.name(m)
		known[name] = true
		if c, ok := t.under[name]; ok {
			if v := f.read(m, c, join(path, name)); v != nil {
				out[m.name] = v
			}
		}
	}
	if t.value != nil && (*t.value != "" || len(t.under) > 0) {
		f.fail(problem{kind: unknown, path: path})
	}
	// The query services take no notice of what they don't know.
	for _, name := range t.order {
		if !known[name] && f.ec2 {
			f.fail(problem{kind: unknown, path: deepest(t.under[name], join(path, name))})
		}
	}
	return out
}

func (f *formReader) list(m *member, t *tree, path string) any {
	if t.value != nil {
		if *t.value == "" && len(t.under) == 0 {
			return []any{}
		}
		return f.fail(problem{kind: wrong, path: path, got: *t.value, want: "is not a list"})
	}
	if !f.ec2 && !m.flattened {
		name := "member"
		if m.shape.item.locationName != "" {
			name = m.shape.item.locationName
		}
		c, ok := t.under[name]
		if !ok {
			return f.fail(problem{kind: wrong, path: path, got: "", want: "is not a list"})
		}
		t, path = c, join(path, name)
	}
	out := []any{}
	for _, i := range f.indexes(t, path) {
		name := strconv.Itoa(i)
		if v := f.read(m.shape.item, t.under[name], join(path, name)); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// indexes returns the numbers under a list, ascending. Gaps are no problem.
func (f *formReader) indexes(t *tree, path string) []int {
	var all []int
	for _, name := range t.order {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || strconv.Itoa(i) != name {
			f.fail(problem{kind: unknown, path: deepest(t.under[name], join(path, name))})
			continue
		}
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

func (f *formReader) mapping(m *member, t *tree, path string) any {
	entries := t
	if !m.flattened {
		c, ok := t.under["entry"]
		if !ok {
			return f.fail(problem{kind: wrong, path: path, got: "", want: "is not a map"})
		}
		entries, path = c, join(path, "entry")
	}
	out := map[string]any{}
	for _, i := range f.indexes(entries, path) {
		at := join(path, strconv.Itoa(i))
		e := entries.under[strconv.Itoa(i)]
		k, v := e.under["key"], e.under["value"]
		if k == nil || k.value == nil || v == nil {
			f.fail(problem{kind: wrong, path: at, want: "is not an entry"})
			continue
		}
		if got := f.read(m.shape.value, v, join(at, "value")); got != nil {
			out[*k.value] = got
		}
	}
	return out
}

// deepest names the first leaf under a node, as the client wrote it.
func deepest(t *tree, path string) string {
	for t != nil && t.value == nil && len(t.order) > 0 {
		path = join(path, t.order[0])
		t = t.under[t.order[0]]
	}
	return path
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
