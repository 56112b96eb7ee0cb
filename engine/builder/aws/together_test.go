package aws

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/gildhq/gild/engine/spec"
)

// TestTwoBuildTheSame builds one image from two machines at once. Both do the work, and share
// what comes of it.
func TestTwoBuildTheSame(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*spec.Pipeline)
	}{
		{"image", func(*spec.Pipeline) {}},
		{"registered image", func(p *spec.Pipeline) { p.AWS.Image.BootMode = "uefi" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := testPipeline()
			tt.change(p)
			together(t, p)
		})
	}
}

func together(t *testing.T, p *spec.Pipeline) {
	w := newWorld(t)
	var both errgroup.Group
	for _, run := range []string{"20261123-120000-aaaaaa", "20261123-120001-bbbbbb"} {
		f := newFlow(w, p)
		f.run = run
		both.Go(func() error { return f.all(t.Context()) })
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, w.remains()); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}
