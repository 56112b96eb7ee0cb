package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/run"
)

func (a *app) logsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "logs RUN [STEP]",
		Short: "Print what a run's steps wrote",
		Long: `Logs prints the whole log of one step, as it was written, or of all steps of a run,
each under its name. The start of a run's id is enough.`,
		Example: `  gild logs 20261204-1203
  gild logs 20261204-1203 web/web-server
  gild logs 20261204-1203 --json               # where the logs are`,
		Args: argsBetween(1, 2, "a run's id and, if you like, a step"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), args, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the paths of the logs as JSON")
	return cmd
}

// stepLog is where a step's log is.
type stepLog struct {
	Step string `json:"step"`
	Path string `json:"path"`
}

func (a *app) logs(ctx context.Context, args []string, asJSON bool) error {
	return a.withEngine(ctx, func(e *engine.Engine) error {
		found, err := findLogs(ctx, e, args)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(found)
		}
		for i, l := range found {
			if err := a.printLog(l, len(args) == 1, i > 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// findLogs finds the log of a run's step, or of all its steps that wrote something, in
// the order in which they ran.
func findLogs(ctx context.Context, e *engine.Engine, args []string) ([]stepLog, error) {
	_, nodes, err := e.Run(ctx, args[0])
	if err != nil {
		return nil, err
	}
	if len(args) == 2 {
		path, err := e.LogPath(ctx, args[0], args[1])
		if err != nil {
			return nil, invalid("%w", err)
		}
		return []stepLog{{args[1], path}}, nil
	}
	found := []stepLog{}
	if len(nodes) == 0 {
		return found, nil
	}
	path, err := e.LogPath(ctx, args[0], nodes[0].ID)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(nodes, func(a, b journal.Node) int { return a.Started.Compare(b.Started) })
	for _, n := range nodes {
		// A step that was cached when the run was resumed may have a log of the first try.
		l := stepLog{n.ID, filepath.Join(filepath.Dir(path), run.LogName(n.ID))}
		if _, err := os.Stat(l.Path); err == nil {
			found = append(found, l)
		}
	}
	return found, nil
}

func (a *app) printLog(l stepLog, heading, gap bool) error {
	f, err := os.Open(l.Path)
	if errors.Is(err, fs.ErrNotExist) {
		a.say("%s wrote nothing", l.Step)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the log of %s: %w", l.Step, err)
	}
	defer f.Close()
	if heading {
		text := "==> " + l.Step + " <==\n"
		if gap {
			text = "\n" + text
		}
		if err := a.print(text); err != nil {
			return err
		}
	}
	if _, err := io.Copy(a.stdout, f); err != nil {
		return fmt.Errorf("print the log of %s: %w", l.Step, err)
	}
	return nil
}
