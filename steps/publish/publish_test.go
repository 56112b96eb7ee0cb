package publish_test

import (
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/publish"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func TestPublishes(t *testing.T) {
	t.Parallel()
	registry := &steptest.Registry{}
	target := steptest.NewTarget(nil)
	target.Registry = registry
	config := `{"name": "web-1.4.0", "channel": "stable", "tags": {"team": "web"}, "deprecate-after": "90d"}`
	got, err := target.Run(t.Context(), publish.Step, config)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(step.Outputs{"id": "img-1", "build": 1.0}, got); d != "" {
		t.Errorf("outputs (-want +got)\n%s", d)
	}
	want := step.PublishRequest{
		Name: "web-1.4.0", Channel: "stable", Tags: map[string]string{"team": "web"}, DeprecateAfter: 90 * 24 * time.Hour,
	}
	if d := cmp.Diff(want, registry.Published[registry.Channels["stable"]]); d != "" {
		t.Errorf("what stable points to (-want +got)\n%s", d)
	}
}
