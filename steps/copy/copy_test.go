package copy_test

import (
	"testing"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/copy"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func TestCopies(t *testing.T) {
	t.Parallel()
	registry := &steptest.Registry{Full: "ap-south-1"}
	target := steptest.NewTarget(nil)
	target.Registry = registry
	_, err := target.Run(t.Context(), copy.Step, `{"region": "us-east-1"}`)
	steptest.WantError(t, err, "copy to us-east-1: the image isn't published")

	if _, err := registry.Publish(t.Context(), step.PublishRequest{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	var progress []any
	target.Progress = func(done, total int64, unit string) { progress = append(progress, done, total, unit) }
	got, err := target.Run(t.Context(), copy.Step, `{"region": "us-east-1"}`)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(step.Outputs{"location": "/regions/us-east-1/img-1"}, got); d != "" {
		t.Errorf("outputs (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]any{int64(10), int64(10), "bytes"}, progress); d != "" {
		t.Errorf("progress (-want +got)\n%s", d)
	}
	_, err = target.Run(t.Context(), copy.Step, `{"region": "ap-south-1"}`)
	steptest.WantError(t, err, "copy to ap-south-1: region ap-south-1 is full")
}
