package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/plugins/conformance"
)

type jsonPluginCheck struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Platform string `json:"platform"`
	Digest   string `json:"digest"`
	Got      string `json:"got,omitempty"`
	Status   string `json:"status"`
}

func (a *app) pluginVerifyCommand() *cobra.Command {
	var o lockOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Hash the installed plugins and compare with gild.lock",
		Long: `Verify hashes the content of every installed plugin that gild.lock names. It ends with
exit code 1 when one has changed, with both digests, or isn't installed for this platform.
A build checks the same of each plugin that it starts.`,
		Example: "  gild plugin verify",
		Args:    argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withLock(cmd.Context(), o, func(ctx context.Context, m *plugins.Manager, l *lock.File) error {
				checks, err := m.Verify(ctx, l)
				if err != nil {
					return err
				}
				return a.pluginVerify(checks, asJSON)
			})
		},
	}
	o.flag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the checks as JSON")
	return cmd
}

func (a *app) pluginVerify(checks []plugins.Check, asJSON bool) error {
	out := []jsonPluginCheck{}
	var text strings.Builder
	bad := 0
	for _, c := range checks {
		out = append(out, jsonPluginCheck(c))
		fmt.Fprintf(&text, "%s %s for %s: %s\n", c.Name, c.Version, c.Platform, c.Status)
		if c.Status == plugins.StatusChanged {
			fmt.Fprintf(&text, "  gild.lock  %s\n  installed  %s\n", c.Digest, c.Got)
		}
		if c.Status != plugins.StatusOK {
			bad++
		}
	}
	if err := a.printEither(asJSON, out, text.String()); err != nil {
		return err
	}
	if bad == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d plugins aren't what gild.lock names; \"gild plugin install\" mends that", bad, len(checks))
}

func (a *app) pluginDocsCommand() *cobra.Command {
	var o lockOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "docs NAME",
		Short: "Show the documentation of a plugin's steps",
		Long: `Docs prints, as Markdown, what a plugin says of its steps: help text, fields and outputs,
and which variables of gild's environment it sees. NAME is a plugin that gild.lock names,
or the path of one, beginning with "." or "/".`,
		Example: `  gild plugin docs acme/motd
  gild plugin docs ./gild-plugin-motd > README.md`,
		Args: argsBetween(1, 1, "one plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPlugins(cmd.Context(), func(ctx context.Context, m *plugins.Manager) error {
				d, err := describe(ctx, m, o, args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(describedJSON(d))
				}
				text, err := plugins.Markdown(d)
				if err != nil {
					return err
				}
				return a.print(text)
			})
		},
	}
	o.flag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the steps with their schemas as JSON")
	return cmd
}

type jsonDescribed struct {
	Name        string              `json:"name"`
	Version     string              `json:"version"`
	Environment []string            `json:"environment"`
	Steps       []jsonDescribedStep `json:"steps"`
}

type jsonDescribedStep struct {
	Name      string            `json:"name"`
	Summary   string            `json:"summary"`
	Doc       string            `json:"doc"`
	Sections  []string          `json:"sections"`
	Cacheable bool              `json:"cacheable"`
	Schema    json.RawMessage   `json:"schema"`
	Outputs   map[string]string `json:"outputs"`
}

func describedJSON(d plugins.Description) jsonDescribed {
	out := jsonDescribed{Name: d.GetName(), Version: d.GetVersion(), Environment: orEmpty(d.Environment), Steps: []jsonDescribedStep{}}
	for _, s := range d.GetSteps() {
		out.Steps = append(out.Steps, jsonDescribedStep{
			Name: s.GetName(), Summary: s.GetSummary(), Doc: s.GetDoc(), Sections: s.GetSections(),
			Cacheable: s.GetCacheable(), Schema: s.GetSchema(), Outputs: s.GetOutputs(),
		})
	}
	return out
}

// describe asks a plugin that is named, or one at a path.
func describe(ctx context.Context, m *plugins.Manager, o lockOptions, name string) (plugins.Description, error) {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") {
		return m.DescribePath(ctx, name)
	}
	if !lock.ValidPluginName(name) {
		return plugins.Description{}, invalid("%q is no plugin's name, which looks like acme/motd, and no path, which begins with \".\" or \"/\"", name)
	}
	l, err := o.read()
	if err != nil {
		return plugins.Description{}, err
	}
	p, err := plugins.Locked(l, name)
	if err != nil {
		return plugins.Description{}, err
	}
	return m.Describe(ctx, name, p)
}

type pluginTestOptions struct {
	fixtures   string
	real, json bool
}

func (a *app) pluginTestCommand() *cobra.Command {
	var o pluginTestOptions
	cmd := &cobra.Command{
		Use:   "test PATH",
		Short: "Hold a plugin against the contract",
		Long: `Test starts a plugin as gild does and checks what every plugin must do: the handshake,
what it says of itself, bad input, cancelling, its logs and outputs, and how it ends. It
takes plugins in any language. PATH is a program, a folder with a plugin.yaml, or the
folder of sources in which a program gild-plugin-NAME was built. What the steps are run
with is in the file gild-plugin-test.yaml beside it. It ends with exit code 1 when something
doesn't hold.

Runs are made on a machine in memory, and those with "machine: real" on a Debian system in
namespaces of this host, a new one each. The first of them takes a minute and the network,
to make the base; it is kept in the state folder. Where that can't be done, the report
says "not run" and why. That is no failure, except with --real, which also wants
at least one such run.`,
		Example: `  gild plugin test ./gild-plugin-motd
  gild plugin test --real ./gild-plugin-motd`,
		Args: argsBetween(1, 1, "one plugin"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pluginTest(cmd.Context(), args[0], o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.fixtures, "fixtures", "", "read what to run the steps with from this `FILE`")
	flags.BoolVar(&o.real, "real", false, "fail when no run was made on a real machine, or one couldn't be")
	flags.BoolVar(&o.json, "json", false, "print the report as JSON")
	return cmd
}

func (a *app) pluginTest(ctx context.Context, path string, o pluginTestOptions) error {
	self, err := adapterCommand()
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(ctx, nil)
	defer stop()
	machines := &testMachines{app: a}
	report, err := conformance.Check(ctx, conformance.Options{
		Path: path, Fixtures: o.fixtures, Version: buildVersion().Version, Self: self, Machine: machines.Machine,
	})
	if err != nil {
		return err
	}
	if err := a.printEither(o.json, report, report.Text()); err != nil {
		return err
	}
	notRun := slices.ContainsFunc(report.Checks, func(c conformance.Result) bool { return c.Status == conformance.NotRun })
	unreal := o.real && report.RealRuns == 0 && !notRun
	if unreal {
		a.say("--real wants a run on a real machine, and no run in %s has \"machine: real\"", conformance.FixturesName)
	}
	if report.OK() && !unreal && !(o.real && notRun) {
		return nil
	}
	return exitWith(exitFailed)
}
