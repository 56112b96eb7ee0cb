package spec

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/checker"
	"github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
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
			return nil, errors.New(plainMessage(fe.Message))
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

// functions an expression may call. Whatever takes a predicate or can make much out of
// little is left out, so that the cost of an expression is bounded by its length.
var functions = []string{
	"abs", "ceil", "float", "floor", "hasPrefix", "hasSuffix", "indexOf", "int", "join", "last", "first", "len",
	"lower", "max", "min", "replace", "round", "split", "string", "toJSON", "trim", "trimPrefix", "trimSuffix", "upper",
}

var allowedBuiltins, disabledBuiltins = splitBuiltins()

func splitBuiltins() (allowed conf.FunctionsTable, disabled map[string]bool) {
	allowed, disabled = conf.FunctionsTable{}, map[string]bool{}
	for _, f := range builtin.Builtins {
		if slices.Contains(functions, f.Name) && bounded[f.Name] == nil {
			allowed[f.Name] = f
		} else {
			disabled[f.Name] = true
		}
	}
	return allowed, disabled
}

func newConfig() *conf.Config {
	c := &conf.Config{
		Strict: true, ShortCircuit: true, MaxNodes: 2000,
		Functions: bounded, Builtins: allowedBuiltins, Disabled: disabledBuiltins,
	}
	c.WithEnv(types.Map{})
	return c
}

// bounded replaces built-in functions whose result can be far longer than their arguments.
var bounded = conf.FunctionsTable{
	"join": {Name: "join", Types: funcTypes(new(func([]any, string) string)), Func: func(args ...any) (any, error) {
		list, parts := args[0].([]any), []string{}
		for _, v := range list {
			s, err := textOf(v)
			if err != nil {
				return nil, err
			}
			parts = append(parts, s)
		}
		return limit(strings.Join(parts, args[1].(string)))
	}},
	"split": {Name: "split", Types: funcTypes(new(func(string, string) []any)), Func: func(args ...any) (any, error) {
		list := []any{}
		for _, s := range strings.Split(args[0].(string), args[1].(string)) {
			list = append(list, s)
		}
		return list, nil
	}},
	"replace": {Name: "replace", Types: funcTypes(new(func(string, string, string) string)), Func: func(args ...any) (any, error) {
		s, from, to := args[0].(string), args[1].(string), args[2].(string)
		if strings.Count(s, from)*len(to) > maxText {
			return limit(strings.Repeat(" ", maxText+1))
		}
		return limit(strings.ReplaceAll(s, from, to))
	}},
}

func funcTypes(fn any) []reflect.Type { return []reflect.Type{reflect.TypeOf(fn).Elem()} }

// maxText bounds a text an expression makes, in bytes.
const maxText = 64 << 10

func limit(s string) (any, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("the text is longer than %d bytes", maxText)
	}
	return s, nil
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
	goTypes         = strings.NewReplacer("[]interface {}", "list", "interface {}", "any value", "map[string]any", "mapping",
		"float64", "number", "int64", "integer", "int", "integer", "bool", "boolean")
)

// plainMessage says what the expression library means without the names of Go's types.
func plainMessage(message string) string {
	if m := unexpectedToken.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("unexpected %q", m[1])
	}
	if message == "unexpected token EOF" {
		return "the expression ends too early"
	}
	if m := mismatchedTypes.FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("%q can't be used between %s and %s", m[1], goTypes.Replace(m[2]), goTypes.Replace(m[3]))
	}
	return goTypes.Replace(message)
}

// bracketNames rewrites references to steps and outputs whose names have a hyphen, which
// the library would read as a minus: steps.web-server becomes steps["web-server"]. It
// also returns where each code point of the new text was in the old one.
func (s *scope) bracketNames(text string) (string, []int) {
	runes := []rune(text)
	var out []rune
	var offsets []int
	copyTo := func(from, to int) {
		for ; from < to; from++ {
			out, offsets = append(out, runes[from]), append(offsets, from)
		}
	}
	for i := 0; i < len(runes); {
		if c := runes[i]; c == '"' || c == '\'' || c == '`' {
			end := closingText(string(runes[i:]))
			n := len(runes) - i
			if end >= 0 {
				n = utf8.RuneCountInString(string(runes[i:])[:end+1])
			}
			copyTo(i, i+n)
			i += n
			continue
		}
		word := nameAt(runes, i, false)
		if word == 0 {
			copyTo(i, i+1)
			i++
			continue
		}
		copyTo(i, i+word)
		isSteps := string(runes[i:i+word]) == "steps" && (i == 0 || runes[i-1] != '.')
		i += word
		if isSteps {
			i = s.bracketStep(runes, i, copyTo, func(name string, at int) {
				for _, r := range "[\"" + name + "\"]" {
					out, offsets = append(out, r), append(offsets, at)
				}
			})
		}
	}
	return string(out), append(offsets, len(runes))
}

// bracketStep handles `.id.outputs.name` after the word steps and returns where it ended.
func (s *scope) bracketStep(runes []rune, i int, copyTo func(from, to int), bracket func(name string, at int)) int {
	if i >= len(runes) || runes[i] != '.' {
		return i
	}
	n := nameAt(runes, i+1, true)
	id := string(runes[i+1 : i+1+n])
	emit := func(name string) {
		if strings.Contains(name, "-") {
			bracket(name, i+1)
		} else {
			copyTo(i, i+1+len(name))
		}
		i += 1 + len(name)
	}
	emit(id)
	const outputs = ".outputs"
	if !strings.HasPrefix(string(runes[i:]), outputs+".") {
		return i
	}
	copyTo(i, i+len(outputs))
	i += len(outputs)
	name := string(runes[i+1 : i+1+nameAt(runes, i+1, true)])
	if short, _, _ := strings.Cut(name, "-"); s.steps[id][name] == "" && s.steps[id][short] != "" {
		name = short
	}
	emit(name)
	return i
}

// nameAt returns the length of the ASCII name that begins at i.
func nameAt(runes []rune, i int, hyphens bool) int {
	n := i
	for n < len(runes) {
		c := runes[n]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (n == i || !(c >= '0' && c <= '9' || hyphens && c == '-')) {
			break
		}
		n++
	}
	return n - i
}

// walker finds what an expression refers to, and what it must not use.
type walker struct {
	scope *scope
	refs  []ref
	bad   *exprError
}

func (w *walker) fail(n ast.Node, width int, code, hint, format string, args ...any) {
	if w.bad == nil {
		w.bad = &exprError{code: code, message: fmt.Sprintf(format, args...), hint: hint, from: n.Location().From, width: max(1, width)}
	}
}

func (w *walker) walk(n ast.Node) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		w.bare(n)
	case *ast.MemberNode:
		w.member(n)
	case *ast.CallNode:
		w.call(n)
	case *ast.BuiltinNode:
		if !slices.Contains(functions, n.Name) {
			w.unknownFunction(n, n.Name)
		}
		w.walkAll(n.Arguments)
	case *ast.ChainNode:
		w.walk(n.Node)
	case *ast.UnaryNode:
		w.walk(n.Node)
	case *ast.BinaryNode:
		if n.Operator == ".." {
			w.fail(n, 1, "expression-syntax", "", "ranges are not part of gild's expressions")
		}
		w.walkAll([]ast.Node{n.Left, n.Right})
	case *ast.SliceNode:
		w.walkAll([]ast.Node{n.Node, n.From, n.To})
	case *ast.ConditionalNode:
		w.walkAll([]ast.Node{n.Cond, n.Exp1, n.Exp2})
	case *ast.ArrayNode:
		w.walkAll(n.Nodes)
	case *ast.MapNode:
		w.walkAll(n.Pairs)
	case *ast.PairNode:
		w.walkAll([]ast.Node{n.Key, n.Value})
	case *ast.NilNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.ConstantNode, nil:
	default:
		w.fail(n, 1, "expression-syntax", "", "variables, predicates and sequences are not part of gild's expressions")
	}
}

func (w *walker) walkAll(all []ast.Node) {
	for _, n := range all {
		w.walk(n)
	}
}

func (w *walker) call(n *ast.CallNode) {
	w.walkAll(n.Arguments)
	callee, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		w.fail(n, 1, "expression-syntax", "", "only functions can be called")
		return
	}
	if !slices.Contains(functions, callee.Value) {
		w.unknownFunction(n, callee.Value)
	}
}

func (w *walker) unknownFunction(n ast.Node, name string) {
	w.fail(n, len(name), "unknown-function", didYouMean(name, functions, "functions are "+strings.Join(functions, ", ")),
		"there is no function %q", name)
}

func (w *walker) bare(n *ast.IdentifierNode) {
	switch {
	case slices.Contains(roots, n.Value):
		w.fail(n, len(n.Value), "expression-syntax", fmt.Sprintf("write %s.name", n.Value), "%q needs a name after it", n.Value)
	case n.Value == "env":
		w.fail(n, 3, "unknown-name", "make it a param and give it with --param", "environment variables can't be read here")
	default:
		w.fail(n, len(n.Value), "unknown-name", didYouMean(n.Value, roots, "names begin with "+strings.Join(roots, ", ")),
			"unknown name %q", n.Value)
	}
}

// member handles root.name and steps.id.outputs.name; anything else is looked into.
func (w *walker) member(n *ast.MemberNode) {
	path, root := memberPath(n)
	if root == nil || !slices.Contains(roots, root.Value) {
		w.walk(n.Node)
		w.walk(n.Property)
		return
	}
	want := 1
	if root.Value == "steps" {
		want = 3
	}
	switch {
	case len(path) == 0:
		w.fail(n, 1, "expression-syntax", fmt.Sprintf("write %s.name", root.Value), "a name after %q must be written out", root.Value)
	case want == 3 && len(path) < 3:
		w.fail(root, 5, "expression-syntax", "write steps.id.outputs.name", "only the outputs of a step can be read")
	case len(path) > want:
		// Something inside a value, such as params.list[0].
		w.walk(n.Node)
		w.walk(n.Property)
	default:
		w.reference(root, path)
	}
}

// memberPath returns the names of a chain of members, and the identifier it begins with;
// path is nil when a name is computed.
func memberPath(n *ast.MemberNode) (path []string, root *ast.IdentifierNode) {
	name, named := n.Property.(*ast.StringNode)
	switch inner := n.Node.(type) {
	case *ast.IdentifierNode:
		root = inner
	case *ast.MemberNode:
		path, root = memberPath(inner)
		if path == nil {
			return nil, root
		}
	}
	if root == nil || !named {
		if root != nil && len(path) > 0 {
			return append(path, ""), root
		}
		return nil, root
	}
	return append(path, name.Value), root
}

func (w *walker) reference(root *ast.IdentifierNode, path []string) {
	r := ref{root: root.Value, name: path[0], from: root.Location().From}
	r.width = len(root.Value) + 1 + utf8.RuneCountInString(path[0])
	unknown := func(what, name string, known []string) {
		none := fmt.Sprintf("there is no %s that can be used here", what)
		if len(known) > 0 {
			none = what + "s are " + strings.Join(known, ", ")
		}
		w.fail(root, r.width, "unknown-name", didYouMean(name, known, none), "there is no %s %q", what, name)
	}
	switch r.root {
	case "params":
		if w.scope.params[r.name] == "" {
			unknown("param", r.name, sortedKeys(w.scope.params))
		}
	case "matrix":
		if w.scope.matrix[r.name] == "" {
			unknown("matrix key", r.name, sortedKeys(w.scope.matrix))
		}
	case "pipeline":
		if w.scope.pipeline[r.name] == "" {
			unknown("pipeline value", r.name, sortedKeys(w.scope.pipeline))
		}
	case "secrets":
		if !w.scope.secrets[r.name] {
			unknown("secret", r.name, sortedKeys(w.scope.secrets))
		}
	case "steps":
		r.output = path[2]
		outputs, ok := w.scope.steps[r.name]
		switch {
		case !ok:
			unknown("step", r.name, sortedKeys(w.scope.steps))
		case path[1] != "outputs":
			w.fail(root, r.width, "unknown-name", "write steps.id.outputs.name", "a step has only outputs, not %q", path[1])
		case outputs[r.output] == "":
			r.width += len(".outputs.") + utf8.RuneCountInString(r.output)
			unknown("output", r.output, sortedKeys(outputs))
		default:
			r.width += len(".outputs.") + utf8.RuneCountInString(r.output)
		}
	}
	w.refs = append(w.refs, r)
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
