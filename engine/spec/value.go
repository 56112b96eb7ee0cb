package spec

import (
	"fmt"
	"slices"

	"github.com/gildhq/gild/engine/diag"
)

// Value is a JSON value in which strings may wait for secrets or for outputs of steps.
// The zero Value is null. A Value never changes and is safe for concurrent use.
type Value struct {
	root   *node
	source *source
}

// NewValue makes a Value that waits for nothing and has no place in a file, from
// anything that encodes as JSON. It panics for what doesn't, which is a mistake in the
// program: a channel, a function, or a number that isn't finite.
func NewValue(v any) Value {
	plain, err := normal(v)
	if err != nil {
		panic(fmt.Sprintf("spec.NewValue: %v", err))
	}
	return Value{root: &node{value: plain}}
}

// Canonical returns the value as JSON with sorted keys and no spacing: the same bytes
// for values that mean the same. A waiting string is the object {"$wait": template},
// with "$known" holding the values of params and the like that it depends on; an
// object of the user's with such a key has one "$" more in front of it.
func (v Value) Canonical() []byte {
	if v.root == nil {
		return []byte("null")
	}
	return canonical(v.root.value)
}

// Steps returns the ids of the steps whose outputs the value waits for, sorted.
func (v Value) Steps() []string { return v.waitsFor("steps") }

// Secrets returns the names of the secrets the value waits for, sorted.
func (v Value) Secrets() []string { return v.waitsFor("secrets") }

func (v Value) waitsFor(root string) []string {
	var names []string
	if v.root == nil {
		return nil
	}
	eachWaiting(v.root.value, func(w *waiting) {
		for _, r := range w.refs() {
			if r.root == root {
				names = append(names, r.name)
			}
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// Eval returns the value with everything it waits for filled in, as plain JSON data:
// nil, bool, string, int64, float64, []any and map[string]any. The result belongs to the
// caller. It fails when an output or secret is missing or has another type than declared,
// or when an expression fails.
func (v Value) Eval(steps map[string]map[string]any, secrets map[string]string) (any, error) {
	if v.root == nil {
		return nil, nil
	}
	return evalPlain(v.root.value, steps, secrets)
}

func evalPlain(v any, steps map[string]map[string]any, secrets map[string]string) (any, error) {
	switch v := v.(type) {
	case *waiting:
		return v.eval(steps, secrets)
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			plain, err := evalPlain(item, steps, secrets)
			if err != nil {
				return nil, err
			}
			list[i] = plain
		}
		return list, nil
	case map[string]any:
		object := make(map[string]any, len(v))
		for _, name := range sortedKeys(v) {
			plain, err := evalPlain(v[name], steps, secrets)
			if err != nil {
				return nil, err
			}
			object[name] = plain
		}
		return object, nil
	}
	return v, nil
}

// Pos returns the place in the file of the value at a JSON pointer, or of the nearest
// value around it. It is the zero Pos for a Value that comes from no file.
func (v Value) Pos(pointer string) diag.Pos {
	if v.source == nil || v.root == nil {
		return diag.Pos{}
	}
	n, _ := v.root.find(pointer)
	return v.source.value(n)
}
