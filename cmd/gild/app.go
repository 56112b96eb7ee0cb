package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws"
	"github.com/gildhq/gild/engine/diag"
)

// app is one run of gild: its streams, and the flags that every command has.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	// makeBuilders makes the builders that pipelines may choose, in a state folder.
	makeBuilders func(state string, cloud aws.Config) ([]builder.Builder, error)

	state     string
	cloud     aws.Config
	inSandbox bool // see onSandbox
	noColor   bool
}

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	// A closed pipe is an error of writing, reported like any other, and not a sudden
	// death that leaves a build's machine behind.
	signal.Ignore(syscall.SIGPIPE)
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.explain(err)
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "gild",
		Short: "Build golden machine images from pipeline files",
		Long: `gild turns a pipeline file into a tested, bootable machine image.

Start with "gild init", then "gild build gild.yaml".`,
		Args:          cobra.ArbitraryArgs,
		RunE:          a.noCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.state, "state", "", "state `FOLDER` (default $GILD_STATE, else gild in $XDG_STATE_HOME or ~/.local/state)")
	flags.StringVar(&a.cloud.Endpoint, "endpoint", "", "ask this `URL` in place of AWS, such as that of gild sandbox (default $AWS_ENDPOINT_URL)")
	flags.BoolVar(&a.noColor, "no-color", false, "never use colours; the variable NO_COLOR does the same")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpTemplate(helpTemplate)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveDefault)
	a.addCommands(root)
	return root
}

// addCommands lists every command, in the groups of the help.
func (a *app) addCommands(root *cobra.Command) {
	groups := []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"write", "Write a pipeline:", []*cobra.Command{a.initCommand(), a.validateCommand(), a.fmtCommand(), a.schemaCommand(), a.lockCommand()}},
		{"build", "Build it:", []*cobra.Command{a.planCommand(), a.buildCommand(), a.resumeCommand(), a.targetCommand(), a.sandboxCommand()}},
		{"plugins", "Plugins:", []*cobra.Command{a.pluginCommand()}},
		{"after", "Look at builds:", []*cobra.Command{a.runsCommand(), a.logsCommand(), a.gcCommand()}},
		{"images", "Look at images:", []*cobra.Command{a.imagesCommand(), a.showCommand(), a.channelCommand()}},
		{"gild", "About gild:", []*cobra.Command{a.doctorCommand(), a.versionCommand()}},
	}
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range g.commands {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetCompletionCommandGroupID("gild")
	root.SetHelpCommandGroupID("gild")
}

// explain says why gild ends, unless that has been said.
func (a *app) explain(err error) {
	var (
		exit  *exitError
		usage *usageError
		diags *diag.Failed
	)
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.err == nil, errors.As(err, &diags):
	case errors.As(err, &usage):
		a.say("gild: %v\nsee %q", err, usage.command+" --help")
	default:
		a.say("gild: %v", err)
	}
}

// say writes a line for people, or the lines of an error. What is in it may be a plugin's
// words, so control characters are shown as escapes. There is nowhere left to report that
// it can't be written.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.stderr, printable(fmt.Sprintf(format, args...)))
}

// look tells what a stream can show.
func (a *app) look(stream any) ui.Look {
	_, _, terminal := size(stream)
	return ui.LookOf(terminal, a.noColor, a.getenv)
}

// size is a terminal's size in columns and rows; 80 by 24 for what is no terminal.
func size(stream any) (width, height int, terminal bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 80, 24, false
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width == 0 || height == 0 {
		return 80, 24, true
	}
	return width, height, true
}
