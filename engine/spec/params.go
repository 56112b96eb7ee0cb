package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/diag"
)

// ParseParams reads a file of param values: a mapping of names to values, in YAML or
// JSON. The map is nil when there are errors; the list is sorted.
func ParseParams(path string, src []byte) (map[string]any, diag.List) {
	var diags diag.List
	root, s := readYAML(path, src, &diags)
	if root != nil && root.fields == nil {
		diags.Addf(s.value(root), "wrong-type", "write one `name: value` per line", "a params file is a mapping of names to values")
	}
	diags = s.finish(diags)
	if diags.HasErrors() {
		return nil, diags
	}
	return root.value.(map[string]any), diags
}

// resolveParams gives every param its value: from the command line, from a params file,
// or its default.
func (r *resolver) resolveParams() {
	r.params = map[string]any{}
	declared := r.root.get("params")
	var names []string
	if declared != nil {
		names = declared.names
	}
	r.unknownParams(names, declared)
	for _, name := range names {
		p := param{resolver: r, name: name, decl: declared.fields[name]}
		if p.decl.fields == nil {
			continue
		}
		p.kind = p.decl.get("type").text()
		p.checkDeclaration()
		p.resolve()
	}
}

func (r *resolver) unknownParams(names []string, declared *node) {
	given := sortedKeys(r.in.Params)
	for _, name := range sortedKeys(r.in.ParamValues) {
		if !slices.Contains(given, name) {
			given = append(given, name)
		}
	}
	for _, name := range given {
		if slices.Contains(names, name) {
			continue
		}
		hint := "the file declares no params"
		if len(names) > 0 {
			hint = didYouMean(name, names, "params are "+strings.Join(names, ", "))
		}
		r.diags.Addf(r.source.name(declared), "unknown-param", hint, "there is no param %q", name)
	}
}

// param is one declared param being resolved.
type param struct {
	*resolver
	name, kind string
	decl       *node
}

// checkDeclaration checks what the schema can't: that the parts fit each other.
func (p *param) checkDeclaration() {
	if d := p.decl.get("default"); d != nil {
		p.check(d.value, p.source.value(d), "the default")
	}
	numeric := p.kind == "integer" || p.kind == "number"
	for _, key := range []string{"minimum", "maximum"} {
		if n := p.decl.get(key); n != nil && !numeric {
			p.diags.Addf(p.source.name(n), "bad-param", "remove it", "%s is only for an integer or number", key)
		}
	}
	if n := p.decl.get("pattern"); n != nil && p.kind != "string" {
		p.diags.Addf(p.source.name(n), "bad-param", "remove it", "pattern is only for a string")
	}
	low, high := p.decl.get("minimum"), p.decl.get("maximum")
	if low != nil && high != nil && numberOf(low.value) > numberOf(high.value) {
		p.diags.Addf(p.source.value(high), "bad-param", "", "the maximum %s is less than the minimum %s", written(high), written(low))
	}
	if enum := p.decl.get("enum"); enum != nil {
		for _, item := range enum.items {
			if _, err := coerce(item.value, p.kind); err != nil {
				p.diags.Addf(p.source.value(item), "bad-param", "", "%s is not of type %s", written(item), p.kind)
			}
		}
	}
}

func (p *param) resolve() {
	pos := p.source.name(p.decl)
	if raw, ok := p.in.Params[p.name]; ok {
		v, err := parseParam(raw, p.kind)
		if err != nil {
			p.diags.Addf(pos, "bad-param", p.hint(), "--param %s=%s: %v", p.name, cut(raw), err)
			return
		}
		p.set(v, pos, fmt.Sprintf("--param %s=%s:", p.name, cut(raw)))
		return
	}
	if v, ok := p.in.ParamValues[p.name]; ok {
		p.set(v, pos, fmt.Sprintf("the params file gives %s:", p.name))
		return
	}
	if d := p.decl.get("default"); d != nil {
		// A default that doesn't fit has been reported.
		if v, err := normal(d.value); err == nil {
			p.params[p.name] = v
		}
		return
	}
	p.diags.Addf(pos, "missing-param", fmt.Sprintf("give it with --param %s=…, or add a default", p.name),
		"the param %q has no value", p.name)
}

func (p *param) set(v any, pos diag.Pos, what string) {
	if p.check(v, pos, what) {
		p.params[p.name] = v
	}
}

func (p *param) hint() string {
	return strings.TrimSuffix(p.decl.get("description").text(), ".")
}

// check reports a value that doesn't fit the declaration.
func (p *param) check(v any, pos diag.Pos, what string) bool {
	fail := func(format string, args ...any) bool {
		p.diags.Addf(pos, "bad-param", p.hint(), what+" "+format, args...)
		return false
	}
	if _, err := coerce(v, p.kind); err != nil {
		return fail("%s is not %s", canonical(v), kindName(p.kind))
	}
	if s, ok := v.(string); ok && len(s) > maxText {
		return fail("the text is longer than %d bytes", maxText)
	}
	if low := p.decl.get("minimum"); low != nil && p.kind != "string" && numberOf(v) < numberOf(low.value) {
		return fail("%s is less than the minimum %s", canonical(v), written(low))
	}
	if high := p.decl.get("maximum"); high != nil && p.kind != "string" && numberOf(v) > numberOf(high.value) {
		return fail("%s is more than the maximum %s", canonical(v), written(high))
	}
	if enum := p.decl.get("enum"); enum != nil && !p.allowed(v, enum) {
		return fail("%s is not one of %s", canonical(v), listed(enum))
	}
	text, isText := v.(string)
	if re, err := regexp.Compile(p.decl.get("pattern").text()); isText && err == nil && !re.MatchString(text) {
		return fail("%s does not match the pattern %s", canonical(v), re)
	}
	return true
}

// allowed tells whether a value, or every item of a list, is in an enum.
func (p *param) allowed(v any, enum *node) bool {
	if list, ok := v.([]any); ok {
		for _, item := range list {
			if !p.allowed(item, enum) {
				return false
			}
		}
		return true
	}
	return slices.ContainsFunc(enum.items, func(n *node) bool {
		return string(canonical(n.value)) == string(canonical(v))
	})
}

func listed(enum *node) string {
	all := make([]string, len(enum.items))
	for i, n := range enum.items {
		all[i] = written(n)
	}
	return strings.Join(all, ", ")
}

func numberOf(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// parseParam reads a value from the command line: a list is separated by commas, or
// written in brackets as in YAML.
func parseParam(raw, kind string) (any, error) {
	switch kind {
	case "integer":
		n, err := strconv.ParseInt(raw, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not an integer", cut(raw))
		}
		return n, nil
	case "number":
		n, err := strconv.ParseFloat(raw, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", cut(raw))
		}
		return normal(n)
	case "boolean":
		switch raw {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is not true or false", cut(raw))
	case "list":
		return parseList(raw)
	}
	return raw, nil
}

func parseList(raw string) (any, error) {
	list := []any{}
	if strings.HasPrefix(strings.TrimSpace(raw), "[") {
		var diags diag.List
		root, _ := readYAML("--param", []byte(raw), &diags)
		if root == nil || root.items == nil || diags.HasErrors() {
			return nil, fmt.Errorf("%q is not a list such as [a, b] or a,b", cut(raw))
		}
		return root.value, nil
	}
	if raw == "" {
		return list, nil
	}
	for item := range strings.SplitSeq(raw, ",") {
		list = append(list, strings.TrimSpace(item))
	}
	return list, nil
}
