package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/steps"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [STEP]",
		Short: "Print the JSON Schema of pipeline files",
		Long: `Schema prints the JSON Schema that editors use to complete, check and explain pipeline
files, with the schemas of all steps in it; or the schema of one step's "with".`,
		Example: `  gild schema > gild.schema.json
  gild schema packages`,
		Args: argsBetween(0, 1, "one step's name"),
		RunE: func(_ *cobra.Command, args []string) error { return a.schema(strings.Join(args, "")) },
	}
}

func (a *app) schema(name string) error {
	if name == "" {
		syntax, err := engine.Syntax(steps.All())
		if err != nil {
			return err
		}
		return a.print(string(spec.ComposedSchema(syntax)))
	}
	var known []string
	for _, s := range steps.All() {
		if s.Name == name {
			return a.print(string(s.Schema))
		}
		known = append(known, s.Name)
	}
	return invalid("there is no step %q%s; the steps are %s", name, didYouMean(name, known, ""), strings.Join(known, ", "))
}
