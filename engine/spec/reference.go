package spec

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
)

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
		w.fail(n, len(n.Value), "expression-syntax", "write "+referenceForm(n.Value), "%q needs a name after it", n.Value)
	case n.Value == "env":
		w.fail(n, 3, "unknown-name", "make it a param and give it with --param", "environment variables can't be read here")
	default:
		w.fail(n, len(n.Value), "unknown-name", didYouMean(n.Value, roots, "names begin with "+strings.Join(roots, ", ")),
			"unknown name %q", n.Value)
	}
}

// referenceForm is how a reference that begins with a root is written.
func referenceForm(root string) string {
	if root == "steps" {
		return "steps.id.outputs.name"
	}
	return root + ".name"
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
		w.fail(n, 1, "expression-syntax", "write "+referenceForm(root.Value), "a name after %q must be written out", root.Value)
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
