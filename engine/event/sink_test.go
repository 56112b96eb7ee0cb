package event_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
)

func TestJSONL(t *testing.T) {
	t.Parallel()
	code := 3
	want := []event.Event{
		{V: 1, Seq: 1, Time: time.Unix(10, 0).UTC(), Run: "r", Kind: event.RunStarted, Graph: []event.Node{{ID: "a", Title: "A"}}},
		{V: 1, Seq: 2, Time: time.Unix(11, 0).UTC(), Run: "r", Kind: event.NodeLog, Node: "a", Stream: "stdout", Text: "1 < 2\nnot a new line"},
		{V: 1, Seq: 3, Time: time.Unix(12, 0).UTC(), Run: "r", Kind: event.RunFinished, State: event.Failed, ExitCode: &code},
	}
	var buf bytes.Buffer
	sink := event.JSONL(&buf)
	for _, e := range want {
		sink.Emit(e)
	}
	if err := sink.Err(); err != nil {
		t.Fatal(err)
	}
	var got []event.Event
	for line := range bytes.Lines(buf.Bytes()) {
		var e event.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		got = append(got, e)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events read back (-want +got):\n%s", diff)
	}
}

func TestJSONLStopsAtFirstError(t *testing.T) {
	t.Parallel()
	w := &failsOnce{at: 2}
	sink := event.JSONL(w)
	for seq := range uint64(4) {
		sink.Emit(event.Event{Seq: seq + 1})
	}
	if err := sink.Err(); !errors.Is(err, io.ErrShortWrite) || err.Error() != "write event 2: short write" {
		t.Errorf("Err() = %v, want it to name event 2 and the cause", err)
	}
	if w.calls != 2 {
		t.Errorf("%d writes, want 2: none after the error", w.calls)
	}
}

type failsOnce struct{ calls, at int }

func (f *failsOnce) Write(p []byte) (int, error) {
	f.calls++
	if f.calls == f.at {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestTee(t *testing.T) {
	t.Parallel()
	var one, two recorder
	sink := event.Tee(&one, nil, &two)
	sink.Emit(event.Event{Seq: 7})
	want := recorder{{Seq: 7}}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Errorf("first sink (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, two); diff != "" {
		t.Errorf("second sink (-want +got):\n%s", diff)
	}
}

type recorder []event.Event

func (r *recorder) Emit(e event.Event) { *r = append(*r, e) }
