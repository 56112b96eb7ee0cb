package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// sources are the texts a run works from. They are kept in the journal, so that
// resuming a run works from what it was started with.
type sources struct {
	Files   []sourceFile
	Request Request
	// ParamsText is the content of Request.ParamsFile.
	ParamsText []byte
	// Epoch is SOURCE_DATE_EPOCH, or empty.
	Epoch string
	// Locks are the gild.lock files as they were read, by path, and empty for none.
	Locks map[string][]byte
}

type sourceFile struct {
	// Path as given by the user, or joined from a folder given.
	Path string
	// Abs is the absolute path.
	Abs  string
	Text []byte
}

// readSources reads the files of a request. A file that isn't there is a diagnostic.
func readSources(req Request) (sources, diag.List, error) {
	src := sources{Request: req, Epoch: os.Getenv("SOURCE_DATE_EPOCH")}
	var diags diag.List
	paths, err := pipelineFiles(req.Files, &diags)
	if err != nil {
		return src, diags, err
	}
	for _, path := range paths {
		text, ok, err := readUserFile(path, &diags)
		if err != nil {
			return src, diags, err
		}
		if !ok {
			continue
		}
		abs, err := filepath.Abs(path)
		if err != nil {
			return src, diags, err
		}
		src.Files = append(src.Files, sourceFile{Path: filepath.ToSlash(path), Abs: abs, Text: text})
	}
	if req.ParamsFile != "" {
		if src.ParamsText, _, err = readUserFile(req.ParamsFile, &diags); err != nil {
			return src, diags, err
		}
	}
	return src, diags, nil
}

func readUserFile(path string, diags *diag.List) ([]byte, bool, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		diags.Addf(diag.Pos{File: filepath.ToSlash(path)}, "file-not-found", "", "there is no such file")
		return nil, false, nil
	case errors.Is(err, fs.ErrPermission):
		diags.Addf(diag.Pos{File: filepath.ToSlash(path)}, "file-unreadable", "", "the file can't be read: permission denied")
		return nil, false, nil
	}
	return text, err == nil, err
}

// pipelineFiles replaces folders by the pipeline files in them, in sorted order.
func pipelineFiles(args []string, diags *diag.List) ([]string, error) {
	var paths []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil || !info.IsDir() {
			paths = append(paths, arg) // reading it says what is wrong with it
			continue
		}
		found, err := pipelinesIn(arg)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			diags.Addf(diag.Pos{File: filepath.ToSlash(arg)}, "no-pipelines",
				"a pipeline is a .yaml or .yml file with the line gild: 1", "the folder holds no pipeline")
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

func pipelinesIn(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir(), filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// Other YAML lives in such folders too; a pipeline says what it is.
		if bytes.HasPrefix(text, []byte("gild:")) || bytes.Contains(text, []byte("\ngild:")) {
			found = append(found, path)
		}
		return nil
	})
	return found, err
}

// fileCheck looks at the pipelines of one file.
type fileCheck func(file string, c *spec.Catalog, pipelines []*spec.Pipeline) (diag.List, error)

// resolve finds the steps that files may use, then parses and resolves the files, side by side.
func (l *Language) resolve(ctx context.Context, src *sources, checks ...fileCheck) ([]*spec.Pipeline, catalogs, diag.List, error) {
	steps, err := l.catalogs(ctx, src)
	if err != nil {
		return nil, nil, nil, err
	}
	in := spec.Inputs{Params: src.Request.Params, Builder: src.Request.Builder}
	var diags diag.List
	if src.Request.ParamsFile != "" {
		in.ParamValues, diags = spec.ParseParams(src.Request.ParamsFile, src.ParamsText)
	}
	type result struct {
		pipelines []*spec.Pipeline
		diags     diag.List
	}
	results := make([]result, len(src.Files))
	var wg sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, f := range src.Files {
		wg.Add(1)
		slots <- struct{}{}
		go func() {
			defer func() { <-slots; wg.Done() }()
			if ctx.Err() != nil {
				return
			}
			r, syntax := &results[i], steps[f.Path]
			file, ds := spec.Parse(f.Path, f.Text, syntax)
			r.diags = ds
			if file == nil {
				return
			}
			r.pipelines, ds = file.Resolve(in)
			r.diags = append(r.diags, ds...)
			for _, p := range r.pipelines {
				r.diags = append(r.diags, l.unsupported(p)...)
			}
			for _, check := range checks {
				ds, err := check(f.Abs, syntax, r.pipelines)
				if err != nil {
					ds.Addf(diag.Pos{File: f.Path}, "file-unreadable", "", "%v", err)
				}
				r.diags = append(r.diags, ds...)
			}
			r.diags.FillSource(f.Text)
		}()
	}
	wg.Wait()
	var pipelines []*spec.Pipeline
	for _, r := range results {
		pipelines = append(pipelines, r.pipelines...)
		diags = append(diags, r.diags...)
	}
	diags = append(diags, l.askSteps(ctx, src, steps, pipelines)...)
	diags.Sort()
	return pipelines, steps, diags, nil
}

// askSteps has the steps check their configs. Before any plugin is started, the variables
// that hold secrets are withheld from all.
func (l *Language) askSteps(ctx context.Context, src *sources, steps catalogs, pipelines []*spec.Pipeline) diag.List {
	var secret []string
	for _, p := range pipelines {
		for _, s := range p.Secrets {
			if s.Source == "env" {
				secret = append(secret, s.Ref)
			}
		}
	}
	if l.plugins != nil {
		l.plugins.Withhold(secret)
	}
	diags := checkConfigs(ctx, steps, pipelines)
	for _, f := range src.Files {
		fillFrom(diags, f)
	}
	return diags
}

// unsupported asks the builder that a pipeline chooses.
func (e *Engine) unsupported(p *spec.Pipeline) diag.List {
	if b, ok := e.builders[p.Builder]; ok {
		return b.Unsupported(p)
	}
	return UnknownBuilder(p, e.builders)
}

// UnknownBuilder is the diagnostic of a pipeline whose builder isn't part of this gild.
func UnknownBuilder[V any](p *spec.Pipeline, known map[string]V) diag.List {
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	var l diag.List
	l.Addf(diag.Pos{File: p.File}, "unsupported", "choose one with builder: or --builder",
		"builder %q can't be used by this version of gild, which has %s", p.Builder, strings.Join(names, ", "))
	return l
}

// checkSteps is what a programmer must not get wrong: every step the engine adds by
// itself has to be among those it was given.
func checkSteps(steps map[string]step.Step) error {
	for _, name := range []string{"seal", "boot", "publish", "copy", "retain"} {
		if _, ok := steps[name]; !ok {
			return fmt.Errorf("the engine needs a step %q", name)
		}
	}
	return nil
}
