package e2e_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// TestAWSFaultsAllTheTime builds while 30 % of the calls are throttled, 10 % fail with 5xx
// and the answers of 5 % are lost.
func TestAWSFaultsAllTheTime(t *testing.T) {
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newAWSSite(t, sandbox.Config{})
			s.faults(sandbox.Faults{Seed: seed, Throttle: 0.3, Unavailable: 0.1, Lost: 0.05})
			s.ok(buildSmall...)
			had := map[sandbox.FaultKind]int{}
			for _, c := range s.cloud.Server.Calls() {
				for _, kind := range c.Faults {
					had[kind]++
				}
			}
			s.faults(sandbox.Faults{})
			if had[sandbox.Throttle] < 20 || had[sandbox.Unavailable] < 5 || had[sandbox.Lost] < 2 {
				t.Errorf("there were only these faults: %v", had)
			}
			want := append([]string{checkpointImage}, publishedImages...)
			if diff := cmp.Diff(want, s.holds()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			t.Logf("%d calls, faults %v", len(s.cloud.Server.Calls()), had)
		})
	}
}

func (s *awsSite) faults(f sandbox.Faults) {
	s.t.Helper()
	if err := s.cloud.Server.SetFaults(f); err != nil {
		s.t.Fatal(err)
	}
}
