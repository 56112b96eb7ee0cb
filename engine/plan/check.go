package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// InputChecker tells which of the files that steps name aren't there, without reading
// any. Safe for concurrent use.
type InputChecker struct {
	schemas sync.Map // *schemaNode by the step's name and version
}

// NewInputChecker returns a checker that has checked nothing.
func NewInputChecker() *InputChecker { return &InputChecker{} }

// Check checks pipelines that come from one file and use the steps of a catalog.
func (c *InputChecker) Check(file string, catalog *spec.Catalog, pipelines []*spec.Pipeline) (diag.List, error) {
	project, err := OpenProject(file)
	if err != nil {
		return nil, err
	}
	var diags diag.List
	seen := map[diag.Pos]bool{} // the cells of a matrix share what they name
	for _, p := range pipelines {
		for i := range p.Steps {
			s := &p.Steps[i]
			for _, ref := range c.schema(catalog, s.Uses).refs(s.With) {
				err := project.check(ref.Name)
				if at := s.With.Pos(ref.Pointer); err != nil && !seen[at] {
					seen[at] = true
					addBadInput(&diags, s, ref, err)
				}
			}
		}
	}
	return diags, project.Close()
}

func (c *InputChecker) schema(catalog *spec.Catalog, uses string) *schemaNode {
	def, _ := catalog.Step(uses)
	id := def.Name + "@" + def.Version
	if known, ok := c.schemas.Load(id); ok {
		return known.(*schemaNode)
	}
	s := fileSchema(def.Schema)
	c.schemas.Store(id, s)
	return s
}

func (p *Project) check(name string) error {
	rel, err := p.inside(name)
	if err != nil {
		return err
	}
	if _, err := p.root.Stat(rel); err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	return nil
}

func addBadInput(diags *diag.List, s *spec.Step, ref fileRef, err error) {
	at := s.With.Pos(ref.Pointer)
	if errors.Is(err, fs.ErrNotExist) {
		diags.Addf(at, "file-not-found", "paths start at the folder of the pipeline file", "there is no file %q", ref.Name)
		return
	}
	diags.Addf(at, "file-unreadable", "", "%v", err)
}
