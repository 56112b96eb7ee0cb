package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestKilledAtEveryJournalWrite kills gild with SIGKILL just before each record of its
// journal becomes durable, and once after the last. Each time gc must leave nothing,
// and resume must end with the image an unbroken build makes. Every other point
// resumes without gc before it, because people do that too.
func TestKilledAtEveryJournalWrite(t *testing.T) {
	t.Parallel()
	whole := newSite(t)
	whole.program = crashGild
	whole.forget()
	count := filepath.Join(t.TempDir(), "count")
	whole.env = []string{"GILD_CRASH_COUNT=" + count}
	want := whole.build("small.yaml", "--param", "tag=second").digest(t)
	text, err := os.ReadFile(count)
	if err != nil {
		t.Fatal(err)
	}
	points, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if points < 24 {
		t.Fatalf("an unbroken build made only %d records; the test would prove little", points)
	}
	for at := 1; at <= points; at++ {
		crashAt(t, at, "before", want)
	}
	crashAt(t, points, "after", want)
	t.Logf("%d points, 0 leaked", points+1)
}

func crashAt(t *testing.T, at int, when, want string) {
	t.Helper()
	s := newSite(t)
	s.forget()
	s.program = crashGild
	s.env = []string{"GILD_CRASH_AT=" + strconv.Itoa(at), "GILD_CRASH_WHEN=" + when}
	name := when + " record " + strconv.Itoa(at)
	before := s.lastRunWith(gild)
	if out := s.gild("build", "small.yaml", "--param", "tag=second"); out.code != -1 {
		t.Fatalf("%s: gild wasn't killed, but ended with %d:\n%s", name, out.code, lastLines([]byte(out.stderr), 20))
	}
	s.program, s.env = gild, nil
	s.settled()
	if at%2 == 0 {
		s.ok("gc")
		s.noDebris(name + ", after gc")
	}
	run := s.lastRun()
	again := []string{"resume", run, "--json"}
	if run == before {
		// It was killed before it could say that it had begun.
		again = []string{"build", "small.yaml", "--param", "tag=second", "--json"}
	}
	out := s.gild(again...)
	if out.code != 0 && strings.Contains(out.stderr, "is finished") {
		again = []string{"build", "small.yaml", "--param", "tag=second", "--json"}
		out = s.gild(again...)
	}
	if out.code != 0 {
		t.Fatalf("%s: gild %s: exit status %d\n%s", name, strings.Join(again, " "), out.code, lastLines([]byte(out.stderr), 30))
	}
	if got := decode[report](t, out.stdout).digest(t); got != want {
		t.Errorf("%s: the image has the digest %s, not %s", name, got, want)
	}
	s.noDebris(name + ", after resume")
	gc := decode[struct{ Removed, Left []any }](t, s.ok("gc", "--json").stdout)
	if len(gc.Removed)+len(gc.Left) > 0 {
		t.Errorf("%s: after resume gc still found %v", name, gc)
	}
	images := decode[[]struct{ Build int }](t, s.ok("images", "--json").stdout)
	if len(images) != 1 || images[0].Build != 2 {
		t.Errorf("%s: the catalog has %v, not build 2 alone", name, images)
	}
	s.must("rm", "-rf", s.state)
}

// lastRunWith is lastRun by another program than the site's.
func (s *site) lastRunWith(program string) string {
	s.t.Helper()
	own, env := s.program, s.env
	s.program, s.env = program, nil
	defer func() { s.program, s.env = own, env }()
	return s.lastRun()
}
