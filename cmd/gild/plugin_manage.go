package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
)

func (a *app) pluginUpdateCommand() *cobra.Command {
	var o struct {
		lockOptions
		fetchOptions
		json bool
	}
	cmd := &cobra.Command{
		Use:   "update [NAME]",
		Short: "Fetch plugins again and lock what their sources have now",
		Long: `Update fetches a plugin, or every one that gild.lock names, from where it was installed
from, and locks what is there now. It shows the old and the new version and digest. An
address needs --sha256 when its file has changed; to go to another address or tag, install
from there.`,
		Example: `  gild plugin update
  gild plugin update acme/motd`,
		Args: argsBetween(0, 1, "one plugin's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			sums, err := o.sha256(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 && len(sums) > 0 {
				return usagef(cmd, "--sha256 is for one plugin: name it")
			}
			return a.withLock(cmd.Context(), o.lockOptions, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
				names := args
				if len(args) == 0 {
					names = slices.Sorted(maps.Keys(l.Plugins))
				}
				out, text := []jsonChange{}, ""
				var errs []error
				for _, name := range names {
					c, err := m.Update(ctx, l, name, sums, o.allowHTTP)
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if err != nil {
						errs = append(errs, err)
						continue
					}
					out, text = append(out, changeJSON(c)), text+changeText(c)
				}
				return errors.Join(a.printEither(o.json, out, text), errors.Join(errs...))
			})
		},
	}
	o.lockOptions.flag(cmd)
	o.digests(cmd)
	o.network(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print what changed as JSON")
	return cmd
}

func (a *app) pluginRemoveCommand() *cobra.Command {
	var o lockOptions
	var purge, asJSON bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a plugin out of gild.lock",
		Long: `Remove takes a plugin out of gild.lock, so that pipelines can't use it any more. Its
content stays in the state folder, for other projects and for what must be cleaned up
after an unfinished build; --purge removes that too, unless it is still needed to clean up.

With --purge NAME may also be the digest of a content that gild.lock doesn't name any more,
as "gild plugin list --stored" shows it: that of an older version, say. Whether another
project's gild.lock names it gild can't know; there, "gild plugin install" fetches it again.`,
		Example: `  gild plugin remove acme/motd
  gild plugin remove --purge sha256:9f86d08...`,
		Args: argsBetween(1, 1, "one plugin's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if digestText.MatchString(args[0]) {
				if !purge {
					return usagef(cmd, "a digest is of content in the state folder, which only --purge removes")
				}
				return a.withLock(cmd.Context(), o, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
					return a.pluginPurge(ctx, m, l, args[0], asJSON)
				})
			}
			return a.withLock(cmd.Context(), o, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
				if purge {
					p, err := plugins.Locked(l, args[0])
					if err == nil {
						err = a.unclaimed(ctx, args[0], digests(p))
					}
					if err != nil {
						return err
					}
				}
				if err := m.Remove(ctx, l, args[0], purge); err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(map[string]string{"removed": args[0], "lock": l.Path()})
				}
				a.say("removed %s from %s", args[0], l.Path())
				return nil
			})
		},
	}
	o.flag(cmd)
	cmd.Flags().BoolVar(&purge, "purge", false, "remove its content from the state folder too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was removed as JSON")
	return cmd
}

func (a *app) pluginVendorCommand() *cobra.Command {
	var o lockOptions
	var f fetchOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "vendor FOLDER",
		Short: "Put all that gild.lock names into a folder, to install from offline",
		Long: `Vendor puts the content of every plugin that gild.lock names, for every platform, into a
folder: each a file or folder named after its digest, "sha256-" and 64 hex digits. Commit
it, or carry it to where there is no network, and run "gild plugin install --vendor FOLDER"
there. What isn't installed here is fetched. It prints the paths.`,
		Example: `  gild plugin vendor vendor/
  gild plugin install --vendor vendor/`,
		Args: argsBetween(1, 1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withLock(cmd.Context(), o, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
				paths, err := m.Vendor(ctx, l, args[0], f.allowHTTP)
				if err != nil {
					return err
				}
				return a.printEither(asJSON, orEmpty(paths), lines(paths))
			})
		},
	}
	o.flag(cmd)
	f.network(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the paths as JSON")
	return cmd
}

type jsonListedPlugin struct {
	Name string `json:"name"`
	jsonPlugin
	Digest      string   `json:"digest"`
	Installed   bool     `json:"installed"`
	Steps       []string `json:"steps"`
	Environment []string `json:"environment"`
	Problem     string   `json:"problem,omitempty"`
}

func (a *app) pluginListCommand() *cobra.Command {
	var o lockOptions
	var stored, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the plugins that gild.lock names",
		Long: `List shows the plugins that gild.lock names: version, steps, whether they are installed
here, the digest for this platform and the source.

With --stored it shows what the state folder keeps of plugins instead, with sizes: the
contents that this gild.lock names, those of other projects, and old versions, which
"gild plugin remove --purge DIGEST" removes.`,
		Example: `  gild plugin list --file images/web.yaml
  gild plugin list --stored`,
		Args: argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withLock(cmd.Context(), o, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
				if stored {
					return a.pluginsStored(m, l, asJSON)
				}
				all, err := m.List(ctx, l)
				if err != nil {
					return err
				}
				return a.pluginList(all, l.Path(), asJSON)
			})
		},
	}
	o.flag(cmd)
	cmd.Flags().BoolVar(&stored, "stored", false, "list what the state folder keeps, whether gild.lock names it or not")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func (a *app) pluginList(all []plugins.Listed, path string, asJSON bool) error {
	out := []jsonListedPlugin{}
	var rows [][]string
	for _, p := range all {
		one := jsonListedPlugin{Name: p.Name, jsonPlugin: pluginJSON(p.Plugin), Digest: p.Digest, Installed: p.Installed, Steps: orEmpty(p.Steps), Environment: orEmpty(p.Environment)}
		installed := "no"
		if p.Installed {
			installed = "yes"
		}
		if p.Problem != nil {
			one.Problem, installed = p.Problem.Error(), "broken"
			a.say("%v", p.Problem)
		}
		out = append(out, one)
		rows = append(rows, []string{p.Name, p.Version, installed, dash(strings.Join(p.Steps, " ")), p.Source, dash(p.Digest)})
	}
	if asJSON {
		return a.printJSON(out)
	}
	return a.printTable(path+" names no plugins", []string{"NAME", "VERSION", "INSTALLED", "STEPS", "SOURCE", "DIGEST"}, rows)
}
