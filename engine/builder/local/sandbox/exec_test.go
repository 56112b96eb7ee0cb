package sandbox

import (
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

func TestTiming(t *testing.T) {
	if _, err := shared.busybox(); err != nil {
		t.Fatal(err)
	}
	c := machineConfig(t)
	for range 4 {
		t0 := time.Now()
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		if err := s.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
		t2 := time.Now()
		s.Close()
		t.Log(t1.Sub(t0), t2.Sub(t1), time.Since(t2))
	}
}
