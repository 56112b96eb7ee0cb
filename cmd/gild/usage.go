package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gildhq/gild/engine/spec"
)

const helpTemplate = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}{{if not .HasParent}}
` + exitHelp + `
{{end}}`

// noCommand is what gild does without one of its commands.
func (a *app) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

// needSubcommand is what a command does that only holds others.
func needSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef(cmd, "%s needs one of its commands", cmd.CommandPath())
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var known []string
	for _, c := range cmd.Commands() {
		known = append(known, c.Name())
	}
	return usagef(cmd, "unknown command %q%s", name, didYouMean(name, known, ""))
}

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

func didYouMean(got string, known []string, prefix string) string {
	if s := spec.Suggest(got, known); s != "" {
		return fmt.Sprintf(" (did you mean %q?)", prefix+s)
	}
	return ""
}

// flagError turns an error of parsing flags into a usage error.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return usagef(cmd, "%w", err)
	}
	var known []string
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.InheritedFlags()} {
		set.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	}
	name := unknown.GetSpecifiedName()
	return usagef(cmd, "unknown flag %q%s", "--"+name, didYouMean(name, known, "--"))
}

// argsBetween checks how many arguments a command has; max < 0 is no limit. what names
// them as the usage line does.
func argsBetween(min, max int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usagef(cmd, "%s needs %s", cmd.CommandPath(), what)
		case max == 0 && len(args) > 0:
			return usagef(cmd, "%s takes no arguments, got %q", cmd.CommandPath(), strings.Join(args, " "))
		case max >= 0 && len(args) > max:
			return usagef(cmd, "%s takes %s and no more, got %q too", cmd.CommandPath(), what, strings.Join(args[max:], " "))
		}
		return nil
	}
}

// oneOf checks a flag that has a few values.
func oneOf(cmd *cobra.Command, flag, got string, known ...string) error {
	for _, k := range known {
		if got == k {
			return nil
		}
	}
	return usagef(cmd, "--%s is %q, but must be one of %s%s", flag, got, strings.Join(known, ", "), didYouMean(got, known, ""))
}

// exclusive checks that at most one of two flags is given.
func exclusive(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usagef(cmd, "--%s and --%s exclude each other", a, b)
	}
	return nil
}
