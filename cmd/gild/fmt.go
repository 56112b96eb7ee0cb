package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

type fmtOptions struct{ check, json bool }

func (a *app) fmtCommand() *cobra.Command {
	var o fmtOptions
	cmd := &cobra.Command{
		Use:   "fmt FILE...",
		Short: "Lay pipeline files out in the usual way",
		Long: `Fmt rewrites pipeline files in the canonical layout; comments and blank lines are
kept, and the meaning never changes. It prints the names of the files it changed. With
--check it changes nothing, prints the names of those it would change, and exits with 2
if there are any. The file "-" is standard input, which goes to standard output.`,
		Example: `  gild fmt gild.yaml
  gild fmt --check pipelines/*.yaml
  gild fmt - < gild.yaml`,
		Args: argsBetween(1, -1, "a pipeline file"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.fmt(cmd, o, args) },
	}
	cmd.Flags().BoolVar(&o.check, "check", false, "change nothing, and exit with 2 if a file would change")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the names as JSON")
	return cmd
}

func (a *app) fmt(cmd *cobra.Command, o fmtOptions, files []string) error {
	if len(files) == 1 && files[0] == "-" {
		return a.fmtStream()
	}
	var changed []string
	var diags diag.List
	for _, path := range files {
		differs, found, err := fmtFile(path, o.check)
		if err != nil {
			return err
		}
		diags = append(diags, found...)
		if differs {
			changed = append(changed, path)
		}
	}
	a.diagnostics(diags)
	if err := a.fmtResult(o, changed); err != nil {
		return err
	}
	if o.check && len(changed) > 0 {
		return exitWith(exitUsage)
	}
	return diags.Err()
}

func (a *app) fmtResult(o fmtOptions, changed []string) error {
	if o.json {
		return a.printJSON(orEmpty(changed))
	}
	return a.print(lines(changed))
}

func (a *app) fmtStream() error {
	src, err := io.ReadAll(a.stdin)
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	out, diags := spec.Format("standard input", src)
	a.diagnostics(diags)
	if diags.HasErrors() {
		return diags.Err()
	}
	return a.print(string(out))
}

// fmtFile formats a file, or only tells whether it would change.
func fmtFile(path string, check bool) (differs bool, _ diag.List, _ error) {
	src, err := os.ReadFile(path)
	if err != nil {
		var diags diag.List
		diags.Addf(diag.Pos{File: filepath.ToSlash(path)}, "file-unreadable", "", "the file can't be read: %v", errors.Unwrap(err))
		return false, diags, nil
	}
	out, diags := spec.Format(filepath.ToSlash(path), src)
	if diags.HasErrors() || bytes.Equal(src, out) {
		return false, diags, nil
	}
	if check {
		return true, diags, nil
	}
	return true, diags, replaceFile(path, out)
}

// replaceFile gives a file new content in one piece, keeping its permissions.
func replaceFile(path string, text []byte) error {
	// A link stays a link: what it points to is rewritten.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("rewrite: %w", err)
	}
	if err := atomicfile.Write(path, filepath.Dir(path), text, info.Mode().Perm()); err != nil {
		return fmt.Errorf("rewrite %s: %w", path, err)
	}
	return nil
}
