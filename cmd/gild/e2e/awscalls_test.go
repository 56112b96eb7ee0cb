package e2e_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
)

// TestAWSWaitsTogether builds two variants at once, whose instances start slowly. One call
// must ask for both.
func TestAWSWaitsTogether(t *testing.T) {
	t.Parallel()
	// Nothing that is pending ends before the clock is turned.
	s := newAWSSite(t, sandbox.Config{Pace: 100})
	s.gate.open.Store(true)
	cmd := s.command("build", "twice.yaml", "--builder", "aws", "--jobs", "2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	const enough = 5
	var together, apart int
	for deadline := time.Now().Add(time.Minute); together < enough; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("after a minute %d calls asked for both instances and %d for one", together, apart)
			break
		}
		together, apart = s.asksForInstances()
	}
	if apart > 0 {
		t.Errorf("while %d calls asked for both instances, %d asked for one", together, apart)
	}
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("gild: %v\n%s", err, lastLines(stderr.Bytes(), 40))
			}
			want := []string{"eu-central-1 image candidate available", "eu-central-1 image candidate available"}
			if diff := cmp.Diff(want, s.holds()); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
			return
		case <-time.After(50 * time.Millisecond):
			if err := s.cloud.Server.Advance(time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// asksForInstances counts the calls that asked for two instances, and those that asked for
// one although another call had asked for both before.
func (s *awsSite) asksForInstances() (together, apart int) {
	for _, c := range s.cloud.Server.Calls() {
		if c.Action != "DescribeInstances" {
			continue
		}
		filters, _ := c.Params["Filters"].([]any)
		for _, f := range filters {
			filter, _ := f.(map[string]any)
			values, _ := filter["Values"].([]any)
			switch {
			case filter["Name"] == "instance-id" && len(values) == 2:
				together++
			case filter["Name"] == "instance-id" && together > 0:
				apart++
			}
		}
	}
	return together, apart
}

// BenchmarkAWSCalls counts the calls of a build: launch, two steps, a checkpoint, the image,
// a test instance, publishing and a copy. Gild waits as it does for AWS, and pending states
// end at once: what waiting adds depends on AWS.
func BenchmarkAWSCalls(b *testing.B) {
	counts := map[string]int{}
	total := 0
	for range b.N {
		b.StopTimer()
		s := newAWSSite(b, sandbox.Config{})
		s.program = gild
		s.gate.open.Store(true)
		b.StartTimer()
		s.ok(buildSmall...)
		for _, c := range s.cloud.Server.Calls() {
			total++
			counts[c.Service]++
		}
	}
	b.ReportMetric(float64(total)/float64(b.N), "calls/build")
	for service, n := range counts {
		b.ReportMetric(float64(n)/float64(b.N), fmt.Sprintf("%s-calls/build", service))
	}
}
