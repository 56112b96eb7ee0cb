package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/catalog"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/plan"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"ok", nil, exitOK},
		{"a failure of the world", errors.New("disk full"), exitFailed},
		{"usage", &usageError{err: errors.New("unknown flag")}, exitUsage},
		{"diagnostics", &diag.Failed{}, exitUsage},
		{"no such step", &plan.UnknownNodeError{Name: "x"}, exitUsage},
		{"no such run", fmt.Errorf("resume: %w", journal.ErrNoRun), exitUsage},
		{"no such image", fmt.Errorf("show: %w", catalog.ErrNotFound), exitUsage},
		{"invalid argument", invalid("there is no step %q", "x"), exitUsage},
		{"tests failed", exitWith(exitTests), exitTests},
		{"partly published", exitWith(exitPartial), exitPartial},
		{"leftovers", exitWith(exitLeftovers), exitLeftovers},
		{"interrupted", &interrupted{signal: os.Interrupt}, exitInterrupted},
		{"interrupted deep down", fmt.Errorf("open the state: %w", context.Canceled), exitInterrupted},
		{"said and done", exitWith(exitOK), exitOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

// The numbers are an interface: they are in the help and can't change.
func TestExitHelp(t *testing.T) {
	t.Parallel()
	for code, text := range map[int]string{
		exitOK: "ok", exitFailed: "build failed", exitUsage: "invalid input or usage", exitTests: "tests failed, nothing published",
		exitPartial: "partly published: some region failed", exitLeftovers: "finished, but something could not be cleaned up",
		exitInterrupted: "interrupted",
	} {
		if line := fmt.Sprintf("  %-3d  %s", code, text); !strings.Contains(exitHelp+"\n", line+"\n") {
			t.Errorf("the help lacks %q", line)
		}
	}
}

// Every command can be used from its help alone, and gives its result as JSON.
func TestCommandsAreExplained(t *testing.T) {
	t.Parallel()
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: os.Getenv}
	silent := []string{"gild sandbox export", "gild sandbox faults"}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if !c.HasParent() {
			return
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: short help is %q, want a sentence without a full stop", c.CommandPath(), c.Short)
		}
		if !strings.Contains(c.Example, "gild ") {
			t.Errorf("%s: no example", c.CommandPath())
		}
		// A schema and a policy are JSON already, channel only holds commands, what is hidden is
		// for programs, and two print nothing.
		says := c.Name() != "schema" && c.Parent().Name() != "schema" && !slices.Contains(silent, c.CommandPath())
		if says && !c.HasSubCommands() && !c.Hidden && !c.Parent().Hidden && c.Flags().Lookup("json") == nil {
			t.Errorf("%s: no flag --json", c.CommandPath())
		}
	}
	visit(a.root())
}

func TestInterruptedSays(t *testing.T) {
	t.Parallel()
	for s, want := range map[os.Signal]string{
		syscall.SIGINT:  "interrupted",
		syscall.SIGTERM: "stopped by signal: terminated",
	} {
		if got := (&interrupted{signal: s}).Error(); got != want {
			t.Errorf("%v: got %q, want %q", s, got, want)
		}
	}
}
