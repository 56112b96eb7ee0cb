package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/sandbox/sandboxtest"
)

// The lines of awsSite.holds that a finished build may leave: its image in every region, and
// a checkpoint, which is kept for later builds.
var (
	checkpointImage = sandboxtest.Region + " image checkpoint available"
	publishedImages = []string{sandboxtest.Region + " image published available", "eu-west-1 image published available"}
)

// sideBySide is how many points of a crash test run at a time: a build mostly waits.
const sideBySide = 4

var buildSmall = []string{"build", "small.yaml", "--builder", "aws"}

// TestAWSKilledAtEveryCall kills gild with SIGKILL at each of its calls to AWS, once before
// the call has an effect and once after it, and before the answer. Resuming must end with
// one image in each region and nothing else; collecting must leave nothing at all but what
// is published or kept on purpose. Another machine has nothing but the project and the
// run's id.
//
// Calls that change something in the account are tried before and after in both series, in
// turns on the two machines; those that change images, which outlive the run, on both. What
// only looks, or happens on an instance that is going to be thrown away, leaves the account
// as it is: the one series has it before the answer, the other after.
func TestAWSKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	points := pointsOf(t, newAWSSite(t, sandbox.Config{}), buildSmall...)
	if len(points) < 60 {
		t.Fatalf("an unbroken build made only %d calls; the test would prove little", len(points))
	}
	var resumed, collected []crash
	for i, p := range points {
		odd, far := i%2 == 1, i%4 > 1
		if p.looks() || p.action == "SendCommand" {
			resumed = append(resumed, crash{p, odd, far, resumeAfter})
			collected = append(collected, crash{p, !odd, !far, collectAfter})
			continue
		}
		for _, after := range []bool{false, true} {
			resumed = append(resumed, crash{p, after, odd == after, resumeAfter})
			if strings.Contains(p.action, "Image") || strings.Contains(p.action, "Tags") {
				resumed = append(resumed, crash{p, after, odd != after, resumeAfter})
			}
			collected = append(collected, crash{p, after, odd != after, collectAfter})
		}
	}
	total, leaked := 0, 0
	for _, series := range []struct {
		name    string
		crashes []crash
	}{{"resume", resumed}, {"collect", collected}} {
		t.Run(series.name, func(t *testing.T) {
			failed, missed := crashAll(t, series.crashes)
			t.Logf("killed at %d of %d points; at %d of the looks a build comes by only at times", len(series.crashes)-missed, len(series.crashes), missed)
			total, leaked = total+len(series.crashes)-missed, leaked+failed
		})
	}
	t.Logf("%d calls, %d points, %d leaked", len(points), total, leaked)
}

// crash is one way to break a build, and what is done about it.
type crash struct {
	at        point
	after     bool
	elsewhere bool
	then      func(s *awsSite, c crash, run string) error
}

func (c crash) String() string {
	when, where := "before", "here"
	if c.after {
		when = "after"
	}
	if c.elsewhere {
		where = "elsewhere"
	}
	return fmt.Sprintf("%s %s, %s", when, c.at, where)
}

// crashAll goes through crashes, some at a time. missed counts looks that a build didn't
// make this time.
func crashAll(t *testing.T, crashes []crash) (failed, missed int) {
	t.Helper()
	var next, bad, unmet atomic.Int64
	var workers sync.WaitGroup
	for range sideBySide {
		workers.Go(func() {
			for at := next.Add(1); at <= int64(len(crashes)); at = next.Add(1) {
				c := crashes[at-1]
				ok := t.Run(c.String(), func(t *testing.T) {
					if !c.run(t) {
						unmet.Add(1)
					}
				})
				if !ok {
					bad.Add(1)
				}
			}
		})
	}
	workers.Wait()
	return int(bad.Load()), int(unmet.Load())
}

// run breaks a build. met tells whether the build came to the point.
func (c crash) run(t *testing.T) (met bool) {
	s := newAWSSite(t, sandbox.Config{})
	out := s.killedAt(c.at, c.after, buildSmall...)
	switch {
	case out.code == 0 && c.at.looks():
		return false
	case out.code != -1:
		t.Errorf("gild wasn't killed, but ended with %d:\n%s", out.code, lastLines([]byte(out.stderr), 40))
		return false
	}
	if err := c.then(s, c, runOf(out)); err != nil {
		t.Errorf("%v\ngild had said:\n%s", err, lastLines([]byte(out.stderr), 30))
	}
	return true
}

// resumeAfter finishes a run that was killed.
func resumeAfter(s *awsSite, c crash, run string) error {
	args := []string{"resume", run}
	if c.elsewhere {
		s, args = s.elsewhere(), []string{"resume", run, "small.yaml", "--builder", "aws"}
	}
	if run == "" {
		args = buildSmall // it was killed before it could say that it had begun
	}
	out := s.gild(args...)
	// What comes last only looks, after the run.
	if out.code != 0 && !strings.Contains(out.stderr, "the run is finished") {
		return fmt.Errorf("gild %s: exit status %d\n%s", strings.Join(args, " "), out.code, lastLines([]byte(out.stderr), 40))
	}
	got := s.holds()
	if i := slices.Index(got, checkpointImage); i >= 0 {
		got = slices.Delete(got, i, i+1)
	}
	if diff := cmp.Diff(publishedImages, got); diff != "" {
		return fmt.Errorf("after %s (-want +got):\n%s\nit said:\n%s", strings.Join(args, " "), diff, lastLines([]byte(out.stderr), 40))
	}
	return nil
}

// collectAfter removes what a run that was killed has left.
func collectAfter(s *awsSite, c crash, run string) error {
	args := []string{"gc", "--builder", "aws", "--region", strings.Join(awsRegions, ",")}
	if c.elsewhere {
		s = s.elsewhere()
		if run != "" {
			args = append(args, "--run", run)
		}
	}
	out := s.gild(args...)
	if out.code != 0 {
		return fmt.Errorf("gild %s: exit status %d\n%s%s", strings.Join(args, " "), out.code, out.stdout, out.stderr)
	}
	got := slices.DeleteFunc(s.holds(), func(line string) bool {
		// Whoever goes on with the run ends what was begun with a published image.
		return line == checkpointImage || slices.Contains(publishedImages, line) || strings.HasSuffix(line, publishingImage)
	})
	if len(got) > 0 {
		return fmt.Errorf("gild %s left %q\nit said:\n%s%s", strings.Join(args, " "), got, out.stdout, out.stderr)
	}
	return nil
}
