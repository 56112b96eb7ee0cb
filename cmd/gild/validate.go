package main

import (
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/diag"
	"github.com/spf13/cobra"
)

type validateOptions struct {
	requestOptions
	format string
	json   bool
	online bool
}

func (a *app) validateCommand() *cobra.Command {
	var o validateOptions
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Report every mistake in pipeline files",
		Long: `Validate checks pipeline files, and folders of them, without building, network or state
folder. All mistakes of all files are reported at once, each with its place and a hint:
as text on standard error, or in another format on standard output.

With --online the clouds that the files build on are asked too, when nothing else is wrong:
credentials, regions, instance types, base, network, keys and permissions. Nothing is
changed there.`,
		Example: `  gild validate gild.yaml
  gild validate pipelines/ --format github      # marks the lines of a pull request
  gild validate pipelines/ --format sarif > gild.sarif
  gild validate web.yaml --builder aws --online`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.validate(cmd, o, args) },
	}
	o.inputs(cmd)
	cmd.Flags().BoolVar(&o.online, "online", false, "ask the clouds that the files build on, too")
	cmd.Flags().BoolVar(&o.json, "json", false, "the same as --format json")
	cmd.Flags().StringVar(&o.format, "format", "text", "how to report, one of `text|json|sarif|github`")
	return cmd
}

func (a *app) validate(cmd *cobra.Command, o validateOptions, files []string) error {
	if err := oneOf(cmd, "format", o.format, diagnosticFormats...); err != nil {
		return err
	}
	if o.json {
		if err := exclusive(cmd, "json", "format"); err != nil {
			return err
		}
		o.format = "json"
	}
	req, err := o.request(cmd, files)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	var diags diag.List
	if o.online {
		err = a.withEngine(ctx, func(e *engine.Engine) error {
			_, diags, err = e.Survey(ctx, req)
			return err
		})
	} else {
		err = a.withLanguage(func(l *engine.Language) error {
			diags, err = l.Validate(ctx, req)
			return err
		})
	}
	if err != nil {
		return err
	}
	if err := a.report(o.format, diags); err != nil {
		return err
	}
	if o.format == "text" && !diags.HasErrors() {
		a.say("no mistakes found")
	}
	return diags.Err()
}
