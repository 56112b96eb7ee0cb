package main

import (
	"context"
	"strings"

	"github.com/gildhq/gild/engine"
	"github.com/spf13/cobra"
)

func (a *app) schemaCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "schema [STEP]",
		Short: "Print the JSON Schema of pipeline files",
		Long: `Schema prints the JSON Schema that editors use to complete, check and explain pipeline
files, with the schemas of all steps in it, those of the plugins that gild.lock names
among them; or the schema of one step's "with".`,
		Example: `  gild schema > gild.schema.json
  gild schema packages
  gild schema acme/agent`,
		Args: argsBetween(0, 1, "one step's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.schema(cmd.Context(), dir, strings.Join(args, ""))
		},
	}
	cmd.AddCommand(a.schemaIAMCommand())
	cmd.Flags().StringVar(&dir, "dir", ".", "the `FOLDER` whose gild.lock names the plugins")
	return cmd
}

func (a *app) schema(ctx context.Context, dir, name string) error {
	return a.withLanguage(func(l *engine.Language) error {
		if name == "" {
			text, err := l.Schema(ctx, dir)
			if err != nil {
				return err
			}
			return a.print(string(text))
		}
		catalog, err := l.In(ctx, dir)
		if err != nil {
			return err
		}
		if s, ok := catalog.Step(name); ok {
			return a.print(string(s.Schema))
		}
		known := catalog.Names()
		return invalid("there is no step %q%s; the steps are %s", name, didYouMean(name, known, ""), strings.Join(known, ", "))
	})
}
