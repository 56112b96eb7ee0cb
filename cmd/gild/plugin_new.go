package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/plugins/scaffold"
)

func (a *app) pluginNewCommand() *cobra.Command {
	var kind, lang, sdk string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new NAME [FOLDER]",
		Short: "Write a plugin that works, to start from",
		Long: `New writes a plugin with one step: a Go module that builds and passes its tests at once,
or with --lang shell a plugin.yaml and a script. NAME is "motd", or with an owner
"acme/motd". FOLDER is gild-plugin-NAME unless given; files that are there are never
overwritten.`,
		Example: `  gild plugin new acme/motd
  gild plugin new --lang shell motd
  gild plugin test ./gild-plugin-motd`,
		Args: argsBetween(1, 2, "a name and at most a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf(cmd, "kind", kind, string(scaffold.Customize), string(scaffold.Test), string(scaffold.Publish)); err != nil {
				return err
			}
			if err := oneOf(cmd, "lang", lang, string(scaffold.Go), string(scaffold.Shell)); err != nil {
				return err
			}
			dir := scaffold.Folder(args[0])
			if len(args) > 1 {
				dir = args[1]
			}
			return a.pluginNew(cmd, dir, scaffold.Options{Name: args[0], Kind: scaffold.Kind(kind), Lang: scaffold.Lang(lang), SDK: sdk}, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kind, "kind", string(scaffold.Customize), "what the step does: `KIND` is customize, test or publish")
	flags.StringVar(&lang, "lang", string(scaffold.Go), "the `LANGUAGE`: go or shell")
	flags.StringVar(&sdk, "sdk", "", "build a Go plugin with gild's sources in this `FOLDER`, not with the released ones")
	flags.BoolVar(&asJSON, "json", false, "print the files and the next commands as JSON")
	return cmd
}

func (a *app) pluginNew(cmd *cobra.Command, dir string, o scaffold.Options, asJSON bool) error {
	ctx, stop := a.interruptible(cmd.Context(), nil)
	defer stop()
	created, err := scaffold.Create(ctx, dir, o)
	var exists *scaffold.ExistsError
	if errors.As(err, &exists) || err != nil && len(created.Files) == 0 && ctx.Err() == nil {
		return invalid("%w", err)
	}
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(created)
	}
	for _, next := range created.Next {
		a.say("next: %s", next)
	}
	return a.print(lines(created.Files))
}
