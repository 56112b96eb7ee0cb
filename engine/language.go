package engine

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sync/errgroup"
)

// Plugins finds the steps of plugins that gild.lock names. Safe for concurrent use.
type Plugins interface {
	// Steps returns the steps of a locked plugin as it is installed here.
	Steps(ctx context.Context, name string, p lock.Plugin) ([]step.Step, error)
	// Cleanup removes a resource that a step of a plugin claimed; plugin is [step.Step.Plugin].
	Cleanup(ctx context.Context, plugin string, r step.Resource) error
	// Sweep lists what dead processes of gild left of plugins, and removes it unless dry.
	Sweep(ctx context.Context, dry bool) ([]step.Resource, error)
	// Withhold names variables of the environment that no plugin may see from now on,
	// whatever its manifest says: pipelines take secrets from them.
	Withhold(names []string)
}

// Language is what pipeline files are read with: the built-in steps, the plugins that
// the gild.lock beside a file names, and what the builders can do. Safe for concurrent use.
type Language struct {
	builtin     map[string]step.Step
	base        *spec.Catalog
	plugins     Plugins
	unsupported func(*spec.Pipeline) diag.List

	mu     sync.Mutex
	byLock map[string]*spec.Catalog // by folder and text of a lock file
}

// NewLanguage compiles the schemas of the built-in steps. Without plugins (nil) a file
// can't use any. unsupported tells what the builder that a pipeline chooses can't do.
func NewLanguage(steps []step.Step, plugins Plugins, unsupported func(*spec.Pipeline) diag.List) (*Language, error) {
	base, err := spec.NewCatalog(steps)
	if err != nil {
		return nil, err
	}
	l := &Language{builtin: map[string]step.Step{}, base: base, plugins: plugins, unsupported: unsupported, byLock: map[string]*spec.Catalog{}}
	for _, s := range steps {
		l.builtin[s.Name] = s
	}
	return l, nil
}

// Schema is the JSON Schema that editors use for the pipelines of a folder, its plugins included.
func (l *Language) Schema(ctx context.Context, dir string) ([]byte, error) {
	c, err := l.In(ctx, dir)
	if err != nil {
		return nil, err
	}
	return spec.ComposedSchema(c), nil
}

// In returns the steps that the pipelines of a folder may use.
func (l *Language) In(ctx context.Context, dir string) (*spec.Catalog, error) {
	locked, err := lock.Read(dir)
	if err != nil {
		return nil, err
	}
	return l.with(ctx, dir, locked)
}

// with returns the steps that pipelines beside a lock file may use. A plugin that can't
// be used is known as such, so that only those who use it hear of it.
func (l *Language) with(ctx context.Context, dir string, locked *lock.File) (*spec.Catalog, error) {
	if len(locked.Plugins) == 0 || l.plugins == nil {
		return l.base, nil
	}
	id := dir + "\x00" + string(locked.Text())
	l.mu.Lock()
	c, ok := l.byLock[id]
	l.mu.Unlock()
	if ok {
		return c, nil
	}
	found, missing := l.find(ctx, locked)
	c, err := l.base.With(found, missing)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", locked.Path(), err)
	}
	if len(missing) == 0 {
		l.mu.Lock()
		l.byLock[id] = c
		l.mu.Unlock()
	}
	return c, ctx.Err()
}

// find asks all plugins of a lock file, side by side, for their steps.
func (l *Language) find(ctx context.Context, locked *lock.File) ([]step.Step, map[string]error) {
	names := slices.Sorted(maps.Keys(locked.Plugins))
	steps, errs := make([][]step.Step, len(names)), make([]error, len(names))
	var asking sync.WaitGroup
	for i, name := range names {
		asking.Go(func() { steps[i], errs[i] = l.plugins.Steps(ctx, name, locked.Plugins[name]) })
	}
	asking.Wait()
	missing := map[string]error{}
	for i, name := range names {
		if errs[i] != nil {
			missing[name] = errs[i]
		}
	}
	return slices.Concat(steps...), missing
}

// catalogs are the steps that each file of a request may use, by its path.
type catalogs map[string]*spec.Catalog

// step finds what a pipeline uses.
func (c catalogs) step(p *spec.Pipeline, name string) (step.Step, bool) { return c[p.File].Step(name) }

// catalogs finds the steps for every file of a request. It keeps the lock files it read:
// a run works from one state of them, however often it is resumed.
func (l *Language) catalogs(ctx context.Context, src *sources) (catalogs, error) {
	found, byDir := catalogs{}, map[string]*spec.Catalog{}
	if src.Locks == nil {
		src.Locks = map[string][]byte{}
	}
	for _, f := range src.Files {
		dir := filepath.Dir(f.Abs)
		if byDir[dir] == nil {
			path := filepath.Join(dir, lock.Name)
			locked, err := src.lock(path)
			if err != nil {
				return nil, err
			}
			src.Locks[path] = locked.Text()
			if byDir[dir], err = l.with(ctx, dir, locked); err != nil {
				return nil, err
			}
		}
		found[f.Path] = byDir[dir]
	}
	return found, nil
}

// Validate checks every file of a request on its own, offline, and reports all
// mistakes, files that steps name and that aren't there among them.
func (l *Language) Validate(ctx context.Context, req Request) (diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil {
		return diags, err
	}
	_, _, more, err := l.resolve(ctx, &src, plan.NewInputChecker().Check)
	if err != nil {
		return diags, err
	}
	diags = append(diags, more...)
	diags.Sort()
	return diags, ctx.Err()
}

// checkConfigs asks the steps of pipelines what they think of their configs, side by side:
// each may be a process that has to start. A config that waits for outputs is checked when
// it has them.
func checkConfigs(ctx context.Context, steps catalogs, pipelines []*spec.Pipeline) diag.List {
	var mu sync.Mutex
	var diags diag.List
	told := map[string]bool{} // the cells of a matrix make the same mistakes
	var asking errgroup.Group
	asking.SetLimit(maxAsking)
	for _, p := range pipelines {
		for i := range p.Steps {
			s := &p.Steps[i]
			def, _ := steps.step(p, s.Uses)
			if def.Validate == nil || s.Skip != "" || s.Waits() {
				continue
			}
			asking.Go(func() error {
				found := checkConfig(ctx, def, s)
				mu.Lock()
				defer mu.Unlock()
				for _, d := range found {
					if key := fmt.Sprint(d.Pos, d.Message); !told[key] {
						told[key] = true
						diags = append(diags, d)
					}
				}
				return nil
			})
		}
	}
	_ = asking.Wait() // what went wrong is a diagnostic
	return diags
}

// maxAsking bounds how many steps are asked at once.
const maxAsking = 16

func checkConfig(ctx context.Context, def step.Step, s *spec.Step) diag.List {
	var diags diag.List
	problems, err := def.Validate(ctx, s.With.Canonical())
	if err != nil {
		diags.Addf(s.Pos, "step-failed", "", "check the configuration of %s: %v", s.Uses, err)
	}
	for _, p := range problems {
		add := diags.Addf
		if p.Warning {
			add = diags.Warnf
		}
		add(s.With.Pos(p.Pointer), "bad-config", p.Hint, "%s: %s", s.Uses, p.Message)
	}
	return diags
}

// claimPrefix begins the kinds of resources that steps claimed.
const claimPrefix = "step "

// claimKind is the kind under which a step's resource is in the journal: it names who
// can remove it.
func claimKind(def step.Step, kind string) string {
	owner := def.Plugin
	if owner == "" {
		owner = def.Name
	}
	return claimPrefix + owner + " " + kind
}

// ResourceName names a resource for people; what a step claimed, with its plugin.
func ResourceName(r builder.Resource) string {
	name := r.Kind + " " + r.ID
	if rest, ok := strings.CutPrefix(r.Kind, claimPrefix); ok {
		owner, kind, _ := strings.Cut(rest, " ")
		owner, _, _ = strings.Cut(owner, "@")
		name = kind + " " + r.ID + " of " + owner
	}
	if r.Note != "" {
		name += " (" + r.Note + ")"
	}
	return name
}

// cleanupClaim removes what a step claimed, if that is what r is.
func (l *Language) cleanupClaim(ctx context.Context, r builder.Resource) (mine bool, err error) {
	rest, ok := strings.CutPrefix(r.Kind, claimPrefix)
	if !ok {
		return false, nil
	}
	owner, kind, _ := strings.Cut(rest, " ")
	r.Kind = kind
	if def, ok := l.builtin[owner]; ok {
		return true, def.Cleanup(ctx, r)
	}
	if l.plugins == nil {
		return true, fmt.Errorf("remove %s %s of %s: this gild has no plugins", kind, r.ID, owner)
	}
	return true, l.plugins.Cleanup(ctx, owner, r)
}
