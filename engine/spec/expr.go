package spec

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"
)

// names that an expression may begin a reference with.
var roots = []string{"params", "matrix", "pipeline", "secrets", "steps"}

// scope is what the expressions of a file may refer to, with types. Types are those of
// params: "string", "integer", "number", "boolean", "list", and "any" where a matrix
// key has values of several types.
type scope struct {
	params, matrix, pipeline map[string]string
	secrets                  map[string]bool
	// steps are the outputs of each step, by id.
	steps map[string]map[string]string
}

// ref is one thing an expression refers to.
type ref struct {
	root, name string
	// output is set for root "steps".
	output string
	// from and width are its place in the expression, in code points.
	from, width int
}

func (r ref) waits() bool { return r.root == "secrets" || r.root == "steps" }

// program is a compiled expression.
type program struct {
	vm   *vm.Program
	refs []ref
	// text is the expression in normal form: spacing and quoting don't show.
	text string
	// kind is the type of the result, or "any".
	kind string
}

// waits tells whether the expression needs what is only known in a run.
func (p *program) waits() bool { return slices.ContainsFunc(p.refs, ref.waits) }

// exprError is a mistake in an expression, with its place in code points.
type exprError struct {
	code, message, hint string
	from, width         int
}

// compile parses an expression, checks that all it refers to exists, and checks its types.
func (s *scope) compile(text string) (*program, *exprError) {
	if len(text) > maxExpression {
		return nil, &exprError{code: "expression-too-long", width: 1,
			message: fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(text), maxExpression)}
	}
	if strings.TrimSpace(text) == "" {
		return nil, &exprError{code: "expression-syntax", message: "the expression is empty", width: 1}
	}
	plain, offsets := s.bracketNames(text)
	p, bad := s.compilePlain(plain)
	if bad != nil {
		from := offsets[min(bad.from, len(offsets)-1)]
		bad.width = max(1, offsets[min(bad.from+bad.width, len(offsets)-1)]-from)
		bad.from = from
		return nil, bad
	}
	for i := range p.refs {
		r := &p.refs[i]
		end := offsets[min(r.from+r.width, len(offsets)-1)]
		r.from = offsets[min(r.from, len(offsets)-1)]
		r.width = max(1, end-r.from)
	}
	return p, nil
}

func (s *scope) compilePlain(text string) (*program, *exprError) {
	config := newConfig()
	tree, err := parser.ParseWithConfig(text, config)
	if err != nil {
		return nil, syntaxOf(err)
	}
	w := walker{scope: s}
	w.walk(tree.Node)
	if w.bad != nil {
		return nil, w.bad
	}
	p := &program{refs: w.refs, text: tree.Node.String()}
	config.WithEnv(s.env(p.refs))
	result, err := checker.Check(tree, config)
	if err != nil {
		return nil, typeError(err)
	}
	p.kind = kindOf(result)
	if p.vm, err = compiler.Compile(tree, config); err != nil {
		return nil, typeError(err)
	}
	return p, nil
}

// run evaluates the expression. Panics inside the library come back as errors.
func (p *program) run(env map[string]any) (any, error) {
	machine := vm.VM{MemoryBudget: 100_000}
	v, err := machine.Run(p.vm, env)
	if err != nil {
		var fe *file.Error
		if errors.As(err, &fe) {
			return nil, errors.New(fe.Message)
		}
		return nil, err
	}
	return normal(v)
}

// env is the types of what some references need, and nothing else: making the types of
// everything in scope would cost more than checking the expression.
func (s *scope) env(refs []ref) types.Map {
	env := types.Map{}
	sub := func(m types.Map, name string) types.Map {
		if m[name] == nil {
			m[name] = types.Map{}
		}
		return m[name].(types.Map)
	}
	for _, r := range refs {
		switch r.root {
		case "params":
			sub(env, r.root)[r.name] = typeOf(s.params[r.name])
		case "matrix":
			sub(env, r.root)[r.name] = typeOf(s.matrix[r.name])
		case "pipeline", "secrets":
			sub(env, r.root)[r.name] = types.String
		case "steps":
			sub(sub(sub(env, r.root), r.name), "outputs")[r.output] = typeOf(s.steps[r.name][r.output])
		}
	}
	return env
}

func typeOf(kind string) types.Type {
	switch kind {
	case "string":
		return types.String
	case "integer":
		return types.Int
	case "number":
		return types.Float64
	case "boolean":
		return types.Bool
	case "list":
		return types.Array(types.Any)
	}
	return types.Any
}

func kindOf(t reflect.Type) string {
	if t == nil {
		return "any"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Int:
		return "integer"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		return "list"
	}
	return "any"
}

func syntaxOf(err error) *exprError {
	e := typeError(err)
	e.code = "expression-syntax"
	return e
}

func typeError(err error) *exprError {
	e := &exprError{code: "expression-type", message: err.Error(), width: 1}
	var fe *file.Error
	if errors.As(err, &fe) {
		e.message, e.from = fe.Message, fe.From
		e.width = max(1, fe.To-fe.From)
	}
	e.message = plainMessage(strings.TrimSpace(e.message))
	return e
}

var (
	unexpectedToken = regexp.MustCompile(`^unexpected token \w+\("(.*)"\)$`)
	mismatchedTypes = regexp.MustCompile(`^invalid operation: (\S+) \(mismatched types (.+) and (.+)\)$`)
	goType          = regexp.MustCompile(`\[\]interface \{\}|interface \{\}|map\[string\]interface \{\}|\b(?:float64|int64|int|bool)\b`)
	typeWords       = map[string]string{
		"[]interface {}": "list", "interface {}": "any value", "map[string]interface {}": "mapping",
		"float64": "number", "int64": "integer", "int": "integer", "bool": "boolean",
	}
)

func withoutGoTypes(message string) string {
	return goType.ReplaceAllStringFunc(message, func(name string) string { return typeWords[name] })
}

// plainMessage says what the expression library means without the names of Go's types.
func plainMessage(message string) string {
	if m := unexpectedToken.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("unexpected %q", m[1])
	}
	if message == "unexpected token EOF" {
		return "the expression ends too early"
	}
	if m := mismatchedTypes.FindStringSubmatch(message); m != nil {
		return withoutGoTypes(fmt.Sprintf("%q can't be used between %s and %s", m[1], m[2], m[3]))
	}
	return withoutGoTypes(message)
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
