// Package scaffold writes new plugins: what `gild plugin new` gives an author to start from.
//
// A name and a kind go in, and a folder comes out that works at once: a small Go module
// that builds, passes its tests and the conformance kit, or a plugin.yaml with a shell
// script. Files that are there are never overwritten, and nothing is run but `go mod tidy`.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/gildhq/gild/engine/lock"
)

// Kind is what a plugin's step does.
type Kind string

// The kinds of plugins.
const (
	// Customize changes the machine.
	Customize Kind = "customize"
	// Test looks at the image, booted.
	Test Kind = "test"
	// Publish takes the image somewhere.
	Publish Kind = "publish"
)

// Lang is what a plugin is written in.
type Lang string

// The languages of plugins.
const (
	Go    Lang = "go"
	Shell Lang = "shell"
)

// DefaultOwner stands in a plugin's name until its author has a better one.
const DefaultOwner = "my"

// Options say what to write.
type Options struct {
	// Name is "owner/name" or only the name, in lower-case letters, digits and dashes.
	Name string
	// Owner is the owner of a name without one; empty means [DefaultOwner].
	Owner string
	// Kind is the step's; empty means Customize.
	Kind Kind
	// Lang is the language; empty means Go.
	Lang Lang
	// SDK is the folder of a checkout of gild to build a Go plugin with; empty means the
	// released module with the version of the running gild.
	SDK string
}

//go:embed templates
var templates embed.FS

// sources are the folders of templates for each language and kind there is.
var sources = map[Lang]map[Kind][]string{
	Go: {
		Customize: {"go", "customize"},
		Test:      {"go", "test"},
		Publish:   {"go", "publish"},
	},
	Shell: {Customize: {"shell"}},
}

// renamed are the files that aren't called like their templates.
func renamed(name string, d data) string {
	switch name {
	case "gitignore":
		return ".gitignore"
	case "program":
		return d.Name
	}
	return name
}

// data is what the templates see.
type data struct {
	Plugin, Name, Program string
	Kind                  Kind
	// What says what the step does, and Usage shows it in a pipeline.
	What, Usage string
	// Folder is the one that is written to, relative to the one around it.
	Folder              string
	Module, Version, Go string
	SDK                 string
}

// Folder is where [Write] puts a plugin when its author names no folder.
func Folder(name string) string { return "gild-plugin-" + path.Base(name) }

// Write writes the files of a new plugin and returns their paths. The folder is made when
// missing. If one of the files is there already, nothing is written.
func Write(dir string, o Options) ([]string, error) {
	d, from, err := o.data(dir)
	if err != nil {
		return nil, err
	}
	files, err := render(from, d)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the plugin's folder: %w", err)
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); err == nil {
			return nil, &ExistsError{Path: filepath.Join(dir, f.name)}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for %s: %w", f.name, err)
		}
	}
	var written []string
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		if err := writeNew(name, f); err != nil {
			return written, err
		}
		written = append(written, name)
	}
	return written, nil
}

// ExistsError is the error for a file that would have to be overwritten.
type ExistsError struct{ Path string }

// Error names the file.
func (e *ExistsError) Error() string {
	return e.Path + " is there already; nothing was overwritten"
}

func (o Options) data(dir string) (data, []string, error) {
	if o.Kind == "" {
		o.Kind = Customize
	}
	if o.Lang == "" {
		o.Lang = Go
	}
	kinds, ok := sources[o.Lang]
	if !ok {
		return data{}, nil, fmt.Errorf("there is no template for plugins in %q; the languages are %s and %s", string(o.Lang), Go, Shell)
	}
	from, ok := kinds[o.Kind]
	if !ok {
		return data{}, nil, fmt.Errorf("there is no template for the kind %q in %s; there is %s", string(o.Kind), o.Lang, list(kinds))
	}
	owner, name, full := strings.Cut(o.Name, "/")
	if !full {
		owner, name = o.Owner, o.Name
	}
	if owner == "" {
		owner = DefaultOwner
	}
	d := data{Plugin: owner + "/" + name, Name: name, Program: Folder(name), Kind: o.Kind, Folder: "./" + filepath.Base(dir)}
	if !lock.ValidPluginName(d.Plugin) {
		return data{}, nil, fmt.Errorf("the name %q is not like motd or acme/motd: lower-case letters, digits and dashes", o.Name)
	}
	d.What, d.Usage = explain(o.Kind, d)
	if o.Lang == Go {
		if err := d.module(o.SDK); err != nil {
			return data{}, nil, err
		}
	}
	return d, from, nil
}

func list(kinds map[Kind][]string) string {
	var all []string
	for _, k := range []Kind{Customize, Test, Publish} {
		if _, ok := kinds[k]; ok {
			all = append(all, string(k))
		}
	}
	return strings.Join(all, ", ")
}

// explain gives the readme's words for a kind.
func explain(k Kind, d data) (what, usage string) {
	switch k {
	case Test:
		return "Its step checks what a port of the booted image says.",
			"tests:\n  - uses: " + d.Plugin + "\n    with: {port: 22, banner: SSH-2.0}"
	case Publish:
		return "Its step copies the image to a folder.",
			"publish:\n  to:\n    - uses: " + d.Plugin + "\n      with: {folder: /srv/images}"
	}
	return "Its step writes a text to `/etc/" + d.Name + "`.",
		"customize:\n  - uses: " + d.Plugin + "\n    with: {text: hello}"
}

type file struct {
	name string
	mode fs.FileMode
	text []byte
}

// render fills in the templates of some folders, sorted by name.
func render(from []string, d data) ([]file, error) {
	var files []file
	for _, folder := range from {
		at := path.Join("templates", folder)
		entries, err := templates.ReadDir(at)
		if err != nil {
			return nil, fmt.Errorf("read the templates: %w", err)
		}
		for _, e := range entries {
			t, err := template.New(e.Name()).Option("missingkey=error").ParseFS(templates, path.Join(at, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("read a template: %w", err)
			}
			var text bytes.Buffer
			if err := t.Execute(&text, d); err != nil {
				return nil, fmt.Errorf("fill in a template: %w", err)
			}
			name := strings.TrimSuffix(e.Name(), ".tmpl")
			f := file{name: renamed(name, d), mode: 0o644, text: text.Bytes()}
			if name == "program" {
				f.mode = 0o755
			}
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// writeNew writes a file that must not be there yet.
func writeNew(name string, f file) error {
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if errors.Is(err, fs.ErrExist) {
		return &ExistsError{Path: name}
	}
	if err != nil {
		return fmt.Errorf("write the plugin: %w", err)
	}
	_, err = out.Write(f.text)
	if err := errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
