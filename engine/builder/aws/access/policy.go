package access

import (
	"cmp"
	"slices"

	"github.com/gildhq/gild/engine/spec"
)

// Known is what is known of an account; policies are narrower for it. The zero value is
// of use: it knows nothing.
type Known struct {
	// Account is twelve digits, or empty.
	Account string
	// Roles are ARNs by the name of the instance profile that holds the role. A profile that
	// isn't among them is taken to hold a role of its own name.
	Roles map[string]string
}

// Policy returns the least policy that building, testing, publishing and collecting the
// garbage of the pipelines needs; several are the cells of a file. Those without
// builders.aws need nothing.
func Policy(pipelines ...*spec.Pipeline) Document { return Known{}.Policy(pipelines...) }

// Policy is as the function of that name, made narrower by what is known.
func (k Known) Policy(pipelines ...*spec.Pipeline) Document {
	w := gather(k, pipelines)
	d := Document{Version: version, Statement: []Statement{}}
	if len(w.home) == 0 {
		return d
	}
	actions := map[string][]string{}
	for _, r := range w.rows() {
		actions[r.sid] = append(actions[r.sid], r.actions...)
	}
	for _, s := range w.shapes() {
		if a := actions[s.sid]; len(a) > 0 {
			d.Statement = append(d.Statement, s.with(a))
		}
	}
	return d
}

// rows are those of the table that apply.
func (w *want) rows() []row {
	return slices.DeleteFunc(table(), func(r row) bool { return r.on != nil && !r.on(w) })
}

// with makes a statement of a shape.
func (s shape) with(actions []string) Statement {
	return Statement{Sid: s.sid, Effect: "Allow", Action: sorted(actions), Resource: sorted(s.resources), Condition: s.condition}
}

// Need is an action and why a pipeline needs it.
type Need struct {
	// Action such as "ec2:RunInstances".
	Action string
	// Feature is what of the file asks for it, such as "copy.regions".
	Feature string
	// Implied says that no call has this name: AWS asks for it in the course of others.
	Implied bool
	// When is when the action is called, or empty when every build with the feature calls it.
	When string
}

// Needs lists why the policy of the pipelines has each of its actions: by action, then in
// the order of the table. An action that several features need is there for each of them.
func Needs(pipelines ...*spec.Pipeline) []Need {
	w := gather(Known{}, pipelines)
	var all []Need
	if len(w.home) == 0 {
		return nil
	}
	for _, r := range w.rows() {
		for _, a := range r.actions {
			if n := (Need{a, r.feature, r.implied, r.when}); !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Need) int { return cmp.Compare(a.Action, b.Action) })
	return all
}

// Compare holds the policy of the pipelines against calls that were really made, such as
// "ec2:RunInstances". It returns the calls that the policy doesn't allow, and the needs
// that no call had; implied ones are never among these, those with a When may well be.
func Compare(calls []string, pipelines ...*spec.Pipeline) (uncovered []string, unused []Need) {
	allowed := Policy(pipelines...).Actions()
	for _, c := range sorted(calls) {
		if !slices.Contains(allowed, c) && !slices.Contains(free(), c) {
			uncovered = append(uncovered, c)
		}
	}
	for _, n := range Needs(pipelines...) {
		if !n.Implied && !slices.Contains(calls, n.Action) {
			unused = append(unused, n)
		}
	}
	return uncovered, unused
}

// free are the calls that AWS allows without a permission, even against a policy.
func free() []string { return []string{"sts:GetCallerIdentity"} }
