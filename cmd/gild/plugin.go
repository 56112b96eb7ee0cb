package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
)

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Install, write and test plugins, which add steps",
		Long: `A plugin is a program of others that adds steps to pipelines. The file gild.lock beside
the pipelines names the plugins they may use, with a digest per platform; commit it. What
has another digest is never used.

A plugin runs as the user who runs gild: install only what you trust.`,
		Example: `  gild plugin install oci://registry.example/acme/motd:1.0.0
  gild plugin list
  gild plugin docs acme/motd`,
		Args: needSubcommand,
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"use", "Use plugins:", []*cobra.Command{
			a.pluginInstallCommand(), a.pluginListCommand(), a.pluginDocsCommand(), a.pluginUpdateCommand(),
			a.pluginVerifyCommand(), a.pluginVendorCommand(), a.pluginRemoveCommand(),
		}},
		{"author", "Write plugins:", []*cobra.Command{a.pluginNewCommand(), a.pluginTestCommand(), a.adaptCommand()}},
	}
	for _, g := range groups {
		cmd.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			cmd.AddCommand(c)
		}
	}
	return cmd
}

// lockOptions say which lock file a command works on.
type lockOptions struct{ file string }

func (o *lockOptions) flag(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.file, "file", "f", ".", "work on the gild.lock of this `FOLDER`, or of the pipeline file's folder")
}

// read reads the lock file.
func (o *lockOptions) read() (*lock.File, error) {
	dir := o.file
	info, err := os.Stat(dir)
	if err != nil {
		return nil, invalid("find gild.lock: %w", err)
	}
	if !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	l, err := lock.Read(dir)
	if err != nil {
		return nil, invalid("%w", err)
	}
	return l, nil
}

// withLock reads the lock file and opens the plugins of the state folder for the length of
// fn, which an interrupt ends.
func (a *app) withLock(ctx context.Context, o lockOptions, fn func(context.Context, *plugins.Manager, *lock.File) error) error {
	l, err := o.read()
	if err != nil {
		return err
	}
	return a.withPlugins(ctx, func(ctx context.Context, m *plugins.Manager) error { return fn(ctx, m, l) })
}

// withPlugins is withLock for who may need no lock file.
func (a *app) withPlugins(ctx context.Context, fn func(context.Context, *plugins.Manager) error) (err error) {
	progress := &fetching{app: a}
	m, err := a.openPlugins(progress.show)
	if err != nil {
		return err
	}
	ctx, stop := a.interruptible(ctx, nil)
	defer stop()
	defer func() { err = errors.Join(pluginError(err), m.Close()) }()
	defer progress.clear()
	return fn(ctx, m)
}

// openPlugins opens the plugins of the state folder. progress is told of downloads; nil for
// who makes none.
func (a *app) openPlugins(progress func(source string, done, total int64)) (*plugins.Manager, error) {
	state, err := engine.StateFolder(a.state)
	if err != nil {
		return nil, err
	}
	self, err := adapterCommand()
	if err != nil {
		return nil, err
	}
	return plugins.Open(plugins.Config{State: state, Version: buildVersion().Version, Self: self, Progress: progress})
}

// adapterCommand is the command that serves a plugin of kind exec, whose folder comes last.
func adapterCommand() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program of gild: %w", err)
	}
	return []string{self, "plugin", "adapt"}, nil
}

// pluginError marks what is the fault of the command line.
func pluginError(err error) error {
	var unknown *plugins.UnknownError
	if errors.As(err, &unknown) {
		return &exitError{code: exitUsage, err: err}
	}
	return err
}

// fetching shows how far a download is, on a terminal.
type fetching struct {
	app   *app
	last  time.Time
	shown bool
}

func (f *fetching) show(source string, done, total int64) {
	_, _, terminal := size(f.app.stderr)
	if !terminal || time.Since(f.last) < 100*time.Millisecond {
		return
	}
	f.last, f.shown = time.Now(), true
	text := fmt.Sprintf("fetching %s: %d MiB", source, done>>20)
	if total > 0 {
		text += fmt.Sprintf(" of %d MiB", total>>20)
	}
	fmt.Fprintf(f.app.stderr, "\r\x1b[K%s", text)
}

func (f *fetching) clear() {
	if f.shown {
		fmt.Fprint(f.app.stderr, "\r\x1b[K")
	}
}

// fetchOptions are the flags of commands that fetch.
type fetchOptions struct {
	sums      []string
	allowHTTP bool
}

func (o *fetchOptions) network(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.allowHTTP, "allow-http", false, "let the network be asked without TLS, but for logins; this machine always may")
}

func (o *fetchOptions) digests(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.sums, "sha256", nil, "the `DIGEST` of the file at an address, as sha256sum prints it; PLATFORM=DIGEST when there is a file for each platform; may be repeated")
}

// sha256 reads the flag.
func (o *fetchOptions) sha256(cmd *cobra.Command) (map[string]string, error) {
	sums := map[string]string{}
	for _, text := range o.sums {
		platform, digest, ok := strings.Cut(text, "=")
		if !ok {
			platform, digest = "", text
		}
		digest = "sha256:" + strings.ToLower(strings.TrimPrefix(digest, "sha256:"))
		if !digestText.MatchString(digest) {
			return nil, usagef(cmd, "--sha256 is %q, but must be 64 hex digits, or a platform and them, such as linux/amd64=...", text)
		}
		if ok && !platformText.MatchString(platform) {
			return nil, usagef(cmd, "--sha256 is %q, but a platform looks like linux/amd64", text)
		}
		if _, twice := sums[platform]; twice {
			return nil, usagef(cmd, "--sha256 is given twice for %s", cmp.Or(platform, "the same file"))
		}
		sums[platform] = digest
	}
	if len(sums) > 1 && sums[""] != "" {
		return nil, usagef(cmd, "--sha256 is given both with and without a platform")
	}
	return sums, nil
}

// jsonPlugin is a plugin as a lock file has it.
type jsonPlugin struct {
	Source    string                  `json:"source"`
	Version   string                  `json:"version"`
	Platforms map[string]jsonPlatform `json:"platforms"`
}

type jsonPlatform struct {
	Digest string `json:"digest"`
	Source string `json:"source,omitempty"`
}

func pluginJSON(p lock.Plugin) jsonPlugin {
	out := jsonPlugin{Source: p.Source, Version: p.Version, Platforms: map[string]jsonPlatform{}}
	for name, on := range p.Platforms {
		out.Platforms[name] = jsonPlatform{on.Digest, on.Source}
	}
	return out
}

// jsonChange is the form of install and update with --json.
type jsonChange struct {
	Name string `json:"name"`
	jsonPlugin
	Old     *jsonPlugin `json:"old"`
	Dropped []string    `json:"dropped"`
	Steps   []string    `json:"steps"`
	// Environment names the variables of gild's environment that it sees.
	Environment []string `json:"environment"`
}

func changeJSON(c plugins.Change) jsonChange {
	out := jsonChange{Name: c.Name, jsonPlugin: pluginJSON(c.New), Dropped: orEmpty(c.Dropped), Steps: orEmpty(c.Steps), Environment: orEmpty(c.Environment)}
	if c.Old.Version != "" {
		old := pluginJSON(c.Old)
		out.Old = &old
	}
	return out
}
