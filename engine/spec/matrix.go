package spec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxCells bounds the combinations of one matrix.
const maxCells = 256

// cell is one combination of the matrix.
type cell struct {
	// name is "key=value,…", keys sorted; empty without a matrix.
	name   string
	values map[string]any
}

// arch is the architecture of the image, in Go's names.
func (c cell) arch() string {
	if a, ok := c.values["arch"].(string); ok {
		return a
	}
	return "amd64"
}

// expandMatrix makes all combinations, takes out the excluded and adds the included
// ones, in the order of the file.
func (r *resolver) expandMatrix() {
	m := r.root.get("matrix")
	cells := []map[string]any{{}}
	var keys []string
	if m != nil {
		for _, name := range m.names {
			list := m.fields[name]
			if name == "include" || name == "exclude" || len(list.items) == 0 {
				continue
			}
			keys = append(keys, name)
			if len(cells)*len(list.items) > maxCells {
				r.tooManyCells(m)
				cells = cells[:1]
				break
			}
			cells = multiply(cells, name, list)
		}
		cells = r.exclude(cells, keys, m.get("exclude"))
		cells = r.include(cells, keys, m.get("include"))
		if len(cells) > maxCells {
			r.tooManyCells(m)
			cells = cells[:1]
		}
		if len(cells) == 0 {
			r.diags.Addf(r.source.name(m), "empty-matrix", "", "exclude leaves no combination of the matrix")
		}
	}
	for _, values := range cells {
		r.cells = append(r.cells, cell{name: cellName(values), values: values})
	}
	r.checkArch()
}

func (r *resolver) tooManyCells(m *node) {
	r.diags.Addf(r.source.name(m), "matrix-too-large", "", "the matrix has more than %d combinations", maxCells)
}

func multiply(cells []map[string]any, name string, list *node) []map[string]any {
	var all []map[string]any
	for _, c := range cells {
		for _, item := range list.items {
			next := maps.Clone(c)
			next[name] = item.value
			all = append(all, next)
		}
	}
	return all
}

func (r *resolver) exclude(cells []map[string]any, keys []string, exclude *node) []map[string]any {
	if exclude == nil {
		return cells
	}
	for _, entry := range exclude.items {
		for _, name := range entry.names {
			if !slices.Contains(keys, name) {
				r.diags.Addf(r.source.name(entry.fields[name]), "unknown-key", didYouMean(name, keys, "keys of the matrix are "+strings.Join(keys, ", ")),
					"the matrix has no key %q", name)
			}
		}
		before := len(cells)
		cells = slices.DeleteFunc(cells, func(c map[string]any) bool {
			return len(entry.names) > 0 && matches(c, entry, entry.names)
		})
		if len(cells) == before && len(entry.names) > 0 {
			r.diags.Warnf(r.source.value(entry), "useless-exclude", "", "this excludes nothing")
		}
	}
	return cells
}

// include adds each entry's values to the combinations whose own values it doesn't
// change; an entry that fits none becomes a combination of its own.
func (r *resolver) include(cells []map[string]any, keys []string, include *node) []map[string]any {
	if include == nil {
		return cells
	}
	original := len(cells)
	if len(keys) == 0 {
		cells, original = nil, 0
	}
	for _, entry := range include.items {
		var own []string
		for _, name := range entry.names {
			if slices.Contains(keys, name) {
				own = append(own, name)
			}
		}
		added := false
		for _, c := range cells[:original] {
			if matches(c, entry, own) {
				fill(c, entry)
				added = true
			}
		}
		if !added {
			c := map[string]any{}
			fill(c, entry)
			cells = append(cells, c)
		}
	}
	return cells
}

func fill(c map[string]any, entry *node) {
	for _, name := range entry.names {
		c[name] = entry.fields[name].value
	}
}

func matches(c map[string]any, entry *node, names []string) bool {
	for _, name := range names {
		if string(canonical(c[name])) != string(canonical(entry.fields[name].value)) {
			return false
		}
	}
	return true
}

func cellName(values map[string]any) string {
	var parts []string
	for _, name := range sortedKeys(values) {
		text, err := textOf(values[name])
		if err != nil {
			text = string(canonical(values[name]))
		}
		parts = append(parts, name+"="+text)
	}
	return strings.Join(parts, ",")
}

// checkArch reports an architecture that came in through include.
func (r *resolver) checkArch() {
	include := r.root.get("matrix", "include")
	if include == nil {
		return
	}
	for _, entry := range include.items {
		a := entry.get("arch")
		if a == nil || a.text() == "amd64" || a.text() == "arm64" {
			continue
		}
		r.diags.Addf(r.source.value(a), "bad-value", didYouMean(a.text(), []string{"amd64", "arm64"}, ""),
			"%s is not one of amd64, arm64", written(a))
	}
}

// matrixKinds is the type of each key of the matrix: "any" where its values differ in
// type, or where some combination doesn't have it.
func matrixKinds(cells []cell) map[string]string {
	kinds := map[string]string{}
	count := map[string]int{}
	for _, c := range cells {
		for name, v := range c.values {
			kind := kindOfValue(v)
			if kinds[name] != "" && kinds[name] != kind {
				kind = "any"
			}
			kinds[name] = kind
			count[name]++
		}
	}
	for name := range kinds {
		if count[name] < len(cells) {
			kinds[name] = "any"
		}
	}
	return kinds
}

func kindOfValue(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case int64:
		return "integer"
	case float64:
		return "number"
	case bool:
		return "boolean"
	}
	return "any"
}

// fullCellName is what a combination adds to a default name.
func (c cell) suffix() string {
	suffix := ""
	for _, name := range sortedKeys(c.values) {
		text, err := textOf(c.values[name])
		if err != nil {
			text = fmt.Sprint(c.values[name])
		}
		suffix += "-" + strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._+-", r) {
				return r
			}
			return '-'
		}, text)
	}
	return suffix
}
