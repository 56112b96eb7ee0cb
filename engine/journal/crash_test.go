package journal_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/sqlite"
)

// crashBinary builds this test with the tag that makes the writer kill its process.
func crashBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "crash.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "crashtest", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("build with -tags crashtest (the go command is needed): %v\n%s", err, out)
	}
	return path
}

// TestCrashPoints tries the crash test hook, and with it the journal, on one build of it.
func TestCrashPoints(t *testing.T) {
	t.Parallel()
	binary := crashBinary(t)
	t.Run("killed at every record", func(t *testing.T) { killAtEveryRecord(t, binary) })
	t.Run("records are counted", func(t *testing.T) { countRecords(t, binary) })
	t.Run("mistakes are told", func(t *testing.T) { refuseMistakes(t, binary) })
}

// Wherever a process is killed, all it was told to be durable is there afterwards, the
// records are those before the crash and no other, and the file is sound.
func killAtEveryRecord(t *testing.T, binary string) {
	t.Parallel()
	for n := 1; n <= workRecords; n++ {
		for when, written := range map[string]int{"before": n - 1, "after": n} {
			t.Run(fmt.Sprintf("%s record %d", when, n), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				var said, complaint bytes.Buffer
				cmd := child(binary, "work", dir, fmt.Sprint("GILD_CRASH_AT=", n), "GILD_CRASH_WHEN="+when)
				cmd.Stdout, cmd.Stderr = &said, &complaint
				if err := cmd.Run(); !killed(err) {
					t.Fatalf("the process ended with %v\n%s", err, complaint.String())
				}
				checkLeft(t, filepath.Join(dir, "gild.db"), written, said.String())
			})
		}
	}
}

// checkLeft compares what is in a journal with the number of records written and with what the
// killed process knew to be durable.
func checkLeft(t *testing.T, path string, written int, said string) {
	t.Helper()
	must(t, sqlite.Check(t.Context(), path))
	got := contents(t, path)
	want := []string{"start", "node running", "intent first", "intent second", "settle first", "event", "result", "node done", "end"}[:written]
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(said) {
		if what := strings.TrimSpace(line); !strings.Contains(strings.Join(got, "\n"), what) {
			t.Errorf("%q was durable and is lost", what)
		}
	}
}

// contents tells which records of work are in a journal, in the order in which work makes them.
func contents(t *testing.T, path string) (got []string) {
	t.Helper()
	ctx := t.Context()
	j := open(t, path)
	runs, err := j.Runs(ctx, 0)
	must(t, err)
	nodes, err := j.Nodes(ctx, "run")
	must(t, err)
	intents, err := j.OpenIntents(ctx, "")
	must(t, err)
	events, err := j.Events(ctx, "run")
	must(t, err)
	_, result, err := j.Result(ctx, "key")
	must(t, err)
	claimed := map[string]bool{}
	for _, i := range intents {
		claimed[i.Resource.ID] = true
	}
	for _, record := range []struct {
		name string
		is   bool
	}{
		{"start", len(runs) == 1},
		{"node running", len(nodes) == 1},
		{"intent first", claimed["first"] || claimed["second"]},
		{"intent second", claimed["second"]},
		{"settle first", claimed["second"] && !claimed["first"]},
		{"event", len(events) == 1},
		{"result", result},
		{"node done", len(nodes) == 1 && nodes[0].State == event.Done},
		{"end", len(runs) == 1 && runs[0].State == event.Done},
	} {
		if record.is {
			got = append(got, record.name)
		}
	}
	return got
}

func countRecords(t *testing.T, binary string) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "count")
	if out, err := child(binary, "work", dir, "GILD_CRASH_COUNT="+file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(file)
	if want := fmt.Sprintf("%d\n", workRecords); string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func refuseMistakes(t *testing.T, binary string) {
	t.Parallel()
	for name, env := range map[string][]string{
		"no number":   {"GILD_CRASH_AT=x", "GILD_CRASH_WHEN=after"},
		"zero":        {"GILD_CRASH_AT=0", "GILD_CRASH_WHEN=after"},
		"wrong place": {"GILD_CRASH_AT=1", "GILD_CRASH_WHEN=during"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := child(binary, "work", t.TempDir(), env...).CombinedOutput()
			if err == nil || killed(err) || !strings.Contains(string(out), "GILD_CRASH_") {
				t.Errorf("got %v\n%s", err, out)
			}
		})
	}
}

// A process killed at a moment nobody chose leaves a sound file, with every entry it said it had.
func TestKilledWhileWriting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := child("/proc/self/exe", "claim forever", dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := bufio.NewScanner(out)
	last := ""
	for i := 0; said.Scan(); i++ {
		last = said.Text()
		if i == 30 {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); !killed(err) {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "gild.db")
	must(t, sqlite.Check(t.Context(), path))
	j := open(t, path)
	open, err := j.OpenIntents(t.Context(), "")
	must(t, err)
	found := slices.ContainsFunc(open, func(i journal.Intent) bool { return fmt.Sprint(i.ID) == last })
	if !found {
		t.Errorf("intent %s was durable and is lost; %d are left", last, len(open))
	}
	if _, err := j.Intent(t.Context(), "r", "n", builder.Resource{}); err != nil {
		t.Errorf("after another process was killed: %v", err)
	}
}
