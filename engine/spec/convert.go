package spec

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/diag"
)

// converter turns YAML nodes into nodes of ours, once, and checks on the way what the
// library lets pass.
type converter struct {
	source *source
	diags  *diag.List
	count  int
	// open are the collections being converted, to find an alias inside its own anchor.
	open []*yaml.Node
	// full tells that the rest was left out.
	full bool
}

func (c *converter) convert(key, y *yaml.Node) *node {
	at := y
	for at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	n := &node{key: key, at: at}
	c.count++
	switch {
	case c.full:
		return n
	case c.count > maxNodes:
		c.full = true
		c.diags.Addf(c.source.pos(y), "too-many-values", "aliases are counted each time they are used",
			"the file has more than %d values", maxNodes)
		return n
	case len(c.open) >= maxDepth:
		c.full = true
		c.diags.Addf(c.source.pos(y), "too-deep", "", "values are nested more than %d deep", maxDepth)
		return n
	case y.Kind == yaml.AliasNode && c.isOpen(at):
		c.full = true
		c.diags.Addf(c.source.pos(y), "alias-cycle", "", "*%s stands inside the value it refers to", y.Value)
		return n
	}
	if at.Kind == yaml.ScalarNode {
		c.scalar(n)
		return n
	}
	c.open = append(c.open, at)
	defer func() { c.open = c.open[:len(c.open)-1] }()
	if at.Kind == yaml.SequenceNode {
		c.list(n)
	} else {
		c.object(n)
	}
	return n
}

func (c *converter) isOpen(y *yaml.Node) bool {
	for _, o := range c.open {
		if o == y {
			return true
		}
	}
	return false
}

func (c *converter) list(n *node) {
	c.checkTag(n.at, "!!seq")
	values := make([]any, len(n.at.Content))
	n.items = make([]*node, len(n.at.Content))
	for i, y := range n.at.Content {
		item := c.convert(nil, y)
		n.items[i], values[i] = item, item.value
		n.dynamic = n.dynamic || item.dynamic
	}
	n.value = values
}

func (c *converter) object(n *node) {
	c.checkTag(n.at, "!!map")
	values := make(map[string]any, len(n.at.Content)/2)
	n.fields = make(map[string]*node, len(n.at.Content)/2)
	n.value = values
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.at.Content); i += 2 {
		key, y := n.at.Content[i], n.at.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merges = append(merges, y)
			continue
		}
		name, ok := c.keyName(key)
		if !ok {
			continue
		}
		if first, ok := n.fields[name]; ok {
			c.diags.Addf(c.source.pos(key), "duplicate-key", "remove one of the two",
				"the key %q is already on line %d", name, first.key.Line)
			continue
		}
		c.add(n, values, name, c.convert(key, y))
	}
	for _, y := range merges {
		c.merge(n, values, y)
	}
}

func (c *converter) add(n *node, values map[string]any, name string, field *node) {
	n.names = append(n.names, name)
	n.fields[name], values[name] = field, field.value
	n.dynamic = n.dynamic || field.dynamic
}

// merge adds what `<<` names, except for keys that are there already.
func (c *converter) merge(n *node, values map[string]any, y *yaml.Node) {
	from := c.convert(nil, y)
	sources := []*node{from}
	if from.items != nil {
		sources = from.items
	}
	for _, m := range sources {
		if m.fields == nil {
			if !c.full {
				c.diags.Addf(c.source.pos(y), "bad-merge", "write `<<: *anchor`, where the anchor is a mapping",
					"<< merges mappings only")
			}
			continue
		}
		for _, name := range m.names {
			if _, ok := n.fields[name]; !ok {
				c.add(n, values, name, m.fields[name])
			}
		}
	}
}

func (c *converter) keyName(key *yaml.Node) (string, bool) {
	at := key
	for at.Kind == yaml.AliasNode {
		at = at.Alias
	}
	if at.Kind != yaml.ScalarNode {
		c.diags.Addf(c.source.pos(key), "bad-key", "", "a key must be a text")
		return "", false
	}
	if strings.Contains(at.Value, "${{") {
		c.diags.Addf(c.source.pos(key), "expression-not-allowed", "write the key itself",
			"an expression can't be a key")
		return "", false
	}
	c.warnWord(at)
	return at.Value, true
}

func (c *converter) checkTag(y *yaml.Node, want string) {
	if tag := y.ShortTag(); tag != want {
		c.diags.Addf(c.source.pos(y), "unknown-tag", "remove the tag", "the YAML tag %q has no meaning here", y.Tag)
	}
}

func (c *converter) scalar(n *node) {
	y := n.at
	switch y.ShortTag() {
	case "!!null":
		return
	case "!!str", "!!timestamp":
		n.value = y.Value
		c.warnWord(y)
		if strings.Contains(y.Value, "${{") {
			n.dynamic = true
			n.tmpl = &template{}
		}
	case "!!bool":
		n.value = strings.EqualFold(y.Value, "true")
	case "!!int", "!!float":
		c.number(n)
	default:
		n.value = y.Value
		c.checkTag(y, "!!str")
	}
}

func (c *converter) number(n *node) {
	y := n.at
	var v any
	if err := y.Decode(&v); err != nil {
		c.diags.Addf(c.source.pos(y), "bad-number", "", "%q is not a number", y.Value)
		return
	}
	switch v := v.(type) {
	case int:
		n.value = int64(v)
	case int64:
		n.value = v
	case uint64:
		n.value = float64(v)
	case float64:
		n.value = v
		if math.IsInf(v, 0) || math.IsNaN(v) {
			n.value = 0.0
			c.diags.Addf(c.source.pos(y), "not-finite", "", "%s is no number that can be used here", y.Value)
		}
	}
	if leadingZero.MatchString(y.Value) && y.Style == 0 {
		c.diags.Warnf(c.source.pos(y), "leading-zero", fmt.Sprintf("quote it if it is a text: %q", y.Value),
			"%s is read as the number %v", y.Value, n.value)
	}
}

var leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]+$`)

// warnWord warns of a plain word that YAML 1.1 tools take for a boolean.
func (c *converter) warnWord(y *yaml.Node) {
	if y.Style != 0 || len(y.Value) > 3 {
		return
	}
	switch strings.ToLower(y.Value) {
	case "yes", "on", "no", "off":
		c.diags.Warnf(c.source.pos(y), "yaml-word", fmt.Sprintf("write true or false for a boolean, %q for a text", y.Value),
			"%s is a text here, but a boolean in older YAML tools", y.Value)
	}
}
