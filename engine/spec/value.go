package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

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

// waiting is a string with expressions that need what is only known in a run.
type waiting struct {
	parts []waitPart
	// text makes a text of the result even if the expression is all there is.
	text bool
	// scope has the types of step outputs; env the values known already.
	scope *scope
	env   map[string]any
}

// waitPart is a literal text, or an expression.
type waitPart struct {
	literal string
	program *program
}

func (w *waiting) refs() []ref {
	var all []ref
	for _, p := range w.parts {
		if p.program != nil {
			all = append(all, p.program.refs...)
		}
	}
	return all
}

// kind is the type of the result.
func (w *waiting) kind() string {
	if len(w.parts) == 1 && !w.text {
		return w.parts[0].program.kind
	}
	return "string"
}

func (w *waiting) eval(steps map[string]map[string]any, secrets map[string]string) (any, error) {
	env, err := w.runEnv(steps, secrets)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, p := range w.parts {
		if p.program == nil {
			b.WriteString(p.literal)
			continue
		}
		v, err := p.program.run(env)
		if err != nil {
			return nil, fmt.Errorf("evaluate %q: %w", p.program.text, err)
		}
		if len(w.parts) == 1 && !w.text {
			return v, nil
		}
		s, err := textOf(v)
		if err != nil {
			return nil, fmt.Errorf("evaluate %q: %w", p.program.text, err)
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

// runEnv is what the expressions see in a run: only what they refer to.
func (w *waiting) runEnv(steps map[string]map[string]any, secrets map[string]string) (map[string]any, error) {
	env := map[string]any{"params": w.env["params"], "matrix": w.env["matrix"], "pipeline": w.env["pipeline"]}
	given, outputs := map[string]any{}, map[string]any{}
	env["secrets"], env["steps"] = given, outputs
	for _, r := range w.refs() {
		switch r.root {
		case "secrets":
			s, ok := secrets[r.name]
			if !ok {
				return nil, fmt.Errorf("the secret %q is not known", r.name)
			}
			given[r.name] = s
		case "steps":
			v, ok := steps[r.name][r.output]
			if !ok {
				return nil, fmt.Errorf("step %q gave no output %q", r.name, r.output)
			}
			typed, err := coerce(v, w.scope.steps[r.name][r.output])
			if err != nil {
				return nil, fmt.Errorf("output %q of step %q: %w", r.output, r.name, err)
			}
			if outputs[r.name] == nil {
				outputs[r.name] = map[string]any{"outputs": map[string]any{}}
			}
			outputs[r.name].(map[string]any)["outputs"].(map[string]any)[r.output] = typed
		}
	}
	return env, nil
}

// coerce gives a JSON value the Go type that compiled expressions expect of a kind.
func coerce(v any, kind string) (any, error) {
	plain, err := normal(v)
	if err != nil {
		return nil, err
	}
	switch p := plain.(type) {
	case string:
		if kind == "string" {
			return p, nil
		}
	case bool:
		if kind == "boolean" {
			return p, nil
		}
	case []any:
		if kind == "list" {
			return p, nil
		}
	case int64:
		switch kind {
		case "integer":
			return int(p), nil
		case "number":
			return float64(p), nil
		}
	case float64:
		switch {
		case kind == "number":
			return p, nil
		case kind == "integer" && p == math.Trunc(p) && math.Abs(p) < 1<<53:
			return int(p), nil
		}
	}
	if kind == "any" || kind == "" {
		return plain, nil
	}
	return nil, fmt.Errorf("expected %s", kindName(kind))
}

func kindName(kind string) string {
	switch kind {
	case "boolean":
		return "true or false"
	case "integer":
		return "an integer"
	default:
		return "a " + kind
	}
}

// canonicalForm is what a waiting string is in canonical JSON.
func (w *waiting) canonicalForm() map[string]any {
	var b strings.Builder
	known := map[string]any{}
	for _, p := range w.parts {
		if p.program == nil {
			b.WriteString(strings.ReplaceAll(p.literal, "${{", `${{"${{"}}`))
			continue
		}
		b.WriteString("${{" + p.program.text + "}}")
		for _, r := range p.program.refs {
			if !r.waits() {
				known[r.root+"."+r.name] = w.env[r.root].(map[string]any)[r.name]
			}
		}
	}
	form := map[string]any{"$wait": b.String()}
	if w.text {
		form["$text"] = true
	}
	if len(known) > 0 {
		form["$known"] = known
	}
	return form
}

func eachWaiting(v any, do func(*waiting)) {
	switch v := v.(type) {
	case *waiting:
		do(v)
	case []any:
		for _, item := range v {
			eachWaiting(item, do)
		}
	case map[string]any:
		for _, field := range v {
			eachWaiting(field, do)
		}
	}
}

// canonical encodes plain data, and waiting strings in it.
func canonical(v any) []byte {
	var b bytes.Buffer
	appendCanonical(&b, v)
	return b.Bytes()
}

func appendCanonical(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case *waiting:
		appendObject(b, v.canonicalForm(), false)
	case map[string]any:
		appendObject(b, v, true)
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			appendCanonical(b, item)
		}
		b.WriteByte(']')
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			b.WriteString(strconv.FormatInt(int64(v), 10))
			return
		}
		appendJSON(b, v)
	default:
		appendJSON(b, v)
	}
}

func appendObject(b *bytes.Buffer, object map[string]any, escape bool) {
	b.WriteByte('{')
	for i, name := range sortedKeys(object) {
		if i > 0 {
			b.WriteByte(',')
		}
		written := name
		if escape && strings.TrimLeft(name, "$") == "wait" && name != "wait" {
			written = "$" + name
		}
		appendJSON(b, written)
		b.WriteByte(':')
		appendCanonical(b, object[name])
	}
	b.WriteByte('}')
}

func appendJSON(b *bytes.Buffer, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("spec: encode plain data: %v", err))
	}
	b.Write(data)
}

// normal turns any JSON-like value into plain data.
func normal(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, string, int64:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("%v is not a finite number", v)
		}
		return v, nil
	case []any:
		return normalList(v)
	case map[string]any:
		return normalObject(v)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		return nil, err
	}
	if n, ok := plain.(json.Number); ok {
		return number(n)
	}
	return normal(plain)
}

func normalList(v []any) (any, error) {
	list := make([]any, len(v))
	for i, item := range v {
		plain, err := normal(item)
		if err != nil {
			return nil, err
		}
		list[i] = plain
	}
	return list, nil
}

func normalObject(v map[string]any) (any, error) {
	object := make(map[string]any, len(v))
	for name, field := range v {
		plain, err := normal(field)
		if err != nil {
			return nil, err
		}
		object[name] = plain
	}
	return object, nil
}

func number(n json.Number) (any, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	return n.Float64()
}

// textOf makes a text of a scalar, for a place inside other text.
func textOf(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, float64:
		return string(canonical(v)), nil
	}
	return "", fmt.Errorf("a list or mapping can't stand inside a text; use join(list, \" \") or toJSON(value)")
}
