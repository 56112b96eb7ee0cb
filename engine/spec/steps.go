package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

// resolveSteps makes the steps of one combination.
func (r *resolver) resolveSteps(root *node, e *evaluator) []Step {
	var all []Step
	for _, sn := range r.steps {
		n, ok := root.find(sn.pointer)
		if !ok {
			continue
		}
		s := Step{
			ID: sn.id, Section: sn.section, Uses: n.get("uses").text(), Pos: r.source.value(n),
			With: r.value(n.get("with"), n.get("uses")),
			Env:  map[string]Value{}, Timeout: duration(n.get("timeout")),
			Retry:           Retry{Attempts: n.get("retry", "attempts").integer(0), Backoff: duration(n.get("retry", "backoff"))},
			ContinueOnError: n.get("continue-on-error").truth(false), Checkpoint: n.get("checkpoint").truth(false),
			Needs: n.get("needs").texts(), NeedsSet: n.get("needs") != nil, NeedsPos: r.posOf(n.get("needs")),
		}
		if env := n.get("env"); env != nil {
			for _, name := range env.names {
				s.Env[name] = r.value(env.fields[name], nil)
			}
		}
		if timeout := n.get("timeout"); timeout.text() != "" && s.Timeout == 0 {
			if _, err := step.ParseDuration(timeout.text()); err == nil {
				r.diags.Addf(r.source.value(timeout), "out-of-range", "leave it out for the default", "a timeout of nothing leaves no time")
			}
		}
		r.condition(&s, n.get("when"))
		all = append(all, s)
	}
	return all
}

// value wraps a node; without one it is an empty object, placed at otherwise.
func (r *resolver) value(n, otherwise *node) Value {
	if n == nil {
		n = &node{value: map[string]any{}, fields: map[string]*node{}}
		if otherwise != nil {
			n.at, n.key = otherwise.at, otherwise.key
		}
	}
	return Value{root: n, source: r.source}
}

func (r *resolver) condition(s *Step, n *node) {
	if n == nil {
		return
	}
	switch v := n.value.(type) {
	case bool:
		if !v {
			s.Skip = "when is " + n.source()
		}
	case *waiting:
		value := r.value(n, nil)
		s.When = &value
	default:
		if n.tmpl == nil {
			// The schema has reported it.
			return
		}
		r.diags.Addf(r.source.value(n), "bad-condition", "", "a condition is true or false, but this is %s", written(n))
	}
}

// source is a condition as it was written.
func (n *node) source() string {
	if n.tmpl == nil {
		return "false"
	}
	return strings.TrimSpace(n.tmpl.pieces[0].expr) + ", which is false"
}

// edge is why one step waits for another.
type edge struct {
	to int
	// at is the entry of needs, or nil for the order of the file or an output.
	at *node
	// why is how the edge reads in a message.
	why string
}

// checkNeeds checks the entries of needs, and that no step waits for itself.
func (r *resolver) checkNeeds() {
	edges := make([][]edge, len(r.steps))
	last := map[step.Section]int{}
	for i, sn := range r.steps {
		needs := sn.node.get("needs")
		previous, ok := last[sn.section]
		last[sn.section] = i
		switch {
		case needs == nil && ok:
			edges[i] = append(edges[i], edge{to: previous, why: "comes after"})
		case needs != nil:
			for _, item := range needs.items {
				if to := r.need(sn, item); to >= 0 {
					edges[i] = append(edges[i], edge{to: to, at: item, why: "needs"})
				}
			}
		}
	}
	r.reportCycles(edges)
}

// need finds the step that an entry of needs names, or reports it and returns -1.
func (r *resolver) need(sn *stepNode, item *node) int {
	name := item.text()
	var known []string
	for i, other := range r.steps {
		switch {
		case other.id == name && other.section == sn.section:
			return i
		case other.id == name:
			r.diags.Addf(r.source.value(item), "wrong-section", "steps of tests always run after those of customize",
				"the step %q is in %s; needs can only name steps of %s", name, other.section, sn.section)
			return -1
		case other.section == sn.section && other != sn:
			known = append(known, other.id)
		}
	}
	if name != "" {
		r.diags.Addf(r.source.value(item), "unknown-step", didYouMean(name, known, "steps are "+strings.Join(known, ", ")),
			"there is no step %q", name)
	}
	return -1
}

// reportCycles reports each cycle once, at the last entry of needs in it.
func (r *resolver) reportCycles(edges [][]edge) {
	const (
		fresh = iota
		open
		done
	)
	state := make([]int, len(edges))
	var path []int
	var via []edge
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		path = append(path, i)
		for _, e := range edges[i] {
			via = append(via, e)
			switch state[e.to] {
			case fresh:
				visit(e.to)
			case open:
				start := slices.Index(path, e.to)
				r.reportCycle(path[start:], via[start:])
			}
			via = via[:len(via)-1]
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range edges {
		if state[i] == fresh {
			visit(i)
		}
	}
}

// maxHops is how many steps are shown of either end of a long cycle.
const maxHops = 5

// reportCycle describes a cycle: step path[i] waits for path[i+1] because of via[i].
func (r *resolver) reportCycle(path []int, via []edge) {
	at := -1
	for i, e := range via {
		if e.at != nil && (at < 0 || e.at.at.Line > via[at].at.at.Line) {
			at = i
		}
	}
	n := len(path)
	id := func(i int) string { return r.steps[path[i%n]].id }
	var b strings.Builder
	fmt.Fprintf(&b, "step %q needs %q", id(at), id(at+1))
	onlyNeeds := true
	for k := 1; k < n; k++ {
		if k == maxHops && n > 2*maxHops {
			fmt.Fprintf(&b, ", and so on over %d more steps", n-2*maxHops)
			k = n - maxHops
		}
		e := via[(at+k)%n]
		line := r.steps[path[(at+k)%n]].node.at.Line
		if e.at != nil {
			line = e.at.at.Line
		} else {
			onlyNeeds = false
		}
		fmt.Fprintf(&b, ", which %s %q (line %d)", e.why, id(at+k+1), line)
	}
	hint := "remove one of the entries"
	switch {
	case n == 1:
		hint = "remove the entry"
	case n == 2 && onlyNeeds:
		hint = "remove one of the two entries"
	case !onlyNeeds:
		hint = "remove the entry, or give the steps in between a `needs` of their own"
	}
	r.diags.Addf(r.source.value(via[at].at), "graph-cycle", hint, "%s", b.String())
}
