package conformance

import (
	"encoding/json"
	"errors"
	"fmt"

	"gopkg.in/yaml.v3"
)

// document is a YAML value as JSON. What YAML takes for a date stays a string, as in a
// pipeline.
type document json.RawMessage

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *document) UnmarshalYAML(n *yaml.Node) error {
	budget := maxNodes
	v, err := plain(n, &budget)
	if err != nil {
		return err
	}
	text, err := json.Marshal(v)
	*d = text
	return err
}

// maxNodes bounds a value with its aliases written out.
const maxNodes = 10_000

// plain turns a node into what encoding/json knows.
func plain(n *yaml.Node, budget *int) (any, error) {
	if *budget--; *budget < 0 {
		return nil, fmt.Errorf("line %d: a value of more than %d parts", n.Line, maxNodes)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0], budget)
	case yaml.AliasNode:
		return plain(n.Alias, budget)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, item := range n.Content {
			v, err := plain(item, budget)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	case yaml.MappingNode:
		return object(n, budget)
	}
	return scalar(n)
}

func object(n *yaml.Node, budget *int) (any, error) {
	all := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if _, twice := all[key]; twice {
			return nil, fmt.Errorf("line %d: the key %q is there twice", n.Content[i].Line, key)
		}
		v, err := plain(n.Content[i+1], budget)
		if err != nil {
			return nil, err
		}
		all[key] = v
	}
	return all, nil
}

func scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool", "!!int", "!!float":
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, err
		}
		if _, err := json.Marshal(v); err != nil {
			return nil, fmt.Errorf("line %d: %q is no number that JSON has", n.Line, n.Value)
		}
		return v, nil
	case "!!str", "!!timestamp":
		return n.Value, nil
	}
	return nil, fmt.Errorf("line %d: JSON has nothing like %s", n.Line, n.ShortTag())
}

var errNotObject = errors.New("a config is a mapping")

// config returns the document when it is an object; nothing stands for an empty one.
func (d document) config() (json.RawMessage, error) {
	switch {
	case len(d) == 0 || string(d) == "null":
		return json.RawMessage("{}"), nil
	case d[0] != '{':
		return nil, errNotObject
	}
	return json.RawMessage(d), nil
}
