package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/plugins/source"
)

var (
	digestText   = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	platformText = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+$`)
)

type pluginInstallOptions struct {
	lockOptions
	fetchOptions
	name      string
	platforms []string
	vendor    string
	json      bool
}

func (a *app) pluginInstallCommand() *cobra.Command {
	var o pluginInstallOptions
	cmd := &cobra.Command{
		Use:   "install [SOURCE]",
		Short: "Install a plugin and lock it, or everything that gild.lock names",
		Long: `Install fetches a plugin, asks it for its name, version and steps, and writes its digest
into gild.lock. A SOURCE is

  ./plugins/motd                           a program, a folder with plugin.yaml, or a .tar.gz of one
  https://plugins.example/motd-1.0.0       the same at an address; needs --sha256
  oci://registry.example/acme/motd:1.0.0   an artifact, or an index of artifacts

{os}, {arch} and {os_arch} in a path or address stand for a platform. What a source offers
for other platforms is locked too, so that gild.lock is of use there. For a registry, the
logins of docker are used.

Without SOURCE, everything that gild.lock names is installed, and refused if its digest
differs: that is what CI does. With --vendor it comes from a folder that "gild plugin
vendor" made, and the network isn't asked.`,
		Example: `  gild plugin install ./gild-plugin-motd
  gild plugin install https://plugins.example/motd_{os_arch} \
      --sha256 linux/amd64=9f86d08... --sha256 linux/arm64=60303ae...
  gild plugin install
  gild plugin install --vendor vendor/`,
		Args: argsBetween(0, 1, "one source"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.pluginInstallLocked(cmd, o)
			}
			return a.pluginInstall(cmd, o, args[0])
		},
	}
	o.lockOptions.flag(cmd)
	o.digests(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.name, "name", "", "the `NAME` that the plugin must have, such as acme/motd")
	flags.StringSliceVar(&o.platforms, "platform", nil, "lock only these `PLATFORMS` of the source, such as linux/arm64, beside what is locked")
	flags.StringVar(&o.vendor, "vendor", "", "take what gild.lock names from this `FOLDER`, not from the network")
	o.network(cmd)
	flags.BoolVar(&o.json, "json", false, "print what was installed as JSON")
	return cmd
}

func (a *app) pluginInstall(cmd *cobra.Command, o pluginInstallOptions, text string) error {
	sums, err := o.sha256(cmd)
	switch {
	case err != nil:
		return err
	case o.vendor != "":
		return usagef(cmd, "--vendor is for what gild.lock names; leave out %q", text)
	case o.name != "" && !lock.ValidPluginName(o.name):
		return usagef(cmd, "--name is %q, but a plugin's name looks like acme/motd", o.name)
	}
	for _, p := range o.platforms {
		if !platformText.MatchString(p) {
			return usagef(cmd, "--platform is %q, but a platform looks like linux/amd64", p)
		}
	}
	src, err := source.Parse(text)
	if err != nil {
		return invalid("%w", err)
	}
	if src.IsWeb() && len(sums) == 0 {
		return invalid("the address %s needs the SHA-256 that the file was published with: give it with --sha256", text)
	}
	if src.IsPath() && !src.PerPlatform() {
		if _, err := os.Stat(text); err != nil {
			return invalid("install plugin: %w", err)
		}
	}
	return a.withLock(cmd.Context(), o.lockOptions, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
		c, err := m.Install(ctx, l, plugins.InstallRequest{
			Source: text, SHA256: sums, Name: o.name, Platforms: o.platforms, AllowHTTP: o.allowHTTP,
		})
		if err != nil {
			return err
		}
		if o.json {
			return a.printJSON(changeJSON(c))
		}
		return a.print(changeText(c))
	})
}

// changeText tells what became of a plugin: its platforms, with the digests that went.
func changeText(c plugins.Change) string {
	var out strings.Builder
	switch {
	case c.Old.Version == "":
		fmt.Fprintf(&out, "%s %s from %s\n", c.Name, c.New.Version, c.New.Source)
	case c.Same():
		fmt.Fprintf(&out, "%s %s is up to date\n", c.Name, c.New.Version)
	case c.Old.Version == c.New.Version:
		fmt.Fprintf(&out, "%s %s changed, from %s\n", c.Name, c.New.Version, c.New.Source)
	default:
		fmt.Fprintf(&out, "%s %s, was %s, from %s\n", c.Name, c.New.Version, c.Old.Version, c.New.Source)
	}
	for _, platform := range slices.Sorted(maps.Keys(c.New.Platforms)) {
		digest, old := c.New.Platforms[platform].Digest, c.Old.Platforms[platform].Digest
		fmt.Fprintf(&out, "  %-12s %s\n", platform, digest)
		if old != "" && old != digest {
			fmt.Fprintf(&out, "  %-12s %s\n", "  was", old)
		}
	}
	for _, platform := range c.Dropped {
		fmt.Fprintf(&out, "  %-12s not locked any more: add that of the new version\n", platform)
	}
	if len(c.Steps) > 0 {
		fmt.Fprintf(&out, "steps: %s\n", strings.Join(c.Steps, ", "))
	}
	if len(c.Environment) > 0 {
		fmt.Fprintf(&out, "sees of gild's environment: %s\n", strings.Join(c.Environment, ", "))
	}
	return out.String()
}

type jsonInstalled struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Already bool   `json:"already"`
}

func (a *app) pluginInstallLocked(cmd *cobra.Command, o pluginInstallOptions) error {
	for _, flag := range []string{"sha256", "name", "platform"} {
		if cmd.Flags().Changed(flag) {
			return usagef(cmd, "--%s is for a SOURCE, and there is none", flag)
		}
	}
	return a.withLock(cmd.Context(), o.lockOptions, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
		installed, failed := m.InstallLocked(ctx, l, plugins.LockedRequest{Vendor: o.vendor, AllowHTTP: o.allowHTTP})
		out := []jsonInstalled{}
		var text strings.Builder
		for _, p := range installed {
			out = append(out, jsonInstalled(p))
			how := "is installed"
			if p.Already {
				how = "was already installed"
			}
			fmt.Fprintf(&text, "%s %s %s\n", p.Name, p.Version, how)
		}
		if len(l.Plugins) == 0 {
			a.say("%s names no plugins", l.Path())
		}
		if err := a.printEither(o.json, out, text.String()); err != nil {
			return err
		}
		return failed
	})
}

// printEither prints a result as JSON or as text.
func (a *app) printEither(asJSON bool, v any, text string) error {
	if asJSON {
		return a.printJSON(v)
	}
	return a.print(text)
}
