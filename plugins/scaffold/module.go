package scaffold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

const (
	// module is gild's, with the kit that Go plugins import.
	module = "github.com/gildhq/gild"
	// goVersion is the one in gild's go.mod, below which the kit doesn't build.
	goVersion = "1.26.0"
)

// module fills in what go.mod says of gild.
func (d *data) module(sdk string) error {
	d.Module, d.Go = module, goVersion
	if sdk == "" {
		version, err := release()
		d.Version = version
		return err
	}
	dir, err := filepath.Abs(sdk)
	if err != nil {
		return fmt.Errorf("find the checkout of gild: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return fmt.Errorf("read the checkout of gild: %w", err)
	}
	if !regexp.MustCompile(`(?m)^module ` + regexp.QuoteMeta(module) + `$`).Match(text) {
		return fmt.Errorf("%s is no checkout of %s: its go.mod is that of another module", dir, module)
	}
	d.SDK, d.Version = dir, "v0.0.0"
	return nil
}

var errDevelopment = errors.New("this gild is a development build, which is no version of " + module +
	" that Go could fetch; pass --sdk FOLDER with the folder of a checkout of gild")

// release is the version of the running gild.
func release() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Path != module {
		return "", errDevelopment
	}
	return fetchable(info.Main.Version)
}

// fetchable refuses the versions of builds from a changed work tree, or without any.
func fetchable(version string) (string, error) {
	if !strings.HasPrefix(version, "v") || strings.Contains(version, "+dirty") {
		return "", errDevelopment
	}
	return version, nil
}

// Created is a new plugin.
type Created struct {
	// Files are the paths of what was written.
	Files []string `json:"files"`
	// Next are the commands to go on with, in order.
	Next []string `json:"next"`
}

// Create writes a new plugin as [Write] does, lets Go fetch what a Go plugin needs, which
// may take a minute the first time, and says how to go on. When that fails the files stay.
func Create(ctx context.Context, dir string, o Options) (Created, error) {
	files, err := Write(dir, o)
	c := Created{Files: files}
	if err != nil {
		return c, err
	}
	c.Next = []string{"cd " + quote(dir)}
	if o.Lang != Shell {
		if err := tidy(ctx, dir, o.SDK == ""); err != nil {
			return c, err
		}
		c.Next = append(c.Next, "go test .", "go build .")
	}
	c.Next = append(c.Next, "gild plugin test .")
	return c, nil
}

func tidy(ctx context.Context, dir string, released bool) error {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("the plugin is written, but there is no Go to build it with: install Go %s or later, and run `go mod tidy` in %s", goVersion, dir)
	}
	cmd := exec.CommandContext(ctx, goTool, "mod", "tidy")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	hint := ""
	if released {
		hint = "; if this version of gild isn't published, begin again with --sdk FOLDER"
	}
	return fmt.Errorf("the plugin is written, but `go mod tidy` failed in %s: %w%s\n%s", dir, err, hint, strings.TrimSpace(string(out)))
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)

// quote makes a word for a shell.
func quote(text string) string {
	if plain.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
