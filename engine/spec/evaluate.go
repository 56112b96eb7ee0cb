package spec

import "unicode/utf8"

// exprValues gives values the Go types that compiled expressions expect. It leaves out
// what has no value, or one of another type, which has been reported.
func exprValues(values map[string]any, kinds map[string]string) map[string]any {
	typed := make(map[string]any, len(kinds))
	for name, kind := range kinds {
		if v, err := coerce(values[name], kind); err == nil {
			typed[name] = v
		}
	}
	return typed
}

// recheck validates what expressions came to.
func (r *resolver) recheck(root *node) {
	if !root.dynamic {
		return
	}
	check := func(s *shape, n *node, value any) {
		rep := report{shape: s, source: r.source, root: n, diags: r.diags, skip: skipUnevaluated}
		rep.check(value)
	}
	check(r.catalog.envelope, root, changed(root, ""))
	for _, sn := range r.steps {
		n, ok := root.find(sn.pointer)
		if !ok || !n.dynamic {
			continue
		}
		check(r.catalog.step, n, changed(n, sn.pointer))
		if with := n.get("with"); sn.kind != nil && with != nil && with.dynamic && with.fields != nil {
			check(sn.kind.with, with, placeholders(with))
		}
	}
}

// skipUnevaluated leaves out what Parse has reported already, and what can't be known of
// a value that waits.
func skipUnevaluated(n *node, keyword string) bool {
	if w, ok := n.value.(*waiting); ok {
		return keyword != "type" || w.kind() == "any"
	}
	return n.tmpl == nil && !(keyword == "uniqueItems" && n.dynamic)
}

// changed is the plain data of a pipeline file without what has no expressions, which has
// been checked already: its schema never makes one key depend on another. Steps and
// their `with` are left out too, because they are checked one by one, and conditions.
func changed(n *node, pointer string) any {
	switch {
	case !n.dynamic:
		return nil
	case n.tmpl != nil:
		return placeholders(n)
	case n.items != nil:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = changed(item, joinIndex(pointer, i))
		}
		return list
	}
	object := make(map[string]any, len(n.fields))
	for name, field := range n.fields {
		at := join(pointer, name)
		apart := isStepList(at) || isStep(pointer) && (name == "with" || name == "when")
		if field.dynamic && !apart {
			object[name] = changed(field, at)
		}
	}
	return object
}

// placeholders is the plain data of a node in which waiting strings are any value of
// their type.
func placeholders(n *node) any {
	if !n.dynamic {
		return n.value
	}
	switch v := n.value.(type) {
	case *waiting:
		return map[string]any{"string": "", "integer": int64(0), "number": 0.5, "boolean": false, "list": []any{}}[v.kind()]
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, field := range n.fields {
			object[name] = placeholders(field)
		}
		return object
	case []any:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = placeholders(item)
		}
		return list
	}
	return n.value
}

// evaluator replaces templates by what they come to.
type evaluator struct {
	*resolver
	env map[string]any
}

// evaluate returns n with every expression evaluated that can be. Nodes without
// expressions are shared, not copied.
func (e *evaluator) evaluate(n *node, ctx context) *node {
	if n == nil || !n.dynamic {
		return n
	}
	return e.at(n, "", ctx)
}

func (e *evaluator) at(n *node, pointer string, ctx context) *node {
	if !n.dynamic {
		return n
	}
	if n.tmpl != nil {
		return e.template(n, ctx)
	}
	c := *n
	switch {
	case n.fields != nil:
		c.fields = make(map[string]*node, len(n.fields))
		values := make(map[string]any, len(n.fields))
		for name, field := range n.fields {
			at := join(pointer, name)
			inner := e.enter(pointer, name, ctx)
			if isStep(pointer) {
				inner = context{key: name, text: name == "env"}
			}
			c.fields[name] = e.at(field, at, inner)
			values[name] = c.fields[name].value
		}
		c.value = values
	case n.items != nil:
		c.items = make([]*node, len(n.items))
		values := make([]any, len(n.items))
		for i, item := range n.items {
			c.items[i] = e.at(item, joinIndex(pointer, i), ctx)
			values[i] = c.items[i].value
		}
		c.value = values
	}
	return &c
}

// template evaluates one string. What has a mistake that was reported becomes a value
// that nothing is known of, so that the rest of the file can still be looked at.
func (e *evaluator) template(n *node, ctx context) *node {
	programs := e.programs[n.tmpl]
	if !e.usable(programs, n.tmpl) {
		return result(n, &waiting{})
	}
	w := &waiting{text: ctx.text, scope: e.scope, env: e.env}
	for i, p := range n.tmpl.pieces {
		switch {
		case !p.isExpr:
			w.literal(p.literal)
			continue
		case programs[i].waits():
			w.parts = append(w.parts, waitPart{program: programs[i]})
			continue
		}
		v, err := programs[i].run(e.env)
		if err == nil && len(programs) == 1 && !ctx.text {
			return result(n, v)
		}
		var text string
		if err == nil {
			text, err = textOf(v)
		}
		if err != nil {
			e.diags.Addf(e.source.inside(n, p.offset, utf8.RuneCountInString(p.expr)), "expression-failed", "", "%v", err)
			return result(n, &waiting{})
		}
		w.literal(text)
	}
	if len(w.refs()) > 0 {
		return result(n, w)
	}
	text := ""
	for _, p := range w.parts {
		text += p.literal
	}
	return result(n, text)
}

// usable tells whether all expressions of a template were compiled, and all params they
// refer to have values.
func (e *evaluator) usable(programs []*program, t *template) bool {
	if programs == nil {
		return false
	}
	for i, p := range t.pieces {
		if !p.isExpr {
			continue
		}
		if programs[i] == nil {
			return false
		}
		for _, r := range programs[i].refs {
			if _, ok := e.params[r.name]; r.root == "params" && !ok {
				return false
			}
		}
	}
	return true
}

// literal appends text that is known.
func (w *waiting) literal(text string) {
	if n := len(w.parts); n > 0 && w.parts[n-1].program == nil {
		w.parts[n-1].literal += text
		return
	}
	w.parts = append(w.parts, waitPart{literal: text})
}

// result is a template's node with what it came to, however deep that is.
func result(n *node, v any) *node {
	c := *n
	c.value = v
	switch v := v.(type) {
	case []any:
		c.items = make([]*node, len(v))
		for i, item := range v {
			c.items[i] = result(n, item)
		}
	case map[string]any:
		c.names = sortedKeys(v)
		c.fields = make(map[string]*node, len(v))
		for name, field := range v {
			c.fields[name] = result(n, field)
		}
	}
	return &c
}
