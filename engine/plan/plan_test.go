package plan_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/google/go-cmp/cmp"
)

// world answers plan's questions from maps.
type world struct {
	whole    bool            // machine states don't stack
	stored   map[string]bool // by node id
	previous map[string]map[string]string
	keys     map[string]string
	project  *plan.Project
	baseID   string
}

func (w *world) ResolveBase(context.Context, *spec.Pipeline) (builder.Base, error) {
	return builder.Base{ID: w.baseID, Clock: time.Unix(1000, 0), Summary: "a base", Layers: []string{"bare"}}, nil
}

func (w *world) ResolveImage(context.Context, *spec.Pipeline) (builder.Base, error) {
	return builder.Base{ID: "image:other", Clock: time.Unix(1000, 0), Layers: []string{"other"}}, nil
}

func (w *world) Stacks(*spec.Pipeline) bool { return !w.whole }

func (w *world) ImageVersion(*spec.Pipeline) (string, error) { return "1", nil }

func (w *world) Stored(_ context.Context, n *plan.Node) (bool, error) { return w.stored[n.ID], nil }

func (w *world) Previous(_ context.Context, n *plan.Node) (string, map[string]string, bool, error) {
	parts, ok := w.previous[n.ID]
	return w.keys[n.ID], parts, ok, nil
}

func (w *world) SecretDigest(_ context.Context, _ *spec.Pipeline, name string) (string, error) {
	return "digest of " + name, nil
}

func (w *world) Retirable(context.Context, *plan.Image) ([]step.Retired, error) { return nil, nil }

func (w *world) Project(string) (*plan.Project, error) { return w.project, nil }

func newWorld(t *testing.T, files map[string]string) *world {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := plan.OpenProject(filepath.Join(dir, "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{stored: map[string]bool{}, project: p, baseID: "debian 12"}
}

func find(_ *spec.Pipeline, name string) (step.Step, bool) {
	s, ok := steps[name]
	return s, ok
}

var steps = map[string]step.Step{
	"shell": {
		Name: "shell", Version: "1", Effect: step.Machine, Cacheable: true,
		Schema: []byte(`{"type":"object","properties":{"run":{"type":"string","format":"gild-script"}}}`),
	},
	"boot":    {Name: "boot", Version: "1", Effect: step.Image, Cacheable: true, Schema: []byte(`{}`)},
	"seal":    {Name: "seal", Version: "1", Effect: step.Machine, Cacheable: true, Schema: []byte(`{}`)},
	"publish": {Name: "publish", Version: "1", Schema: []byte(`{}`)},
	"copy":    {Name: "copy", Version: "1", Schema: []byte(`{}`)},
	"retain":  {Name: "retain", Version: "1", Schema: []byte(`{}`)},
}

// web is a pipeline with three steps, the last two side by side.
func web() *spec.Pipeline {
	shell := func(id, script string) spec.Step {
		return spec.Step{ID: id, Section: step.Customize, Uses: "shell", With: spec.NewValue(map[string]any{"run": script})}
	}
	b := shell("b", "echo b")
	b.Needs, b.NeedsSet = []string{"a"}, true
	c := shell("c", "echo c")
	c.Needs, c.NeedsSet = []string{"a"}, true
	return &spec.Pipeline{
		File: "web.yaml", Name: "web", Release: "1.0.0", Builder: "local", Arch: "amd64",
		Local: spec.LocalBuilder{DiskSize: 1 << 30, Formats: []string{"raw"}, Firmware: []string{"bios"}},
		Base:  spec.Base{Distro: &spec.DistroBase{Distro: "debian", Suite: "bookworm"}},
		Steps: []spec.Step{
			shell("a", "echo a"), b, c,
			{ID: "boot", Section: step.Tests, Uses: "boot", With: spec.NewValue(map[string]any{})},
		},
		Publish: &spec.Publish{Name: "web-1.0.0", Channel: "stable"},
		Copy:    &spec.Copy{Regions: []string{"east", "west"}},
		Retain:  &spec.Retain{Keep: 2},
	}
}

func build(t *testing.T, w *world, sel plan.Selection, pipelines ...*spec.Pipeline) *plan.Plan {
	t.Helper()
	p, diags, err := plan.Build(t.Context(), pipelines, w, plan.Options{Steps: find, Selection: sel})
	if err != nil || len(diags) > 0 {
		t.Fatalf("plan: %v, %v", err, diags)
	}
	return p
}

// outline shows the graph as "id < needs".
func outline(p *plan.Plan) []string {
	var out []string
	for _, n := range p.Nodes {
		out = append(out, n.ID+" < "+strings.Join(n.Needs, " "))
	}
	return out
}

func TestGraph(t *testing.T) {
	t.Parallel()
	p := build(t, newWorld(t, nil), plan.Selection{}, web())
	want := []string{
		"web/base < ",
		"web/a < web/base",
		"web/b < web/a",
		"web/c < web/a",
		"web/seal < web/b web/c",
		"web/disk < web/seal",
		"web/files < web/disk",
		"web/boot < web/disk",
		"web/publish < web/files web/boot",
		"web/copy-east < web/publish",
		"web/copy-west < web/publish",
		"web/retain < web/copy-east web/copy-west",
	}
	if diff := cmp.Diff(want, outline(p)); diff != "" {
		t.Errorf("graph (-want +got):\n%s", diff)
	}
	key := func(id string) string { return p.Node("web/" + id).Key }
	wantStack := []string{"bare", key("base"), key("a"), key("b"), key("c"), key("seal")}
	if diff := cmp.Diff(wantStack, p.Images[0].Stack); diff != "" {
		t.Errorf("stack of layers (-want +got):\n%s", diff)
	}
}

func TestKeysFollowWhatMatters(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		change  func(p *spec.Pipeline, w *world)
		changed []string // node names whose key must change; all others must not
	}{
		{"nothing", func(*spec.Pipeline, *world) {}, nil},
		{"description", func(p *spec.Pipeline, _ *world) { p.Description = "other words" }, nil},
		{"base", func(_ *spec.Pipeline, w *world) { w.baseID = "debian 13" },
			[]string{"base", "a", "b", "c", "seal", "disk", "files", "boot", "publish", "copy-east", "copy-west", "retain"}},
		{"one of two branches", func(p *spec.Pipeline, _ *world) { p.Steps[2].With = spec.NewValue(map[string]any{"run": "echo C"}) },
			[]string{"c", "seal", "disk", "files", "boot", "publish", "copy-east", "copy-west", "retain"}},
		{"a test", func(p *spec.Pipeline, _ *world) { p.Steps[3].With = spec.NewValue(map[string]any{"within": "1m"}) },
			[]string{"boot"}},
		{"release", func(p *spec.Pipeline, _ *world) { p.Release = "1.0.1" },
			[]string{"publish", "copy-east", "copy-west", "retain"}},
		{"retention", func(p *spec.Pipeline, _ *world) { p.Retain.Keep = 3 }, []string{"retain"}},
	}
	before := build(t, newWorld(t, nil), plan.Selection{}, web())
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, w := web(), newWorld(t, nil)
			c.change(p, w)
			after := build(t, w, plan.Selection{}, p)
			var changed []string
			for _, n := range after.Nodes {
				if before.Node(n.ID).Key != n.Key {
					changed = append(changed, strings.TrimPrefix(n.ID, "web/"))
				}
			}
			if diff := cmp.Diff(c.changed, changed); diff != "" {
				t.Errorf("changed keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSkippedStepIsAsIfAbsent(t *testing.T) {
	t.Parallel()
	without := web()
	without.Steps = slices.Delete(without.Steps, 2, 3)
	skipped := web()
	skipped.Steps[2].Skip = "its condition is false"
	a := build(t, newWorld(t, nil), plan.Selection{}, without)
	b := build(t, newWorld(t, nil), plan.Selection{}, skipped)
	// c ends its own branch; b's key is all that seal stands on in both.
	if a.Node("web/b").Key != b.Node("web/b").Key {
		t.Error("a skipped step changed the key of its sibling")
	}
	if b.Node("web/c").Action != plan.Skip {
		t.Errorf("action of the skipped step: %s", b.Node("web/c").Action)
	}
}

func TestFilesAreHashed(t *testing.T) {
	t.Parallel()
	pipeline := func() *spec.Pipeline {
		p := web()
		p.Steps[0].With = spec.NewValue(map[string]any{"run": "./setup.sh"})
		return p
	}
	one := build(t, newWorld(t, map[string]string{"setup.sh": "echo one"}), plan.Selection{}, pipeline())
	two := build(t, newWorld(t, map[string]string{"setup.sh": "echo two"}), plan.Selection{}, pipeline())
	if one.Node("web/a").Key == two.Node("web/a").Key {
		t.Error("another script gave the same key")
	}
	_, diags, err := plan.Build(t.Context(), []*spec.Pipeline{pipeline()}, newWorld(t, nil), plan.Options{Steps: find})
	if err != nil {
		t.Fatal(err)
	}
	if len(diags) != 1 || diags[0].Code != "file-not-found" {
		t.Errorf("a missing script gave %v", diags)
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		stored []string
		sel    plan.Selection
		want   string
	}{
		{"nothing stored", nil, plan.Selection{}, "run: base a b c seal disk files boot publish copy-east copy-west retain"},
		{"all stored", []string{"base", "a", "b", "c", "seal", "disk", "files", "boot", "publish", "copy-east", "copy-west", "retain"},
			plan.Selection{}, "run:"},
		{"layers gone, image there", []string{"disk", "files", "boot", "publish", "copy-east", "copy-west", "retain"},
			plan.Selection{}, "run:"},
		{"one copy gone", []string{"base", "a", "b", "c", "seal", "disk", "files", "boot", "publish", "copy-east", "retain"},
			plan.Selection{}, "run: copy-west"},
		{"disk gone, a layer gone", []string{"base", "b", "c", "seal", "files", "boot", "publish", "copy-east", "copy-west", "retain"},
			plan.Selection{From: []string{"disk"}}, "run: a disk files boot publish copy-east copy-west retain"},
		{"until", nil, plan.Selection{Until: []string{"b"}}, "run: base a b c"},
		{"only", nil, plan.Selection{Only: []string{"c"}}, "run: base a c"},
		{"from", []string{"base", "a", "b", "c", "seal", "disk", "files", "boot", "publish", "copy-east", "copy-west", "retain"},
			plan.Selection{From: []string{"publish"}}, "run: publish copy-east copy-west retain"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			for _, id := range c.stored {
				w.stored["web/"+id] = true
			}
			p := build(t, w, c.sel, web())
			got := "run:"
			for _, n := range p.Nodes {
				if n.Action == plan.Run {
					got += " " + strings.TrimPrefix(n.ID, "web/")
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	before := build(t, newWorld(t, nil), plan.Selection{}, web())
	w := newWorld(t, nil)
	w.previous, w.keys = map[string]map[string]string{}, map[string]string{}
	for _, n := range before.Nodes {
		w.previous[n.ID], w.keys[n.ID] = n.Parts, n.Key
	}
	p := web()
	p.Steps[2].With = spec.NewValue(map[string]any{"run": "echo C"})
	after := build(t, w, plan.Selection{}, p)
	want := map[string][]string{
		"web/a":    {"not finished, or its result was removed"},
		"web/c":    {"with.run changed"},
		"web/seal": {"upstream c changed"},
	}
	for id, why := range want {
		if diff := cmp.Diff(why, after.Node(id).Why); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

func TestImagesInOrder(t *testing.T) {
	t.Parallel()
	child := web()
	child.Name, child.File = "app", "app.yaml"
	child.Base = spec.Base{Image: &spec.ImageBase{Name: "web", Channel: "stable"}, Pos: diag.Pos{File: "app.yaml", Line: 3}}
	p := build(t, newWorld(t, nil), plan.Selection{}, child, web())
	if got := []string{p.Images[0].Name, p.Images[1].Name}; !slices.Equal(got, []string{"web", "app"}) {
		t.Errorf("order of images: %v", got)
	}
	if diff := cmp.Diff([]string{"web/publish"}, p.Node("app/base").Needs); diff != "" {
		t.Errorf("needs of the child's base (-want +got):\n%s", diff)
	}

	parent := web()
	parent.Base = spec.Base{Image: &spec.ImageBase{Name: "app", Channel: "stable"}, Pos: diag.Pos{File: "web.yaml", Line: 3}}
	_, diags, err := plan.Build(t.Context(), []*spec.Pipeline{child, parent}, newWorld(t, nil), plan.Options{Steps: find})
	if err != nil {
		t.Fatal(err)
	}
	if len(diags) != 1 || !strings.Contains(diags[0].Message, "app → web → app") {
		t.Errorf("a circle of bases gave %v", diags)
	}
}

func TestNeedsOnALaterStep(t *testing.T) {
	t.Parallel()
	p := web()
	p.Steps[0].Needs, p.Steps[0].NeedsSet = []string{"b"}, true // a needs b
	p.Steps[1].Needs = nil                                      // b needs nothing
	got := build(t, newWorld(t, nil), plan.Selection{}, p)
	want := []string{"web/base < ", "web/b < web/base", "web/a < web/b", "web/c < web/a"}
	if diff := cmp.Diff(want, outline(got)[:4]); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	stack := []string{"bare", got.Node("web/base").Key, got.Node("web/b").Key}
	if diff := cmp.Diff(stack, got.Node("web/a").Layers); diff != "" {
		t.Errorf("layers of a (-want +got):\n%s", diff)
	}
}

// TestTestsShareAGuest: a test sees what those before it did to the guest, so a verdict
// holds only after the same ones.
func TestTestsShareAGuest(t *testing.T) {
	t.Parallel()
	pipeline := func(first string) *spec.Pipeline {
		p := web()
		p.Steps[3].With = spec.NewValue(map[string]any{"within": first})
		p.Steps = append(p.Steps, spec.Step{ID: "second", Section: step.Tests, Uses: "boot", With: spec.NewValue(map[string]any{})})
		return p
	}
	one := build(t, newWorld(t, nil), plan.Selection{}, pipeline("1m"))
	two := build(t, newWorld(t, nil), plan.Selection{}, pipeline("2m"))
	if one.Node("web/second").Key == two.Node("web/second").Key {
		t.Error("another first test left the second one's key as it was")
	}
	if one.Node("web/publish").Key != two.Node("web/publish").Key {
		t.Error("another test gave the same disk another publication")
	}
}

func TestInputsStayInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "in", "link")); err != nil {
		t.Fatal(err)
	}
	p, err := plan.OpenProject(filepath.Join(dir, "in", "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, name := range []string{"../secret", "/etc/passwd", "link", "./a/../../secret"} {
		if _, err := p.Input(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestChangedInputIsNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("before"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := plan.OpenProject(filepath.Join(dir, "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in, err := p.Input("./f")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("after!"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := in.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, readErr := io.Copy(io.Discard, r)
	if readErr == nil {
		t.Fatal("a changed file was read without an error")
	}
	if !strings.Contains(readErr.Error(), "changed while the build ran") {
		t.Errorf("reading a changed file gave %v", readErr)
	}
}

// TestUncacheableSteps: what a key can't tell all about is another node in each run, and so
// is what stands on it; the rest keeps its key.
func TestUncacheableSteps(t *testing.T) {
	t.Parallel()
	asked := 0
	kinds := maps.Clone(steps)
	kinds["fresh"] = step.Step{Name: "fresh", Version: "1", Effect: step.Machine, Schema: []byte(`{}`)}
	kinds["keyed"] = step.Step{
		Name: "keyed", Version: "1", Effect: step.Machine, Schema: []byte(`{}`), Cacheable: true,
		KeyParts: func(context.Context, json.RawMessage) (map[string]string, error) {
			asked++
			return map[string]string{"tool": "1.0"}, nil
		},
	}
	plans := func(uses string) (first, second *plan.Plan) {
		pipeline := func() *spec.Pipeline {
			p := web()
			p.Steps[1].Uses = uses
			p.Steps[2].Needs = []string{"b"}
			return p
		}
		make := func(run string) *plan.Plan {
			o := plan.Options{Run: run, Steps: func(_ *spec.Pipeline, name string) (step.Step, bool) { s, ok := kinds[name]; return s, ok }}
			p, diags, err := plan.Build(t.Context(), []*spec.Pipeline{pipeline()}, newWorld(t, nil), o)
			if err != nil || len(diags) > 0 {
				t.Fatalf("plan: %v, %v", err, diags)
			}
			return p
		}
		return make("one"), make("two")
	}
	for _, c := range []struct {
		uses string
		same map[string]bool // by node
	}{
		{"shell", map[string]bool{"web/a": true, "web/b": true, "web/c": true, "web/disk": true}},
		{"keyed", map[string]bool{"web/a": true, "web/b": true, "web/c": true, "web/disk": true}},
		{"fresh", map[string]bool{"web/a": true, "web/b": false, "web/c": false, "web/disk": false}},
	} {
		first, second := plans(c.uses)
		for id, same := range c.same {
			if got := first.Node(id).Key == second.Node(id).Key; got != same {
				t.Errorf("%s: %s has the same key in two runs: %v, want %v", c.uses, id, got, same)
			}
		}
	}
	if asked != 2 {
		t.Errorf("the keyed step was asked %d times, want once for each plan", asked)
	}
}

// TestWholeStates: where states don't stack, the steps of an image follow one another, and
// a stored state needs nothing below it.
func TestWholeStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.whole = true
	p := web()
	p.Steps[2].Retry.Attempts = 2
	w.stored["web/a"] = true
	got := build(t, w, plan.Selection{}, p)
	want := map[string]plan.Action{
		"web/base": plan.Unneeded, "web/a": plan.Cached, "web/b": plan.Run, "web/c": plan.Run, "web/seal": plan.Run, "web/disk": plan.Run,
	}
	actions := map[string]plan.Action{}
	for id := range want {
		actions[id] = got.Node(id).Action
	}
	if d := cmp.Diff(want, actions); d != "" {
		t.Errorf("actions (-want +got):\n%s", d)
	}
	if needs := got.Node("web/c").Needs; !slices.Equal(needs, []string{"web/b"}) {
		t.Errorf("c needs %v, not only b", needs)
	}
	for id, want := range map[string]bool{"web/a": false, "web/b": true, "web/c": false} {
		if n := got.Node(id); n.Checkpoint != want {
			t.Errorf("checkpoint after %s is %v: only c may be tried again", id, n.Checkpoint)
		}
	}
}
