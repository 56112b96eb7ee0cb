package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// reserved are the ids of the nodes that the engine adds to a pipeline's own.
var reserved = []string{"base", "seal", "disk", "files", "boot-bios", "boot-uefi", "publish", "retain"}

// ImageName is a pipeline's name with its matrix cell: "web[arch=arm64]".
func ImageName(p *spec.Pipeline) string {
	if p.Cell == "" {
		return p.Name
	}
	return p.Name + "[" + p.Cell + "]"
}

// order sorts pipelines so that parents come before the images built from them, and
// reports cycles and names used twice.
func (b *build) order(pipelines []*spec.Pipeline) []*spec.Pipeline {
	byName := map[string]*spec.Pipeline{}
	for _, p := range pipelines {
		if other, ok := byName[ImageName(p)]; ok {
			b.diags.Addf(diag.Pos{File: p.File, Line: 1}, "duplicate-pipeline", "give one of them another name",
				"pipeline %q is also defined in %s", ImageName(p), other.File)
			continue
		}
		byName[ImageName(p)] = p
	}
	v := &imageOrder{build: b, byName: byName, state: map[*spec.Pipeline]int{}}
	for _, p := range pipelines {
		v.visit(p, nil)
	}
	return v.out
}

type imageOrder struct {
	build  *build
	byName map[string]*spec.Pipeline
	state  map[*spec.Pipeline]int // 1 while visiting, 2 when placed
	out    []*spec.Pipeline
}

func (v *imageOrder) visit(p *spec.Pipeline, path []string) {
	path = append(path, ImageName(p))
	switch v.state[p] {
	case 1:
		from := slices.Index(path, ImageName(p))
		v.build.diags.Addf(p.Base.Pos, "graph-cycle", "an image can't be built from itself",
			"base goes round in a circle: %s", strings.Join(path[from:], " → "))
		return
	case 2:
		return
	}
	v.state[p] = 1
	if parent := v.parent(p); parent != nil {
		v.visit(parent, path)
	}
	v.state[p] = 2
	v.out = append(v.out, p)
}

// parent finds the pipeline among those asked for that makes p's base. A base in a
// matrix prefers the cell of its own combination.
func (v *imageOrder) parent(p *spec.Pipeline) *spec.Pipeline {
	if p.Base.Image == nil {
		return nil
	}
	if same, ok := v.byName[p.Base.Image.Name+"["+p.Cell+"]"]; ok && p.Cell != "" && publishesTo(same, p.Base.Image.Channel) {
		return same
	}
	if q, ok := v.byName[p.Base.Image.Name]; ok && publishesTo(q, p.Base.Image.Channel) {
		return q
	}
	return nil
}

func publishesTo(p *spec.Pipeline, channel string) bool {
	return p.Publish != nil && (channel == "latest" || p.Publish.Channel == channel)
}

// image adds all nodes of one pipeline.
func (b *build) image(p *spec.Pipeline) error {
	img := &Image{Pipeline: p, Name: ImageName(p), Whole: !b.env.Stacks(p)}
	if err := b.resolve(img); err != nil {
		b.diags.Addf(p.Base.Pos, "base-unresolved", "", "%v", err)
		return nil
	}
	b.images[p] = img
	b.list = append(b.list, img)
	project, err := b.env.Project(p.File)
	if err != nil {
		return err
	}
	g := &imageGraph{build: b, img: img, project: project, layers: map[string][]string{}, ids: map[string]*Node{}}
	g.base()
	last := g.machineSteps()
	g.seal(last)
	if err := g.writeDisk(); err != nil {
		return err
	}
	g.finish()
	return nil
}

func (b *build) resolve(img *Image) error {
	p := img.Pipeline
	v := &imageOrder{byName: map[string]*spec.Pipeline{}}
	for q := range b.images {
		v.byName[ImageName(q)] = q
	}
	var err error
	switch {
	case p.Base.Image != nil:
		if parent := v.parent(p); parent != nil {
			img.Parent = b.images[parent]
			if parent.Builder != p.Builder {
				return fmt.Errorf("%s is built by %s, and an image of %s is built here; choose one builder for both", img.Parent.Name, parent.Builder, p.Builder)
			}
			img.Base = builder.Base{
				ID: "image:" + img.Parent.DiskKey, Image: img.Parent.DiskKey, Clock: img.Parent.Clock,
				Summary: "image " + img.Parent.Name, Lock: img.Parent.Base.Lock,
			}
			if !img.Whole {
				img.Base.Layers = img.Parent.Stack
			}
			break
		}
		img.Base, err = b.env.ResolveImage(b.ctx, p)
	default:
		img.Base, err = b.env.ResolveBase(b.ctx, p)
	}
	img.Clock = img.Base.Clock
	if !b.opts.Epoch.IsZero() {
		img.Clock = b.opts.Epoch
	}
	img.Clock = img.Clock.UTC().Truncate(time.Second)
	return err
}

// imageGraph adds the nodes of one image.
type imageGraph struct {
	*build
	img     *Image
	project *Project
	// layers are the machine states that a node's own state lies on, its own last, by node id.
	layers map[string][]string
	ids    map[string]*Node // by step id
	disk   *Node
}

func (g *imageGraph) id(name string) string { return g.img.Name + "/" + name }

// common are the parts that every node of an image has.
func (g *imageGraph) common(kind Kind) map[string]string {
	return map[string]string{
		"kind":    string(kind),
		"builder": g.img.Pipeline.Builder,
		"arch":    g.img.Pipeline.Arch,
		"clock":   g.img.Clock.Format(time.RFC3339),
	}
}

func (g *imageGraph) base() {
	p := g.img.Pipeline
	parts := g.common(KindBase)
	parts["base"] = g.img.Base.ID
	if p.AWS != nil && p.Builder == "aws" {
		launchParts(parts, p.AWS)
	}
	n := &Node{
		ID: g.id("base"), Kind: KindBase, Title: g.img.Base.Summary, Parts: parts,
		Pos: p.Base.Pos, Image: g.img, Layers: g.img.Base.Layers,
	}
	if g.img.Parent != nil {
		n.Needs = []string{g.img.Parent.Name + "/publish"}
	}
	g.add(n)
	g.layers[n.ID] = append(slices.Clone(g.img.Base.Layers), n.Key)
}

// machineSteps adds the customize steps and returns the ids that nothing follows.
func (g *imageGraph) machineSteps() []string {
	base := g.id("base")
	prev, followed := base, map[string]bool{}
	var all []string
	for _, s := range g.section(step.Customize) {
		needs := g.needs(s, prev, base)
		if g.img.Whole {
			needs = []string{prev} // they share one machine
		}
		for _, need := range needs {
			followed[need] = true
		}
		n := g.step(s, KindStep, needs)
		n.Checkpoint = s.Checkpoint
		if before := g.byID[prev]; s.Retry.Attempts > 1 || s.ContinueOnError {
			before.Checkpoint = true // what a failed attempt spoilt is not built on
		}
		n.Layers = g.merge(needs)
		g.layers[n.ID] = n.Layers
		if s.Skip == "" {
			g.layers[n.ID] = append(slices.Clone(n.Layers), n.Key)
		}
		all = append(all, n.ID)
		prev = n.ID
	}
	open := slices.DeleteFunc(all, func(id string) bool { return followed[id] })
	if len(open) == 0 {
		return []string{base}
	}
	return open
}

// section returns the steps of a section in file order, but each after those it needs.
// Circles are not among them: spec refuses those.
func (g *imageGraph) section(section step.Section) []*spec.Step {
	byID, seen := map[string]*spec.Step{}, map[string]bool{}
	var inFile, out []*spec.Step
	for i := range g.img.Pipeline.Steps {
		if s := &g.img.Pipeline.Steps[i]; s.Section == section {
			byID[s.ID] = s
			inFile = append(inFile, s)
			if slices.Contains(reserved, s.ID) || strings.HasPrefix(s.ID, "copy-") {
				g.diags.Addf(s.Pos, "reserved-id", "give the step another id", "id %q is reserved for a part of every pipeline", s.ID)
			}
		}
	}
	var visit func(i int, s *spec.Step)
	visit = func(i int, s *spec.Step) {
		if s == nil || seen[s.ID] {
			return
		}
		seen[s.ID] = true
		for _, need := range s.Needs {
			visit(slices.Index(inFile, byID[need]), byID[need])
		}
		if !s.NeedsSet && i > 0 {
			visit(i-1, inFile[i-1])
		}
		out = append(out, s)
	}
	for i, s := range inFile {
		visit(i, s)
	}
	return out
}

// needs turns a step's needs into node ids: the previous step unless the file says otherwise.
func (g *imageGraph) needs(s *spec.Step, prev, first string) []string {
	if !s.NeedsSet {
		return []string{prev}
	}
	var ids []string
	for _, need := range s.Needs {
		ids = append(ids, g.id(need))
	}
	if len(ids) == 0 {
		return []string{first}
	}
	return ids
}

// merge stacks the states of several nodes: those of the first, then what the others add.
func (g *imageGraph) merge(needs []string) []string {
	var stack []string
	for _, need := range needs {
		for _, key := range g.layers[need] {
			if !slices.Contains(stack, key) {
				stack = append(stack, key)
			}
		}
	}
	return stack
}

// step adds a node for one step, with its key.
func (g *imageGraph) step(s *spec.Step, kind Kind, needs []string) *Node {
	parts := g.common(kind)
	def, ok := g.opts.Steps(g.img.Pipeline, s.Uses)
	if !ok {
		panic("plan: step kind without definition: " + s.Uses)
	}
	parts["step"] = def.Name + "@" + def.Version
	valueParts(parts, "with", s.With)
	for name, v := range s.Env {
		parts["env."+name] = digest(v.Canonical())
		g.secretParts(parts, v)
	}
	if s.When != nil {
		parts["when"] = digest(s.When.Canonical())
	}
	g.ownParts(parts, def, s)
	if !g.cacheable(def, s, kind) {
		parts["run (the step isn't cacheable)"] = g.opts.Run
	}
	g.upstream(parts, needs)
	for _, id := range g.outputs(parts, s) {
		if !slices.Contains(needs, id) {
			needs = append(slices.Clone(needs), id)
		}
	}
	n := &Node{
		ID: g.id(s.ID), Kind: kind, Title: s.Uses, Needs: needs, Parts: parts,
		Pos: s.Pos, Image: g.img, Step: s, Def: def,
	}
	n.Inputs = g.inputs(parts, def, s)
	if s.Skip != "" {
		n.Action, n.Why = Skip, []string{s.Skip}
	}
	g.ids[s.ID] = n
	return g.add(n)
}

// cacheable tells whether a key says all about a step. A step that names more parts of its
// key can't, while its config waits for outputs. The engine knows how to look for its own.
func (g *imageGraph) cacheable(def step.Step, s *spec.Step, kind Kind) bool {
	switch {
	case kind == KindPublish, kind == KindCopy, kind == KindRetain, s.Skip != "":
		return true
	case def.KeyParts != nil && s.Waits():
		return false
	}
	return def.Cacheable
}

// ownParts adds what the step itself says decides over its result.
func (g *imageGraph) ownParts(parts map[string]string, def step.Step, s *spec.Step) {
	own, asked := g.own[s]
	if !asked {
		return
	}
	if own.err != nil {
		g.diags.Addf(s.Pos, "step-failed", "", "ask %s what decides over its result: %v", s.Uses, own.err)
	}
	for name, value := range own.parts {
		parts["its "+name] = digest([]byte(value))
	}
}

// upstream adds the keys of the nodes that a node needs. A skipped node passes on the
// keys of its own needs, so that skipping a step and leaving it out are the same.
func (g *imageGraph) upstream(parts map[string]string, needs []string) {
	for _, need := range needs {
		n := g.byID[need]
		if n.Step != nil && n.Step.Skip != "" {
			g.upstream(parts, n.Needs)
			continue
		}
		parts["upstream "+strings.TrimPrefix(n.ID, g.img.Name+"/")] = n.Key
	}
}

// outputs ties a step to the keys of the steps whose outputs it uses, and returns their
// nodes, which it must wait for.
func (g *imageGraph) outputs(parts map[string]string, s *spec.Step) (from []string) {
	waits := s.With.Steps()
	for _, v := range s.Env {
		waits = append(waits, v.Steps()...)
	}
	if s.When != nil {
		waits = append(waits, s.When.Steps()...)
	}
	for _, id := range waits {
		if n := g.ids[id]; n != nil {
			parts["outputs of "+id] = n.Key
			from = append(from, n.ID)
		}
	}
	return from
}

func (g *imageGraph) secretParts(parts map[string]string, v spec.Value) {
	for _, name := range v.Secrets() {
		sum, err := g.env.SecretDigest(g.ctx, g.img.Pipeline, name)
		if err != nil {
			g.diags.Addf(g.img.Pipeline.Secrets[name].Pos, "secret-unavailable", "", "secret %q: %v", name, err)
			continue
		}
		parts["secret "+name] = sum
	}
}

func (g *imageGraph) inputs(parts map[string]string, def step.Step, s *spec.Step) map[string]*Input {
	found := map[string]*Input{}
	for _, ref := range fileSchema(def.Schema).refs(s.With) {
		in, err := g.project.Input(ref.Name)
		if err != nil {
			addBadInput(&g.diags, s, ref, err)
			continue
		}
		found[ref.Name] = in
		parts["file "+ref.Name] = in.Digest
	}
	return found
}

// seal adds the seal node on top of everything.
func (g *imageGraph) seal(last []string) {
	s := &spec.Step{ID: "seal", Section: step.Seal, Uses: "seal", With: spec.NewValue(map[string]any{}), Pos: g.img.Pipeline.Base.Pos}
	n := g.step(s, KindSeal, last)
	n.Title = "remove what must not be in an image"
	n.Layers = g.merge(last)
	g.img.Stack = append(slices.Clone(n.Layers), n.Key)
	g.layers[n.ID] = g.img.Stack
}

// writeDisk adds the disk of the sealed machine.
func (g *imageGraph) writeDisk() error {
	seal, p := g.id("seal"), g.img.Pipeline
	writer, err := g.env.ImageVersion(g.img.Pipeline)
	if err != nil {
		return fmt.Errorf("plan the disk of %s: %w", g.img.Name, err)
	}
	parts := g.common(KindDisk)
	g.upstream(parts, []string{seal})
	parts["disk writer"] = writer
	title := "write the disk"
	if p.Builder == "aws" {
		title = "make the AMI"
		registerParts(parts, p.AWS)
	} else {
		parts["disk.size"] = fmt.Sprint(p.Local.DiskSize)
		parts["firmware"] = strings.Join(slices.Sorted(slices.Values(p.Local.Firmware)), ",")
	}
	parts["image"] = g.img.Name
	g.disk = g.add(&Node{
		ID: g.id("disk"), Kind: KindDisk, Title: title, Needs: []string{seal},
		Parts: parts, Layers: g.img.Stack, Pos: p.BuilderPos(), Image: g.img,
	})
	g.img.DiskKey = g.disk.Key
	return nil
}
