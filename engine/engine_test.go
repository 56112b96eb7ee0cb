package engine

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
	"github.com/google/go-cmp/cmp"
)

// TestEffective: without failures nothing changes; with one, only what stands on it.
func TestEffective(t *testing.T) {
	t.Parallel()
	img := &plan.Image{
		Name: "web", Stack: []string{"base", "may-fail", "after", "seal"}, DiskKey: "disk", PublishKey: "publish",
	}
	below := &plan.Node{ID: "web/base", Key: "base", Layers: []string{}, Image: img}
	failing := &plan.Node{ID: "web/may-fail", Key: "may-fail", Layers: []string{"base"}, Image: img}
	above := &plan.Node{ID: "web/after", Key: "after", Layers: []string{"base", "may-fail"}, Image: img}
	test := &plan.Node{ID: "web/boot", Key: "boot", Image: img}
	x := &execution{failed: map[string]map[string]bool{}}
	for _, n := range []*plan.Node{below, failing, above, test} {
		if x.effective(n) != n {
			t.Errorf("%s changed though nothing failed", n.ID)
		}
	}
	x.setFailed(failing, true)
	for _, n := range []*plan.Node{below, failing} {
		if x.effective(n) != n {
			t.Errorf("%s changed though it doesn't stand on what failed", n.ID)
		}
	}
	got := x.effective(above)
	if diff := cmp.Diff([]string{"base"}, got.Layers); diff != "" {
		t.Errorf("layers of what follows (-want +got):\n%s", diff)
	}
	if got.Key == above.Key || got.Image.DiskKey == img.DiskKey || got.Image.PublishKey == img.PublishKey {
		t.Error("what follows has the key of what it would be with the step")
	}
	if want := []string{"base", got.Key, got.Image.Stack[2]}; !cmp.Equal(want, got.Image.Stack) {
		t.Errorf("the stack is %v", got.Image.Stack)
	}
	if x.effective(test).Image.DiskKey != got.Image.DiskKey {
		t.Error("a test looks at another disk than the one that was made")
	}
	child := &plan.Image{Name: "app", Parent: img, Stack: append(img.Stack, "own"), DiskKey: "app-disk"}
	if x.effective(&plan.Node{Key: "k", Image: child}).Image.DiskKey == "app-disk" {
		t.Error("an image built from one without the step has the key of one with it")
	}
	x.setFailed(failing, false)
	if x.effective(above) != above {
		t.Error("a second try succeeded, and what follows still goes without the step")
	}
}

func TestRunBelongsToOne(t *testing.T) {
	t.Parallel()
	e := &Engine{config: Config{State: t.TempDir()}}
	release, err := e.claimRun("run")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.claimRun("run"); !errors.Is(err, ErrRunning) {
		t.Errorf("a second claim gave %v", err)
	}
	if running, err := e.alive("run"); err != nil || !running {
		t.Errorf("a claimed run is alive: %v, %v", running, err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if running, err := e.alive("run"); err != nil || running {
		t.Errorf("a released run is alive: %v, %v", running, err)
	}
}

func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GILD_TEST_SECRET", "from the environment")
	t.Setenv("GILD_TEST_EMPTY", "")
	p := &spec.Pipeline{Secrets: map[string]spec.Secret{
		"env":     {Source: "env", Ref: "GILD_TEST_SECRET"},
		"file":    {Source: "file", Ref: "token"},
		"exec":    {Source: "exec", Argv: []string{"printf", "from %s", "a command"}},
		"empty":   {Source: "env", Ref: "GILD_TEST_EMPTY"},
		"unset":   {Source: "env", Ref: "GILD_TEST_UNSET"},
		"failing": {Source: "exec", Argv: []string{"false"}},
	}}
	s := newSecrets()
	for name, want := range map[string]string{"env": "from the environment", "file": "from a file", "exec": "from a command"} {
		if got, err := s.value(t.Context(), p, name, dir); err != nil || got != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"empty", "unset", "failing", "undeclared"} {
		if got, err := s.value(t.Context(), p, name, dir); err == nil {
			t.Errorf("%s gave %q", name, got)
		}
	}
	if len(s.all()) != 3 {
		t.Errorf("%d values are masked, not 3", len(s.all()))
	}
}

func TestPipelineFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": "gild: 1\n", "a.yml": "# words\ngild: 1\n", "compose.yaml": "services: {}\n", "notes.txt": "gild: 1\n",
		".hidden/c.yaml": "gild: 1\n", "sub/d.yaml": "gild: 1\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var diags diag.List
	got, err := pipelineFiles([]string{dir, filepath.Join(dir, "b.yaml")}, &diags)
	if err != nil || len(diags) > 0 {
		t.Fatal(err, diags)
	}
	want := []string{filepath.Join(dir, "a.yml"), filepath.Join(dir, "b.yaml"), filepath.Join(dir, "sub/d.yaml")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := pipelineFiles([]string{filepath.Join(dir, ".hidden", "..", "sub", "..", ".hidden")}, &diags); err != nil || len(diags) > 0 {
		t.Errorf("a hidden folder that is named is read: %v, %v", err, diags)
	}
}
