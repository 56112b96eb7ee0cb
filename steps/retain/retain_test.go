package retain_test

import (
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/retain"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func TestRetires(t *testing.T) {
	t.Parallel()
	registry := &steptest.Registry{Old: []step.Retired{{ID: "img-1", Name: "web", Build: 1, Reason: "5 newer builds"}}}
	target := steptest.NewTarget(nil)
	target.Registry = registry
	const config = `{"keep": 5, "max-age": "180d", "min-age": "1w"}`
	got, err := target.Run(t.Context(), retain.Step, config)
	if err != nil {
		t.Fatal(err)
	}
	want := step.Outputs{"retired": []any{"web build 1 (img-1): 5 newer builds"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("outputs (-want +got)\n%s", d)
	}
	const day = 24 * time.Hour
	if d := cmp.Diff([]step.RetainRule{{Keep: 5, MaxAge: 180 * day, MinAge: 7 * day}}, registry.Rules); d != "" {
		t.Errorf("rules (-want +got)\n%s", d)
	}
	got, err = target.Run(t.Context(), retain.Step, config)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(step.Outputs{"retired": []any{}}, got); d != "" {
		t.Errorf("outputs with nothing to retire (-want +got)\n%s", d)
	}
}
