package plan

import (
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// finish adds the files, tests, publish, copies and retain.
func (g *imageGraph) finish() {
	p := g.img.Pipeline
	parts := g.common(KindFiles)
	g.upstream(parts, []string{g.disk.ID})
	formats := slices.Sorted(slices.Values(p.Formats()))
	parts["formats"] = strings.Join(formats, ",")
	title := "digests, " + strings.Join(formats, ", ")
	if len(formats) == 0 {
		title = "read back what was made"
	}
	files := g.add(&Node{
		ID: g.id("files"), Kind: KindFiles, Title: title,
		Needs: []string{g.disk.ID}, Parts: parts, Pos: p.BuilderPos(), Image: g.img,
	})
	tests := g.tests()
	if p.Publish == nil {
		return
	}
	g.publish(append([]string{files.ID}, tests...))
}

func (g *imageGraph) tests() []string {
	prev, firmware := g.disk.ID, g.img.Pipeline.Firmware()
	var ids []string
	for _, s := range g.section(step.Tests) {
		n := g.test(s, g.needs(s, prev, g.disk.ID), firmware[0])
		ids = append(ids, n.ID)
		prev = n.ID
	}
	if len(ids) == 0 {
		return nil
	}
	// The image says that it boots with the other firmware too, so that is seen as well.
	for _, other := range firmware[1:] {
		s := g.bootTest()
		s.ID = "boot-" + other
		n := g.test(&s, []string{g.disk.ID}, other)
		n.Title = "boot with " + other
		ids = append(ids, n.ID)
	}
	return ids
}

// bootTest returns the file's own boot test, or one that is generous with time.
func (g *imageGraph) bootTest() spec.Step {
	for _, s := range g.img.Pipeline.Steps {
		if s.Section == step.Tests && s.Uses == "boot" && s.Skip == "" {
			return s
		}
	}
	return spec.Step{
		Section: step.Tests, Uses: "boot", With: spec.NewValue(map[string]any{"within": "10m"}), Pos: g.img.Pipeline.BuilderPos(),
	}
}

func (g *imageGraph) test(s *spec.Step, needs []string, firmware string) *Node {
	n := g.step(s, KindTest, needs)
	n.Firmware = firmware
	n.Parts["firmware"] = firmware
	n.Key = Key(n.Parts)
	return n
}

// rekey makes a node's key depend on one upstream node instead of those it waits for.
func (g *imageGraph) rekey(n, upstream *Node) {
	for name := range n.Parts {
		if strings.HasPrefix(name, "upstream ") {
			delete(n.Parts, name)
		}
	}
	g.upstream(n.Parts, []string{upstream.ID})
	n.Key = Key(n.Parts)
}

func (g *imageGraph) publish(needs []string) {
	p := g.img.Pipeline
	with := map[string]any{"name": p.Publish.Name, "tags": stringMap(p.Publish.Tags)}
	if p.Publish.Channel != "" {
		with["channel"] = p.Publish.Channel
	}
	if p.Publish.DeprecateAfter > 0 {
		with["deprecate-after"] = p.Publish.DeprecateAfter.String()
	}
	s := &spec.Step{ID: "publish", Section: step.Publish, Uses: "publish", With: spec.NewValue(with), Pos: p.Publish.Pos}
	n := g.step(s, KindPublish, needs)
	n.Title = p.Publish.Name
	n.Parts["release"] = p.Release
	// What is published is the disk and its files: changing a test makes the test run
	// again, and doesn't make another build of the same bytes.
	g.rekey(n, g.byID[g.id("files")])
	g.img.PublishKey = n.Key
	after := g.deliver(n)
	if p.Copy != nil {
		after = append(after, g.copies(n)...)
	}
	if len(after) == 0 {
		after = []string{n.ID}
	}
	if p.Retain != nil {
		g.retain(after)
	}
}

func stringMap(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// deliver adds the steps of publish.to and returns their ids.
func (g *imageGraph) deliver(publish *Node) (ids []string) {
	prev := publish.ID
	for _, s := range g.section(step.Publish) {
		n := g.step(s, KindDeliver, g.needs(s, prev, publish.ID))
		ids = append(ids, n.ID)
		prev = n.ID
	}
	return ids
}

func (g *imageGraph) copies(publish *Node) []string {
	p := g.img.Pipeline
	var ids []string
	for _, region := range p.Copy.Regions {
		s := &spec.Step{
			ID: "copy-" + region, Section: step.Copy, Uses: "copy",
			With: spec.NewValue(map[string]any{"region": region}), Pos: p.Copy.Pos,
		}
		n := g.step(s, KindCopy, []string{publish.ID})
		n.Title, n.Region = "copy to "+region, region
		ids = append(ids, n.ID)
	}
	return ids
}

func (g *imageGraph) retain(needs []string) {
	r := g.img.Pipeline.Retain
	with := map[string]any{}
	if r.Keep > 0 {
		with["keep"] = r.Keep
	}
	if r.MaxAge > 0 {
		with["max-age"] = r.MaxAge.String()
	}
	if r.MinAge > 0 {
		with["min-age"] = r.MinAge.String()
	}
	s := &spec.Step{ID: "retain", Section: step.Retain, Uses: "retain", With: spec.NewValue(with), Pos: r.Pos}
	g.step(s, KindRetain, needs).Title = "retire older builds"
}
