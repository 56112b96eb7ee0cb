package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/step"
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
	var all []*Pipeline
	for _, cell := range r.cells {
		all = append(all, r.pipeline(cell))
	}
	r.checkTested(all)
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

// pipeline resolves one combination of the matrix.
func (r *resolver) pipeline(c cell) *Pipeline {
	env := map[string]any{"params": exprValues(r.params, r.scope.params), "matrix": exprValues(c.values, r.scope.matrix)}
	e := evaluator{resolver: r, env: env}
	name := r.root.get("name").text()
	release := e.evaluate(r.root.get("release"), context{early: true})
	description := e.evaluate(r.root.get("description"), context{early: true})
	env["pipeline"] = map[string]any{"name": name, "release": release.text(), "description": description.text()}
	root := e.evaluate(r.root, context{})
	r.recheck(root)
	p := &Pipeline{
		File: r.path, Name: name, Release: release.text(), Description: description.text(),
		Cell: c.name, Matrix: c.values, Arch: c.arch(), Params: r.params, Secrets: r.secrets,
		Builder: r.builder(root), Local: r.local(root), AWS: r.aws(root, c.arch()), Base: r.base(root),
		Harden: r.harden(root), Publish: r.publish(root, c), Copy: r.copySection(root), Retain: r.retain(root),
	}
	if p.Builder == "aws" && p.AWS == nil {
		r.diags.Addf(r.source.name(root.get("builder")), "missing-key", "add builders: {aws: {region: …}}",
			"the builder aws needs its settings in builders.aws")
	}
	p.Steps = r.resolveSteps(root, &e)
	return p
}

// checkTested reports images that would be published without any test having run.
func (r *resolver) checkTested(all []*Pipeline) {
	tested := func(s Step) bool { return s.Section == step.Tests && s.Skip == "" }
	untested := slices.DeleteFunc(slices.Clone(all), func(p *Pipeline) bool {
		return p.Publish == nil || slices.ContainsFunc(p.Steps, tested)
	})
	if len(untested) == 0 {
		return
	}
	which := untested[0].Name
	if len(untested) < len(all) {
		which += "[" + untested[0].Cell + "]"
	}
	r.diags.Addf(untested[0].Publish.Pos, "untested-publish", "add a test, such as tests: [{uses: boot}]",
		"nothing is published untested, and %s has no test that runs", which)
}

// checkNames reports combinations that would be published under one name.
func (r *resolver) checkNames(all []*Pipeline) {
	first := map[string]*Pipeline{}
	for _, p := range all {
		if p.Publish == nil || p.Publish.Name == "" {
			// A name that is empty has been reported.
			continue
		}
		if other := first[p.Publish.Name]; other != nil {
			at := r.root.get("publish", "name")
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
