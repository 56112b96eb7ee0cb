package spec

import (
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/diag"
)

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
	if n.tmpl == nil || n.tmpl.broken || staticKey(pointer) != "" {
		return
	}
	programs := make([]*program, len(n.tmpl.pieces))
	for i, p := range n.tmpl.pieces {
		if p.isExpr {
			programs[i] = r.compilePiece(n, p, ctx)
		}
	}
	if !ctx.condition || r.checkCondition(n, programs) {
		r.programs[n.tmpl] = programs
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

func (r *resolver) checkCondition(n *node, programs []*program) bool {
	if _, ok := n.tmpl.whole(); !ok {
		r.diags.Addf(r.source.value(n), "bad-condition", "put all of it into one ${{ … }}, or leave ${{ }} out",
			"a condition is one expression")
		return false
	}
	if p := programs[0]; p != nil && p.kind != "boolean" && p.kind != "any" {
		r.diags.Addf(r.source.value(n), "bad-condition", "compare it with something, as in x == \"y\"",
			"a condition is true or false, but this is %s", kindName(p.kind))
		return false
	}
	return true
}
