package aws

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNothingIsWrittenAfterSealing looks at how the bench of an image was stopped: by itself,
// and by EC2 only where it can't.
func TestNothingIsWrittenAfterSealing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		oldInit, shutOff bool
	}{
		{"switches itself off", false, false},
		{"can't switch itself off", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fakes.oldInit = tt.oldInit
			if err := newFlow(w, testPipeline()).all(t.Context()); err != nil {
				t.Fatal(err)
			}
			var stopped []any
			for _, c := range w.Calls() {
				if c.Action == "CreateImage" && c.Params["NoReboot"] == true {
					stopped = append(stopped, c.Params["InstanceId"])
				}
			}
			// The checkpoint is of the same instance.
			if len(stopped) != 2 || stopped[0] != stopped[1] {
				t.Fatalf("images were made of %v", stopped)
			}
			m := w.fakes.of(stopped[0].(string))
			if diff := cmp.Diff(tt.shutOff, m.shutDown); diff != "" {
				t.Errorf("shut down with its services (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(whole, w.remains()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
		})
	}
}
