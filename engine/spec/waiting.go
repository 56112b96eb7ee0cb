package spec

import (
	"fmt"
	"math"
	"strings"
)

// waiting is a string with expressions that need what is only known in a run. One without
// parts stands for a string with a mistake, and never leaves the package.
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
	if len(w.parts) == 0 {
		return "any"
	}
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
