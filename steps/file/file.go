package file

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/dest"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "file",
	Version:   "1",
	Summary:   "write a file from text, a project file or a template, or copy a folder",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("file"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`. Exactly one of Content, From and Template is given.
type Config struct {
	dest.File
	// Content is the file's text; nil when another source is given.
	Content *string `json:"content"`
	// From names a file or folder of the project.
	From string `json:"from"`
	// Template names a file of the project.
	Template string `json:"template"`
	// Vars is what the template sees.
	Vars vars `json:"vars"`
}

func run(ctx context.Context, t *step.Target, c Config) (struct{}, error) {
	if err := c.Check(); err != nil {
		return struct{}{}, &step.Permanent{Err: err}
	}
	var err error
	switch {
	case c.Content != nil:
		err = put(ctx, t, c.File, 0o644, strings.NewReader(*c.Content))
	case c.From != "":
		err = copyFrom(ctx, t, c)
	default:
		err = putTemplate(ctx, t, c)
	}
	return struct{}{}, err
}

func copyFrom(ctx context.Context, t *step.Target, c Config) error {
	in, err := input(t, c.From)
	if err != nil {
		return err
	}
	if in.IsDir() {
		return copyFolder(ctx, t, c, in)
	}
	r, err := in.Open(".")
	if err != nil {
		return fmt.Errorf("open %q: %w", c.From, err)
	}
	defer r.Close()
	return put(ctx, t, c.File, in.Files()[0].Mode.Perm(), r)
}

func putTemplate(ctx context.Context, t *step.Target, c Config) error {
	in, err := input(t, c.Template)
	if err != nil {
		return err
	}
	text, err := render(in, c)
	if err != nil {
		return err
	}
	return put(ctx, t, c.File, 0o644, bytes.NewReader(text))
}

// put writes one file; missing is its mode when the config names none.
func put(ctx context.Context, t *step.Target, to dest.File, missing fs.FileMode, content io.Reader) error {
	file, err := to.Put(missing, t.Clock)
	if err != nil {
		return &step.Permanent{Err: err}
	}
	if err := t.Machine.Put(ctx, file, content); err != nil {
		return fmt.Errorf("write %s: %w", to.To, err)
	}
	fmt.Fprintf(t.Log, "wrote %s, mode %#o\n", to.To, file.Mode)
	return nil
}

func input(t *step.Target, name string) (step.Input, error) {
	in, ok := t.Inputs[name]
	if !ok {
		return nil, fmt.Errorf("%q was not handed to the step", name)
	}
	return in, nil
}
