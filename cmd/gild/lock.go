package main

import (
	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
)

func (a *app) lockCommand() *cobra.Command {
	var o requestOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lock FILE...",
		Short: "Write down exactly what the bases resolve to now",
		Long: `Lock resolves the base of every pipeline and writes the result to gild.lock beside
it, so that later builds start from the same. Run it again to move to newer bases.
A build with --locked refuses anything that gild.lock doesn't name.`,
		Example: `  gild lock gild.yaml
  gild build gild.yaml --locked`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.lock(cmd, o, args, asJSON) },
	}
	o.inputs(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the names of the lock files as JSON")
	return cmd
}

func (a *app) lock(cmd *cobra.Command, o requestOptions, files []string, asJSON bool) error {
	req, err := o.request(cmd, files)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	return a.withEngine(ctx, func(e *engine.Engine) error {
		written, diags, err := e.Lock(ctx, req)
		if err := a.planned(ctx, diags, err); err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(orEmpty(written))
		}
		if len(written) == 0 {
			a.say("nothing changed")
		}
		return a.print(lines(written))
	})
}
