package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/diag"
)

// Inputs are what the caller adds to a file.
type Inputs struct {
	// Params are values of params as given on the command line, not yet typed.
	Params map[string]string
	// ParamValues are values of params from a file read by [ParseParams]; Params win.
	ParamValues map[string]any
	// Builder is the builder asked for, or empty for what the file says.
	Builder string
}

// Resolve gives params their values, spreads out the matrix, checks all expressions and
// evaluates those that can be, and returns one Pipeline per combination of the matrix,
// in the order of the file. The Pipelines are nil when Parse or Resolve found an error.
// The list holds only what Parse didn't report already; it is sorted.
func (f *File) Resolve(in Inputs) ([]*Pipeline, diag.List) {
	var diags diag.List
	r := resolver{File: f, in: in, diags: &diags, cache: map[string]*compiled{}}
	all := r.resolve()
	diags = f.source.finish(diags)
	if f.broken || diags.HasErrors() {
		return nil, diags
	}
	return all, diags
}

// resolve does the work of [File.Resolve]; what it returns is only good without errors.
func (r *resolver) resolve() []*Pipeline {
	r.resolveParams()
	r.resolveSecrets()
	r.expandMatrix()
	r.checkNeeds()
	r.prepareScope()
	r.compileAll(r.root, "", context{})
	if r.diags.HasErrors() {
		return nil
	}
	var all []*Pipeline
	for _, cell := range r.cells {
		all = append(all, r.pipeline(cell))
	}
	r.checkNames(all)
	return all
}

// resolver is the state of one call of Resolve.
type resolver struct {
	*File
	in      Inputs
	diags   *diag.List
	params  map[string]any
	secrets map[string]Secret
	cells   []cell
	scope   *scope
	early   *scope
	// cache holds compiled expressions by scope and text, programs those of each template.
	cache    map[string]*compiled
	programs map[*template][]*program
}

type compiled struct {
	program *program
	bad     *exprError
}

// prepareScope works out what expressions may refer to, and with which types.
func (r *resolver) prepareScope() {
	r.programs = map[*template][]*program{}
	r.scope = &scope{
		params: map[string]string{}, matrix: matrixKinds(r.cells), secrets: map[string]bool{},
		pipeline: map[string]string{"name": "string", "release": "string", "description": "string"},
		steps:    map[string]map[string]string{},
	}
	if params := r.root.get("params"); params != nil {
		for _, name := range params.names {
			r.scope.params[name] = params.fields[name].get("type").text()
			if r.scope.params[name] == "" {
				r.scope.params[name] = "any"
			}
		}
	}
	if secrets := r.root.get("secrets"); secrets != nil {
		for _, name := range secrets.names {
			r.scope.secrets[name] = true
		}
	}
	for _, sn := range r.steps {
		r.scope.steps[sn.id] = map[string]string{}
		if sn.kind != nil {
			r.scope.steps[sn.id] = sn.kind.step.Outputs
		}
	}
	r.early = &scope{params: r.scope.params, matrix: r.scope.matrix}
}

// context is where in the file an expression stands.
type context struct {
	// early marks what is evaluated before `pipeline` is known.
	early bool
	// step is the step the expression belongs to, with its position; key the part of it.
	step     *stepNode
	position int
	key      string
	// text makes texts of results: environment variables and tags.
	text bool
	// condition wants true or false.
	condition bool
	// schemas describe the value, inside `with`.
	schemas []*jsonschema.Schema
}

// within returns the context of a key, or an item, of a value inside `with`.
func (ctx context) within(token string, list bool) context {
	var inner []*jsonschema.Schema
	for _, s := range ctx.schemas {
		inner = append(inner, at(s, token, list, map[*jsonschema.Schema]bool{})...)
	}
	ctx.schemas = inner
	return ctx
}

// enter returns the context of a key below pointer.
func (r *resolver) enter(pointer, name string, ctx context) context {
	switch {
	case pointer == "":
		ctx.early = name == "release" || name == "description"
	case ctx.step != nil && ctx.key == "":
		ctx.key = name
		ctx.text = name == "env"
		ctx.condition = name == "when"
		if name == "with" && ctx.step.kind != nil && ctx.step.kind.formats {
			ctx.schemas = []*jsonschema.Schema{ctx.step.kind.with.schema}
		}
	case len(ctx.schemas) > 0:
		ctx = ctx.within(name, false)
	case pointer == "/publish" && name == "tags":
		ctx.text = true
	}
	return ctx
}

// compileAll checks every expression of the file once.
func (r *resolver) compileAll(n *node, pointer string, ctx context) {
	if n == nil || !n.dynamic {
		return
	}
	if isStep(pointer) {
		i := slices.IndexFunc(r.steps, func(sn *stepNode) bool { return sn.node == n })
		if i < 0 {
			return
		}
		ctx = context{step: r.steps[i], position: i}
	}
	for _, name := range n.names {
		r.compileAll(n.fields[name], join(pointer, name), r.enter(pointer, name, ctx))
	}
	for i, item := range n.items {
		inner := ctx
		if len(ctx.schemas) > 0 {
			inner = ctx.within("", true)
		}
		r.compileAll(item, joinIndex(pointer, i), inner)
	}
	if n.tmpl == nil || staticKey(pointer) != "" {
		return
	}
	programs := make([]*program, len(n.tmpl.pieces))
	for i, p := range n.tmpl.pieces {
		if p.isExpr {
			programs[i] = r.compilePiece(n, p, ctx)
		}
	}
	r.programs[n.tmpl] = programs
	if ctx.condition {
		r.checkCondition(n, programs)
	}
}

func (r *resolver) compilePiece(n *node, p piece, ctx context) *program {
	sc, key := r.scope, p.expr
	if ctx.early {
		sc, key = r.early, "early "+p.expr
	}
	c := r.cache[key]
	if c == nil {
		c = &compiled{}
		c.program, c.bad = sc.compile(p.expr)
		r.cache[key] = c
	}
	if c.bad != nil {
		r.diags.Addf(r.source.inside(n, p.offset+c.bad.from, c.bad.width), c.bad.code, c.bad.hint, "%s", c.bad.message)
		return nil
	}
	if hasFormat(ctx.schemas, "gild-script") {
		r.diags.Addf(r.source.inside(n, p.offset-3, len(p.expr)+5), "expression-in-script",
			"set a variable in the step's env and let the script read that",
			"a value is never written into the text of a script")
		return c.program
	}
	for _, ref := range c.program.refs {
		r.checkReach(n, p, ref, ctx)
	}
	return c.program
}

// checkReach checks that a reference is allowed where it stands.
func (r *resolver) checkReach(n *node, p piece, ref ref, ctx context) {
	pos := func() diag.Pos { return r.source.inside(n, p.offset+ref.from, ref.width) }
	switch {
	case ref.root == "secrets" && ctx.key != "env":
		r.diags.Addf(pos(), "secret-outside-env", "set a variable in the step's env and read that",
			"the secret %q can only be used in the env of a step", ref.name)
	case ref.root != "steps":
	case ctx.key != "with" && ctx.key != "env" && ctx.key != "when":
		r.diags.Addf(pos(), "output-out-of-reach", "", "outputs of steps can only be used in with, env and when of a step")
	default:
		for i, sn := range r.steps {
			if sn.id == ref.name && i >= ctx.position {
				r.diags.Addf(pos(), "output-out-of-reach", "move it behind that step",
					"the step %q on line %d is not done before this one", ref.name, sn.node.at.Line)
			}
		}
	}
}

func (r *resolver) checkCondition(n *node, programs []*program) {
	if _, ok := n.tmpl.whole(); !ok {
		r.diags.Addf(r.source.value(n), "bad-condition", "put all of it into one ${{ … }}, or leave ${{ }} out",
			"a condition is one expression")
		return
	}
	if p := programs[0]; p != nil && p.kind != "boolean" && p.kind != "any" {
		r.diags.Addf(r.source.value(n), "bad-condition", "compare it with something, as in x == \"y\"",
			"a condition is true or false, but this is %s", kindName(p.kind))
	}
}

// pipeline resolves one combination of the matrix.
func (r *resolver) pipeline(c cell) *Pipeline {
	env := map[string]any{"params": exprValues(r.params, r.scope.params), "matrix": exprValues(c.values, r.scope.matrix)}
	e := evaluator{resolver: r, env: env}
	name := r.root.get("name").text()
	release := e.evaluate(r.root.get("release"), context{early: true})
	description := e.evaluate(r.root.get("description"), context{early: true})
	env["pipeline"] = map[string]any{"name": name, "release": release.text(), "description": description.text()}
	root := e.evaluate(r.root, context{})
	if root == nil {
		return nil
	}
	r.recheck(root)
	p := &Pipeline{
		File: r.path, Name: name, Release: release.text(), Description: description.text(),
		Cell: c.name, Matrix: c.values, Arch: c.arch(), Params: r.params, Secrets: r.secrets,
		Builder: r.builder(root), Local: r.local(root), AWS: r.aws(root), Base: r.base(root),
		Harden: r.harden(root), Publish: r.publish(root, c), Copy: r.copySection(root), Retain: r.retain(root),
	}
	if p.Builder == "aws" && p.AWS == nil {
		r.diags.Addf(r.source.name(root.get("builder")), "missing-key", "add builders: {aws: {region: …}}",
			"the builder aws needs its settings in builders.aws")
	}
	p.Steps = r.resolveSteps(root, &e)
	return p
}

// exprValues gives values the Go types that compiled expressions expect.
func exprValues(values map[string]any, kinds map[string]string) map[string]any {
	typed := make(map[string]any, len(kinds))
	for name, kind := range kinds {
		v, err := coerce(values[name], kind)
		if err != nil {
			v = nil
		}
		typed[name] = v
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
	check(r.catalog.envelope, root, changed(root))
	for _, sn := range r.steps {
		n, ok := root.find(sn.pointer)
		if !ok || !n.dynamic {
			continue
		}
		check(r.catalog.step, n, changed(n))
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
// their `with` are left out too; they are checked one by one.
func changed(n *node) any {
	switch {
	case !n.dynamic:
		return nil
	case n.tmpl != nil:
		return placeholders(n)
	case n.items != nil:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = changed(item)
		}
		return list
	}
	object := make(map[string]any, len(n.fields))
	for name, field := range n.fields {
		if field.dynamic && name != "with" && name != "customize" && name != "tests" {
			object[name] = changed(field)
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

func (e *evaluator) template(n *node, ctx context) *node {
	programs := e.programs[n.tmpl]
	if programs == nil {
		return n
	}
	w := &waiting{text: ctx.text, scope: e.scope, env: e.env}
	waits := false
	for i, p := range n.tmpl.pieces {
		if !p.isExpr {
			w.literal(p.literal)
			continue
		}
		if programs[i] == nil {
			return n
		}
		if programs[i].waits() {
			w.parts = append(w.parts, waitPart{program: programs[i]})
			waits = true
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
			e.diags.Addf(e.source.inside(n, p.offset, len(p.expr)), "expression-failed", "", "%v", err)
			return n
		}
		w.literal(text)
	}
	if waits {
		c := *n
		c.value = w
		return &c
	}
	text := ""
	if len(w.parts) == 1 {
		text = w.parts[0].literal
	}
	return result(n, text)
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

// checkNames reports combinations that would be published under one name.
func (r *resolver) checkNames(all []*Pipeline) {
	first := map[string]*Pipeline{}
	for _, p := range all {
		if p == nil || p.Publish == nil {
			continue
		}
		if other := first[p.Publish.Name]; other != nil {
			at := r.root.get("publish").get("name")
			hint := "add " + missingKeys(r.cells)
			r.diags.Addf(r.source.value(at), "publish-name-clash", hint,
				"the images %s and %s would both be published as %q", other.Cell, p.Cell, p.Publish.Name)
			return
		}
		first[p.Publish.Name] = p
	}
}

func missingKeys(cells []cell) string {
	var all []string
	for _, name := range sortedKeys(matrixKinds(cells)) {
		all = append(all, fmt.Sprintf("${{ matrix.%s }}", name))
	}
	return strings.Join(all, "-")
}
