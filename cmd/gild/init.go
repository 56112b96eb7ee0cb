package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gildhq/gild/engine"
	"github.com/spf13/cobra"
)

//go:embed starter/gild.yaml
var starter []byte

func (a *app) initCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init [FOLDER]",
		Short: "Write a pipeline that works, to start from",
		Long: `Init writes gild.yaml, a small pipeline that builds as it is, named after the folder,
and gild.schema.json, from which editors complete and explain it. The folder is made
when missing; files that are there are never overwritten.`,
		Example: `  gild init
  gild init images/web`,
		Args: argsBetween(0, 1, "one folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.init(cmd.Context(), strings.Join(args, ""), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the names of the files as JSON")
	return cmd
}

func (a *app) init(ctx context.Context, dir string, asJSON bool) error {
	dir = filepath.Clean(dir)
	var schema []byte
	err := a.withLanguage(func(l *engine.Language) (err error) {
		schema, err = l.Schema(ctx, dir)
		return err
	})
	if err != nil {
		return err
	}
	name, err := starterName(dir)
	if err != nil {
		return err
	}
	files := []struct {
		name string
		text []byte
	}{
		{"gild.yaml", bytes.Replace(starter, []byte("name: my-image"), []byte("name: "+name), 1)},
		{"gild.schema.json", schema},
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return invalid("%s is there already; nothing was written", filepath.Join(dir, f.name))
		}
	}
	var written []string
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := writeNew(path, f.text); err != nil {
			return err
		}
		written = append(written, path)
	}
	a.say("next: gild build %s", written[0])
	if asJSON {
		return a.printJSON(written)
	}
	return a.print(lines(written))
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// starterName makes a pipeline's name of a folder's.
func starterName(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the folder: %w", err)
	}
	name := strings.Trim(notInName.ReplaceAllString(strings.ToLower(filepath.Base(abs)), "-"), "-")
	if name == "" || name[0] < 'a' {
		name = strings.TrimSuffix("image-"+name, "-")
	}
	return name, nil
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return invalid("%s is there already", path)
	}
	if err != nil {
		return fmt.Errorf("write the pipeline: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
