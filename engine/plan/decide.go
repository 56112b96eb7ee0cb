package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// decide sets every node's Action and Why.
func (p *Plan) decide(ctx context.Context, env Env, sel Selection) error {
	picked, err := p.pick(sel)
	if err != nil {
		return err
	}
	stored := map[string]bool{}
	for _, n := range p.Nodes {
		switch {
		case n.Action == Skip:
		case !picked.in[n.ID]:
			n.Action, n.Why = Skip, []string{"not selected"}
		case picked.forced[n.ID]:
			n.Action, n.Forced, n.Why = Run, true, []string{"asked for with --from"}
		default:
			if stored[n.ID], err = env.Stored(ctx, n); err != nil {
				return fmt.Errorf("look up %s: %w", n.ID, err)
			}
		}
	}
	p.demand(stored)
	for _, img := range p.Images {
		if img.Retire, err = env.Retirable(ctx, img); err != nil {
			return err
		}
	}
	return p.explain(ctx, env)
}

// result tells nodes whose result somebody asked for from those that only lead there.
func (k Kind) result() bool {
	return slices.Contains([]Kind{KindFiles, KindTest, KindPublish, KindDeliver, KindCopy, KindRetain}, k)
}

// demand walks from the ends to the base: a node that isn't stored runs when its result
// was asked for, when it is an end of the graph, or when a node that runs needs it.
func (p *Plan) demand(stored map[string]bool) {
	wanted, has, byKey := map[string]bool{}, map[string]bool{}, map[string][]string{}
	for _, n := range p.Nodes {
		for _, need := range n.Needs {
			if p.Node(need) != nil && n.Action != Skip {
				has[need] = true
			}
		}
		byKey[n.Key] = append(byKey[n.Key], n.ID)
	}
	for _, n := range slices.Backward(p.Nodes) {
		switch {
		case n.Action == Skip, n.Action == Run:
		case stored[n.ID]:
			n.Action = Cached
		case wanted[n.ID] || !has[n.ID] || n.Kind.result():
			n.Action = Run
		default:
			n.Action = Unneeded
		}
		if n.Action == Run || n.Action == Skip && wanted[n.ID] {
			for _, need := range n.Needs {
				wanted[need] = true
			}
		}
		if n.Action == Run && !n.Image.Whole {
			// A stack is used whole: a state below a cached one must be there too.
			for _, key := range n.Layers {
				for _, id := range byKey[key] {
					wanted[id] = true
				}
			}
		}
	}
}

// explain says why each node runs: which of its parts changed since it was last planned.
func (p *Plan) explain(ctx context.Context, env Env) error {
	for _, n := range p.Nodes {
		if n.Action == Unneeded {
			n.Why = []string{"its result isn't stored any more, and nothing that runs needs it"}
		}
		if n.Action != Run || len(n.Why) > 0 {
			continue
		}
		key, parts, ok, err := env.Previous(ctx, n)
		switch {
		case err != nil:
			return fmt.Errorf("look up the last key of %s: %w", n.ID, err)
		case !ok:
			n.Why = []string{"first build"}
		case key == n.Key:
			n.Why = []string{"not finished, or its result was removed"}
		default:
			for _, name := range changed(parts, n.Parts) {
				n.Why = append(n.Why, name+" changed")
			}
		}
	}
	return nil
}

type picked struct {
	in, forced map[string]bool
}

// pick applies a selection.
func (p *Plan) pick(sel Selection) (picked, error) {
	out := picked{in: map[string]bool{}, forced: map[string]bool{}}
	for _, n := range p.Nodes {
		out.in[n.ID] = true
	}
	only, err := p.find(sel.Only)
	if err != nil {
		return out, err
	}
	if len(only) > 0 {
		out.in = p.ancestors(only)
	}
	until, err := p.find(sel.Until)
	if err != nil {
		return out, err
	}
	for id := range p.descendants(until) {
		if !slices.Contains(until, id) {
			delete(out.in, id)
		}
	}
	from, err := p.find(sel.From)
	if err != nil {
		return out, err
	}
	out.forced = p.descendants(from)
	return out, nil
}

// UnknownNodeError is the error of a selection that names no node, or several.
type UnknownNodeError struct {
	Name string
	// Known are the ids it could have been.
	Known []string
	// Ambiguous tells several matches from none.
	Ambiguous bool
}

// Error lists what there is.
func (e *UnknownNodeError) Error() string {
	if e.Ambiguous {
		return fmt.Sprintf("%q could be any of %s", e.Name, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("there is no node %q; there are %s", e.Name, strings.Join(e.Known, ", "))
}

// find turns names into ids: whole ids, or ids without the pipeline's name.
func (p *Plan) find(names []string) ([]string, error) {
	var ids []string
	for _, name := range names {
		var hits, all []string
		for _, n := range p.Nodes {
			all = append(all, n.ID)
			if n.ID == name || strings.HasSuffix(n.ID, "/"+name) {
				hits = append(hits, n.ID)
			}
		}
		switch len(hits) {
		case 0:
			return nil, &UnknownNodeError{Name: name, Known: all}
		case 1:
			ids = append(ids, hits[0])
		default:
			return nil, &UnknownNodeError{Name: name, Known: hits, Ambiguous: true}
		}
	}
	return ids, nil
}

func (p *Plan) ancestors(ids []string) map[string]bool {
	in := map[string]bool{}
	for _, id := range ids {
		in[id] = true
	}
	for _, n := range slices.Backward(p.Nodes) {
		if in[n.ID] {
			for _, need := range n.Needs {
				in[need] = true
			}
		}
	}
	return in
}

func (p *Plan) descendants(ids []string) map[string]bool {
	in := map[string]bool{}
	for _, id := range ids {
		in[id] = true
	}
	for _, n := range p.Nodes {
		if slices.ContainsFunc(n.Needs, func(need string) bool { return in[need] }) {
			in[n.ID] = true
		}
	}
	return in
}
