package engine

import (
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/step"
)

func TestOpenClaims(t *testing.T) {
	t.Parallel()
	j, err := journal.Open(t.Context(), filepath.Join(t.TempDir(), "gild.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &Engine{journal: j}
	mine := step.Step{Name: "acme/agent", Plugin: "acme/agent@sha256:1"}
	kinds := []string{
		claimKind(mine, "lease"), claimKind(mine, "upload"),
		claimKind(step.Step{Name: "acme/agent", Plugin: "acme/agent@sha256:12"}, "lease"),
		claimKind(step.Step{Name: "packages"}, "lease"), "mount",
	}
	var ids []int64
	for _, kind := range kinds {
		id, err := e.journal.Intent(t.Context(), "run", "web/agent", builder.Resource{Kind: kind, ID: "x"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	for plugin, want := range map[string]int{mine.Plugin: 2, "acme/agent@sha256:12": 1, "acme/agent": 0, "acme/other@sha256:1": 0} {
		if got, err := e.OpenClaims(t.Context(), plugin); err != nil || got != want {
			t.Errorf("%s has %d open claims, want %d: %v", plugin, got, want, err)
		}
	}
	for _, id := range ids[:2] {
		if err := e.journal.Settle(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := e.OpenClaims(t.Context(), mine.Plugin); err != nil || got != 0 {
		t.Errorf("%d claims are open after they were settled: %v", got, err)
	}
}
