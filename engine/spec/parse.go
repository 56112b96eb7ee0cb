package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/step"
)

// File is a pipeline file that was read: its values with their places, not yet resolved.
// It never changes once made, and is safe for concurrent use.
type File struct {
	path    string
	source  *source
	root    *node
	catalog *Catalog
	steps   []*stepNode
	// broken tells that Parse reported errors, so Resolve reports what it can and gives
	// no pipelines.
	broken bool
}

// stepLists are the parts of a file that are lists of steps.
var stepLists = []struct {
	section step.Section
	path    []string
}{
	{step.Customize, []string{"customize"}},
	{step.Tests, []string{"tests"}},
	{step.Publish, []string{"publish", "to"}},
}

// listPointer is the JSON Pointer of a list of steps.
func listPointer(path []string) string { return "/" + strings.Join(path, "/") }

// isStepList tells whether a pointer is that of a list of steps.
func isStepList(pointer string) bool {
	for _, l := range stepLists {
		if pointer == listPointer(l.path) {
			return true
		}
	}
	return false
}

// stepNode is one entry of a list of steps.
type stepNode struct {
	section step.Section
	pointer string
	node    *node
	id      string
	// kind is nil for a step that isn't known.
	kind *kind
}

// Parse reads a pipeline file and reports everything that is wrong with its form:
// syntax, keys, types, and each step's `with` against the step's schema. The path is
// only used in positions. The File is nil when there is nothing that [File.Resolve]
// could work on. The list is sorted, and every entry has a line.
func Parse(path string, src []byte, c *Catalog) (*File, diag.List) {
	var diags diag.List
	root, s := readYAML(path, src, &diags)
	if root != nil && root.fields == nil {
		diags.Addf(s.value(root), "wrong-type", "begin with the line `gild: 1`", "a pipeline file is a mapping of keys to values")
		root = nil
	}
	if root == nil {
		return nil, s.finish(diags)
	}
	f := &File{path: path, source: s, root: root, catalog: c}
	f.parseTemplates(root, "", &diags)
	r := report{shape: c.envelope, source: s, root: root, diags: &diags, skip: skipTemplates, secrets: true}
	r.check(root.value)
	f.collectSteps(&diags)
	for _, sn := range f.steps {
		f.checkUses(sn, &diags)
	}
	f.broken = diags.HasErrors()
	return f, s.finish(diags)
}

// skipTemplates leaves out what a schema says of a string whose expressions are not
// evaluated yet.
func skipTemplates(n *node, _ string) bool { return n.tmpl != nil }

// parseTemplates splits every string that has expressions, and conditions.
func (f *File) parseTemplates(n *node, pointer string, diags *diag.List) {
	for _, name := range n.names {
		field := n.fields[name]
		if name == "when" && isStep(pointer) && field.tmpl == nil {
			f.parseCondition(field)
		}
		f.parseTemplates(field, join(pointer, name), diags)
		n.dynamic = n.dynamic || field.dynamic
	}
	for i, item := range n.items {
		f.parseTemplates(item, joinIndex(pointer, i), diags)
		n.dynamic = n.dynamic || item.dynamic
	}
	if n.tmpl == nil || n.tmpl.bare {
		return
	}
	t, bad := parseTemplate(n.text())
	n.tmpl = t
	if bad != nil {
		hint := "end it with }}"
		if n.at.Style == 0 && strings.Contains(f.source.line(n.at.Line), " #") {
			hint = "put the whole value into quotes: outside of them, # begins a comment"
		}
		diags.Addf(f.source.inside(n, bad.offset, 3), "expression-syntax", hint, "${{ is not closed")
		t.broken = true
		return
	}
	if static := staticKey(pointer); static != "" {
		diags.Addf(f.source.inside(n, t.firstOffset(), 1), "expression-not-allowed", "write the value itself",
			"%s can't have expressions", static)
	}
}

func (f *File) parseCondition(n *node) {
	if text, ok := n.value.(string); ok {
		n.tmpl = &template{bare: true, pieces: []piece{{expr: text, isExpr: true}}}
		n.dynamic = true
	}
}

func (t *template) firstOffset() int {
	for _, p := range t.pieces {
		if p.isExpr {
			return p.offset - 3
		}
	}
	return 0
}

// isStep tells whether a pointer is that of an entry of a list of steps.
func isStep(pointer string) bool {
	i := strings.LastIndexByte(pointer, '/')
	return i > 0 && isStepList(pointer[:i])
}

// staticKey names the part of the file a pointer is in when that part is read before
// any expression can be evaluated.
func staticKey(pointer string) string {
	section, _, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch section {
	case "gild", "name", "params", "secrets", "matrix", "builder":
		return section
	}
	for _, l := range stepLists {
		rest, ok := strings.CutPrefix(pointer, listPointer(l.path)+"/")
		if !ok {
			continue
		}
		_, rest, _ = strings.Cut(rest, "/")
		if key, _, _ := strings.Cut(rest, "/"); key == "id" || key == "uses" || key == "needs" {
			return key
		}
	}
	return ""
}

// collectSteps lists the steps and gives each an id.
func (f *File) collectSteps(diags *diag.List) {
	taken := map[string]*node{}
	for _, l := range stepLists {
		list := f.root.get(l.path...)
		if list == nil {
			continue
		}
		for i, item := range list.items {
			if item.fields == nil {
				continue
			}
			sn := &stepNode{section: l.section, pointer: joinIndex(listPointer(l.path), i), node: item}
			f.steps = append(f.steps, sn)
			id := item.get("id")
			if id.text() == "" {
				continue
			}
			if first := taken[id.text()]; first != nil {
				diags.Addf(f.source.value(id), "duplicate-id", "give each step an id of its own",
					"the id %q is already taken on line %d", id.text(), first.at.Line)
				continue
			}
			taken[id.text()], sn.id = id, id.text()
		}
	}
	for _, sn := range f.steps {
		if sn.id == "" {
			sn.id = autoID(sn.node.get("uses").text(), taken)
			taken[sn.id] = sn.node
		}
	}
}

// autoID makes an id from what a step uses: "packages", then "packages-2".
func autoID(uses string, taken map[string]*node) string {
	name := uses[strings.LastIndexByte(uses, '/')+1:]
	if name == "" {
		name = "step"
	}
	id := name
	for n := 2; taken[id] != nil; n++ {
		id = fmt.Sprintf("%s-%d", name, n)
	}
	return id
}

// checkUses finds the kind of a step, and checks its place and its `with`.
func (f *File) checkUses(sn *stepNode, diags *diag.List) {
	uses := sn.node.get("uses")
	if uses.text() == "" {
		return
	}
	sn.kind = f.catalog.kinds[uses.text()]
	if sn.kind == nil || sn.kind.step.Internal {
		sn.kind = nil
		f.unknownKind(uses, diags)
		return
	}
	if !slices.Contains(sn.kind.step.Sections, sn.section) {
		diags.Addf(f.source.value(uses), "wrong-section", "move it to "+sections(sn.kind.step.Sections),
			"the step %q can't stand in %s", uses.text(), sn.section)
	}
	with := sn.node.get("with")
	if with == nil {
		with = &node{at: uses.at, fields: map[string]*node{}, value: map[string]any{}}
	}
	if with.fields == nil {
		return
	}
	r := report{shape: sn.kind.with, source: f.source, root: with, diags: diags, skip: skipTemplates}
	r.check(with.value)
}

func (f *File) unknownKind(uses *node, diags *diag.List) {
	pos := f.source.value(uses)
	if owner, rest, ok := strings.Cut(uses.text(), "/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		f.unknownPlugin(uses, owner+"/"+name, diags)
		return
	}
	diags.Addf(pos, "unknown-step", didYouMean(uses.text(), f.catalog.names, "steps are "+strings.Join(f.catalog.names, ", ")),
		"there is no step %q", uses.text())
}

func (f *File) unknownPlugin(uses *node, plugin string, diags *diag.List) {
	pos := f.source.value(uses)
	ofPlugin := slices.DeleteFunc(slices.Clone(f.catalog.names), func(name string) bool {
		return name != plugin && !strings.HasPrefix(name, plugin+"/")
	})
	switch err := f.catalog.missing[plugin]; {
	case err != nil:
		diags.Addf(pos, "plugin-unusable", "", "%v", err)
	case len(ofPlugin) > 0:
		diags.Addf(pos, "unknown-step", didYouMean(uses.text(), ofPlugin, "its steps are "+strings.Join(ofPlugin, ", ")),
			"the plugin %s has no step %q", plugin, uses.text())
	default:
		diags.Addf(pos, "plugin-not-locked", didYouMean(uses.text(), f.catalog.names, "install it: gild plugin install SOURCE"),
			"gild.lock names no plugin %q", plugin)
	}
}

func sections(all []step.Section) string {
	names := make([]string, len(all))
	for i, s := range all {
		names[i] = string(s)
	}
	return strings.Join(names, " or ")
}
