package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/plan"
)

type planOptions struct {
	requestOptions
	json, dot bool
}

func (a *app) planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan FILE...",
		Short: "Show what a build would do, and why",
		Long: `Plan shows the graph of steps: for each whether its result is cached or it will
run, and why it is no longer cached. It also tells what retention would remove.
Nothing is run or changed. A FILE may be a folder of pipelines.`,
		Example: `  gild plan gild.yaml
  gild plan pipelines/ --param port=8080
  gild plan gild.yaml --dot | dot -Tsvg > plan.svg`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onSandbox(cmd, func() error { return a.plan(cmd, o, args) })
		},
	}
	o.inputs(cmd)
	o.selection(cmd)
	a.sandboxFlag(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print the plan as JSON")
	cmd.Flags().BoolVar(&o.dot, "dot", false, "print the graph for Graphviz")
	return cmd
}

func (a *app) plan(cmd *cobra.Command, o planOptions, files []string) error {
	if err := exclusive(cmd, "json", "dot"); err != nil {
		return err
	}
	req, err := o.request(cmd, files)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	return a.withEngine(ctx, func(e *engine.Engine) error {
		p, diags, err := e.Plan(ctx, req)
		if err := a.planned(ctx, diags, err); err != nil {
			return err
		}
		switch {
		case o.json:
			return a.printJSON(planJSON(p))
		case o.dot:
			return a.print(planDOT(p))
		default:
			return a.print(planText(p))
		}
	})
}

// planned shows the diagnostics of planning and returns why it can't go on, or nil.
func (a *app) planned(ctx context.Context, diags diag.List, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause // whatever was found, it was found while stopping
	}
	a.diagnostics(diags)
	if err != nil {
		return err
	}
	return diags.Err()
}

// jsonPlan is the form of `gild plan --json`.
type jsonPlan struct {
	Images []jsonImage `json:"images"`
	Nodes  []jsonNode  `json:"nodes"`
}

type jsonImage struct {
	Name    string        `json:"name"`
	File    string        `json:"file"`
	Release string        `json:"release"`
	Arch    string        `json:"arch"`
	Builder string        `json:"builder"`
	Base    string        `json:"base"`
	Retire  []jsonRetired `json:"retire"`
}

type jsonRetired struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Build  int    `json:"build"`
	Reason string `json:"reason"`
}

type jsonNode struct {
	ID     string   `json:"id"`
	Kind   string   `json:"kind"`
	Title  string   `json:"title"`
	Image  string   `json:"image"`
	Needs  []string `json:"needs"`
	Key    string   `json:"key"`
	Action string   `json:"action"`
	Why    []string `json:"why"`
	Place  string   `json:"place,omitempty"`
}

func planJSON(p *plan.Plan) jsonPlan {
	out := jsonPlan{Images: []jsonImage{}, Nodes: []jsonNode{}}
	for _, image := range p.Images {
		out.Images = append(out.Images, jsonImage{
			Name: image.Name, File: image.Pipeline.File, Release: image.Pipeline.Release, Arch: image.Pipeline.Arch,
			Builder: image.Pipeline.Builder, Base: image.Base.Summary, Retire: retiredJSON(image.Retire),
		})
	}
	for _, n := range p.Nodes {
		out.Nodes = append(out.Nodes, jsonNode{
			ID: n.ID, Kind: string(n.Kind), Title: n.Title, Image: n.Image.Name, Needs: orEmpty(n.Needs),
			Key: n.Key, Action: string(n.Action), Why: orEmpty(n.Why), Place: n.Pos.String(),
		})
	}
	return out
}

// orEmpty makes a missing list an empty one, which is [] in JSON and not null.
func orEmpty(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

func planText(p *plan.Plan) string {
	var out strings.Builder
	counts := map[plan.Action]int{}
	var rows [][]string
	for _, n := range p.Nodes {
		counts[n.Action]++
		rows = append(rows, []string{n.ID, string(n.Action), strings.Join(n.Why, "; ")})
	}
	for _, image := range p.Images {
		fmt.Fprintf(&out, "%s %s from %s, by the %s builder\n", image.Name, image.Pipeline.Release, image.Base.Summary, image.Pipeline.Builder)
	}
	out.WriteString("\n" + ui.Table(rows))
	for _, image := range p.Images {
		for _, r := range image.Retire {
			fmt.Fprintf(&out, "\nretention would remove %s build %d: %s", r.Name, r.Build, r.Reason)
		}
		if len(image.Retire) > 0 {
			out.WriteByte('\n')
		}
	}
	out.WriteString("\n" + planCounts(counts) + "\n")
	return out.String()
}

func planCounts(counts map[plan.Action]int) string {
	if counts[plan.Run] == 0 {
		return "nothing to do: everything is built"
	}
	var parts []string
	for _, c := range []struct {
		action plan.Action
		word   string
	}{{plan.Run, "to run"}, {plan.Cached, "cached"}, {plan.Skip, "skipped"}, {plan.Unneeded, "not needed"}} {
		if n := counts[c.action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, c.word))
		}
	}
	return strings.Join(parts, ", ")
}

func planDOT(p *plan.Plan) string {
	styles := map[plan.Action]string{
		plan.Run: "solid", plan.Cached: `filled", fillcolor="lightgrey`, plan.Skip: "dashed", plan.Unneeded: "dotted",
	}
	var out strings.Builder
	out.WriteString("digraph gild {\n  rankdir=LR;\n  node [shape=box];\n")
	for _, n := range p.Nodes {
		fmt.Fprintf(&out, "  %s [label=%s, style=\"%s\"];\n", dotString(n.ID), dotString(n.ID+"\n"+string(n.Action)), styles[n.Action])
	}
	for _, n := range p.Nodes {
		for _, need := range n.Needs {
			fmt.Fprintf(&out, "  %s -> %s;\n", dotString(need), dotString(n.ID))
		}
	}
	out.WriteString("}\n")
	return out.String()
}

// dotString quotes a string for Graphviz, in which only the quote is special.
func dotString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
