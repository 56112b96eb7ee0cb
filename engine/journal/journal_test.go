package journal_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/sqlite"
	"github.com/gildhq/gild/engine/step"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

func open(t testing.TB, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

func fresh(t testing.TB) *journal.Journal {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "gild.db"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "gild.db")
	j := open(t, path)
	one := journal.Run{ID: "run-1", State: event.Running, Started: noon, PID: 12, Host: "here", Request: json.RawMessage(`{"files":["web.yaml"]}`)}
	two := journal.Run{ID: "run-22", State: event.Running, Started: noon.Add(time.Hour)}
	three := journal.Run{ID: "run-23", State: event.Running, Started: noon.Add(time.Hour)}
	for _, r := range []journal.Run{one, two, three} {
		must(t, j.StartRun(ctx, r))
	}
	must(t, j.EndRun(ctx, "run-1", event.Failed, 3, noon.Add(time.Minute)))
	must(t, j.EndRun(ctx, "run-22", event.Cancelled, 130, noon.Add(2*time.Hour)))
	must(t, j.Adopt(ctx, "run-22", 99, "there"))
	must(t, j.Close())

	j = open(t, path)
	one.State, one.ExitCode, one.Ended = event.Failed, 3, noon.Add(time.Minute)
	two.PID, two.Host = 99, "there"
	got, err := j.Runs(ctx, 0)
	must(t, err)
	if diff := cmp.Diff([]journal.Run{three, two, one}, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	got, err = j.Runs(ctx, 2)
	must(t, err)
	if diff := cmp.Diff([]journal.Run{three, two}, got); diff != "" {
		t.Errorf("the latest two (-want +got):\n%s", diff)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	for _, id := range []string{"ab", "abc", "abd", "xy%", "xyz"} {
		must(t, j.StartRun(t.Context(), journal.Run{ID: id}))
	}
	tests := map[string]struct{ ask, want, err string }{
		"whole id":                 {"abc", "abc", ""},
		"id that begins others":    {"ab", "ab", ""},
		"unique beginning":         {"abd", "abd", ""},
		"no wildcard":              {"xy%", "xy%", ""},
		"beginning of several":     {"a", "", `no such run: "a" could be any of ab, abc, abd`},
		"wildcard is no beginning": {"%", "", `no such run: "%" (gild runs lists them)`},
		"unknown":                  {"q", "", `no such run: "q" (gild runs lists them)`},
		"empty":                    {"", "", `no such run: "" (gild runs lists them)`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := j.Run(context.Background(), tt.ask)
			if got.ID != tt.want {
				t.Errorf("got run %q, want %q", got.ID, tt.want)
			}
			if tt.err != "" && (!errors.Is(err, journal.ErrNoRun) || err.Error() != tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if tt.err == "" && err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRunMistakes(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	must(t, j.StartRun(t.Context(), journal.Run{ID: "r", State: event.Running}))
	if err := j.StartRun(t.Context(), journal.Run{ID: "r", State: event.Done}); err == nil || !strings.Contains(err.Error(), `"r"`) {
		t.Errorf("a second run with the same id: got error %v", err)
	}
	if err := j.EndRun(t.Context(), "x", event.Done, 0, noon); !errors.Is(err, journal.ErrNoRun) {
		t.Errorf("end of an unknown run: got error %v", err)
	}
	if err := j.Adopt(t.Context(), "x", 1, ""); !errors.Is(err, journal.ErrNoRun) {
		t.Errorf("adoption of an unknown run: got error %v", err)
	}
	if r, err := j.Run(t.Context(), "r"); err != nil || r.State != event.Running {
		t.Errorf("got %v, %v; want the first run as it was", r, err)
	}
	must(t, j.Flush(t.Context()))
}

func TestNodes(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	must(t, j.SetNode(journal.Node{Run: "r", ID: "b", State: event.Running, Attempt: 1, Started: noon}))
	want := []journal.Node{
		{Run: "r", ID: "a", Key: "k", State: event.Skipped, Reason: "not asked for"},
		{
			Run: "r", ID: "b", Key: "k2", State: event.Failed, Attempt: 2, LogPath: "/x/b.log", Error: "it broke",
			Outputs: step.Outputs{"list": []any{"x", 2.0}, "ok": true}, Started: noon, Ended: noon.Add(time.Second),
		},
		{Run: "r", ID: "c", State: event.Done, Outputs: step.Outputs{}},
	}
	for i := range want {
		must(t, j.SetNode(want[len(want)-1-i]))
	}
	must(t, j.SetNode(journal.Node{Run: "other", ID: "a", State: event.Done}))
	got, err := j.Nodes(t.Context(), "r")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if got, err := j.Nodes(t.Context(), "none"); len(got) != 0 || err != nil {
		t.Errorf("nodes of an unknown run: %v, %v", got, err)
	}
	if err := j.SetNode(journal.Node{Run: "r", ID: "d", Outputs: step.Outputs{"f": func() {}}}); err == nil {
		t.Error("outputs that are no JSON were taken")
	}
	must(t, j.Flush(t.Context()))
}

func TestIntents(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := fresh(t)
	claim := func(run, node, id string) int64 {
		t.Helper()
		n, err := j.Intent(ctx, run, node, builder.Resource{Kind: "tmpdir", ID: id, Note: "scratch"})
		must(t, err)
		return n
	}
	before := time.Now()
	first, second, third := claim("r1", "n1", "/a"), claim("r2", "n1", "/b"), claim("r1", "n2", "/c")
	must(t, j.Settle(ctx, third))
	must(t, j.Settle(ctx, third))
	if fourth := claim("r1", "n2", "/d"); fourth <= third {
		t.Errorf("intent %d came after %d: ids are used again", fourth, third)
	} else {
		must(t, j.Settle(ctx, fourth))
	}
	want := []journal.Intent{
		{ID: first, Run: "r1", Node: "n1", Resource: builder.Resource{Kind: "tmpdir", ID: "/a", Note: "scratch"}},
		{ID: second, Run: "r2", Node: "n1", Resource: builder.Resource{Kind: "tmpdir", ID: "/b", Note: "scratch"}},
	}
	for run, want := range map[string][]journal.Intent{"": want, "r1": want[:1], "r2": want[1:], "r3": nil} {
		got, err := j.OpenIntents(ctx, run)
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(journal.Intent{}, "Made")); diff != "" {
			t.Errorf("open intents of run %q (-want +got):\n%s", run, diff)
		}
		for _, i := range got {
			if i.Made.Before(before) || i.Made.After(time.Now()) {
				t.Errorf("intent %d was made at %v", i.ID, i.Made)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	code := 0
	want := []event.Event{
		{V: 1, Seq: 1, Time: noon, Run: "r", Kind: event.RunStarted, Graph: []event.Node{{ID: "a", Title: "A"}, {ID: "b", Needs: []string{"a"}}}},
		{V: 1, Seq: 3, Time: noon, Run: "r", Kind: event.NodeState, Node: "a", State: event.Failed, Failure: &event.Failure{Error: "no", Tail: []string{"x"}}},
		{V: 1, Seq: 1, Time: noon, Run: "r", Kind: event.RunFinished, State: event.Done, ExitCode: &code},
	}
	for _, e := range []event.Event{
		want[0],
		{Run: "r", Kind: event.NodeLog, Text: "a line"},
		{Run: "other", Kind: event.Notice},
		{Run: "r", Kind: event.NodeProgress, Done: 1},
		want[1], want[2],
	} {
		must(t, j.AddEvent(e))
	}
	got, err := j.Events(t.Context(), "r")
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	j := fresh(t)
	saved := map[string]step.Outputs{"k1": {"port": 80.0}, "k2": nil, "k3": {}}
	must(t, j.SaveResult(ctx, "k1", step.Outputs{"port": "old"}))
	for key, out := range saved {
		must(t, j.SaveResult(ctx, key, out))
	}
	for key, want := range saved {
		got, ok, err := j.Result(ctx, key)
		if diff := cmp.Diff(want, got); diff != "" || !ok || err != nil {
			t.Errorf("result of %s: ok %v, error %v (-want +got):\n%s", key, ok, err, diff)
		}
	}
	if got, ok, err := j.Result(ctx, "k4"); got != nil || ok || err != nil {
		t.Errorf("result of an unknown key: %v, %v, %v", got, ok, err)
	}
	got, err := j.Results(ctx, []string{"k4", "k3", "k1", `"]`})
	must(t, err)
	if diff := cmp.Diff(map[string]step.Outputs{"k1": {"port": 80.0}, "k3": {}}, got); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	if got, err := j.Results(ctx, nil); len(got) != 0 || err != nil {
		t.Errorf("results of no keys: %v, %v", got, err)
	}
}

func TestKeyParts(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	want := map[string]string{"config": "1", "parent": "2"}
	must(t, j.SaveKeyParts("web", "disk", "old", nil))
	must(t, j.SaveKeyParts("web", "disk", "key", want))
	must(t, j.SaveKeyParts("db", "disk", "other", nil))
	key, got, ok, err := j.KeyParts(t.Context(), "web", "disk")
	if diff := cmp.Diff(want, got); diff != "" || key != "key" || !ok || err != nil {
		t.Errorf("key %q, ok %v, error %v (-want +got):\n%s", key, ok, err, diff)
	}
	if _, _, ok, err := j.KeyParts(t.Context(), "web", "none"); ok || err != nil {
		t.Errorf("an unknown node: %v, %v", ok, err)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	must(t, j.SetNode(journal.Node{Run: "r", ID: "n"}))
	must(t, j.Close())
	must(t, j.Close())
	_, intent := j.Intent(t.Context(), "r", "n", builder.Resource{})
	_, runs := j.Runs(t.Context(), 1)
	for call, err := range map[string]error{
		"SetNode": j.SetNode(journal.Node{}), "Intent": intent, "Runs": runs,
		"Settle": j.Settle(t.Context(), 1), "AddEvent": j.AddEvent(event.Event{}),
	} {
		if err == nil {
			t.Errorf("%s worked on a closed journal", call)
		}
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := j.Intent(ctx, "r", "n", builder.Resource{}); !errors.Is(err, cause) {
		t.Errorf("got error %v, want %v", err, cause)
	}
	if open, err := j.OpenIntents(t.Context(), ""); len(open) != 0 || err != nil {
		t.Errorf("got %v, %v; want no intent", open, err)
	}
}

// A value that SQLite gives back without complaint, but that we never wrote, is damage too.
func TestOverwrittenValues(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gild.db")
	j := open(t, path)
	must(t, j.SetNode(journal.Node{Run: "r", ID: "n", Outputs: step.Outputs{"a": 1}}))
	must(t, j.AddEvent(event.Event{Run: "r", Kind: event.Notice}))
	must(t, j.SaveKeyParts("s", "n", "k", map[string]string{"a": "b"}))
	must(t, j.SaveResult(t.Context(), "k", step.Outputs{"a": 1}))
	must(t, j.Flush(t.Context()))
	db, err := sql.Open("sqlite", path)
	must(t, err)
	_, err = db.Exec(`UPDATE nodes SET outputs = '{"a'; UPDATE events SET event = '['; UPDATE key_parts SET parts = 'x';
		UPDATE results SET outputs = '{"a":1'`)
	must(t, errors.Join(err, db.Close()))

	_, nodes := j.Nodes(t.Context(), "r")
	_, events := j.Events(t.Context(), "r")
	_, _, _, parts := j.KeyParts(t.Context(), "s", "n")
	_, _, result := j.Result(t.Context(), "k")
	_, results := j.Results(t.Context(), []string{"k"})
	for call, err := range map[string]error{"Nodes": nodes, "Events": events, "KeyParts": parts, "Result": result, "Results": results} {
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Kind != sqlite.Damaged {
			t.Errorf("%s: got error %v, want one of damage", call, err)
		}
	}
}

func TestManyGoroutines(t *testing.T) {
	t.Parallel()
	j := fresh(t)
	const workers, each = 16, 50
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				n := journal.Node{Run: "r", ID: fmt.Sprintf("%d/%d", w, i), State: event.Running}
				id, err := j.Intent(context.Background(), "r", n.ID, builder.Resource{Kind: "tmpdir"})
				err = errors.Join(err, j.SetNode(n), j.AddEvent(event.Event{Run: "r", Kind: event.NodeState}), j.Settle(context.Background(), id))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	nodes, err := j.Nodes(t.Context(), "r")
	must(t, err)
	events, err := j.Events(t.Context(), "r")
	must(t, err)
	open, err := j.OpenIntents(t.Context(), "")
	must(t, err)
	if len(nodes) != workers*each || len(events) != workers*each || len(open) != 0 {
		t.Errorf("got %d nodes, %d events, %d open intents; want %d, %d, 0", len(nodes), len(events), len(open), workers*each, workers*each)
	}
}

func TestManyProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const processes = 4
	var all sync.WaitGroup
	for range processes {
		all.Go(func() {
			if out, err := child("/proc/self/exe", "claim", dir).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	all.Wait()
	j := open(t, filepath.Join(dir, "gild.db"))
	intents, err := j.OpenIntents(t.Context(), "")
	must(t, err)
	byRun := map[string]int{}
	for _, i := range intents {
		byRun[i.Run]++
	}
	if len(byRun) != processes {
		t.Fatalf("got intents of %d runs, want %d", len(byRun), processes)
	}
	for run, n := range byRun {
		nodes, err := j.Nodes(t.Context(), run)
		must(t, err)
		if n != claimsPerChild/2 || len(nodes) != claimsPerChild {
			t.Errorf("run %s has %d open intents and %d nodes; want %d and %d", run, n, len(nodes), claimsPerChild/2, claimsPerChild)
		}
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	cmd := child("/proc/self/exe", "full", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
