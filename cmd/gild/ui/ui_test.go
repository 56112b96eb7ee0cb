package ui

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file of testdata, escape characters shown as "␛".
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.ReplaceAll(got, "\x1b", "␛")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// recorded reads an event stream of testdata.
func recorded(t *testing.T, name string) []event.Event {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var events []event.Event
	if err := readEvents(f, func(e event.Event) { events = append(events, e) }); err != nil {
		t.Fatal(err)
	}
	return events
}

func tell(events []event.Event) *Story {
	s := &Story{}
	for _, e := range events {
		s.Emit(e)
	}
	return s
}

// places are the kinds of places that output is drawn for.
var places = []struct {
	name  string
	width int
	look  Look
}{
	{"80", 80, Look{Unicode: true}},
	{"80-color", 80, Look{Unicode: true, Color: true}},
	{"80-ascii", 80, Look{}},
	{"200", 200, Look{Unicode: true}},
	{"200-color", 200, Look{Unicode: true, Color: true}},
}

func TestFrame(t *testing.T) {
	t.Parallel()
	moments := map[string][]time.Duration{ // since the start of the run
		"success":     {6 * time.Second, 57 * time.Second, 74 * time.Second, 102 * time.Second},
		"failure":     {2 * time.Second, 3500 * time.Millisecond},
		"interrupted": {44 * time.Second},
		"fleet":       {21 * time.Second},
		"wide":        {4 * time.Second},
	}
	for stream, times := range moments {
		for _, place := range places {
			t.Run(stream+"-"+place.name, func(t *testing.T) {
				t.Parallel()
				var out strings.Builder
				for _, at := range times {
					for _, height := range []int{39, 23, 12, 6} {
						drawMoment(t, &out, recorded(t, stream), at, place.width-1, height, place.look)
					}
				}
				golden(t, stream+"-"+place.name+".frame", out.String())
			})
		}
	}
}

func drawMoment(t *testing.T, out *strings.Builder, events []event.Event, at time.Duration, width, height int, look Look) {
	t.Helper()
	now := events[0].Time.Add(at)
	var s Story
	for _, e := range events {
		if !e.Time.After(now) {
			s.Emit(e)
		}
	}
	lines := s.frame(now, width, height, look)
	if len(lines) > height {
		t.Errorf("at %s: %d lines, more than %d", at, len(lines), height)
	}
	fmt.Fprintf(out, "== %s, %d rows\n", at, height)
	for _, line := range lines {
		if got := cells.String(line); got > width {
			t.Errorf("at %s: line of %d cells, more than %d: %q", at, got, width, line)
		}
		out.WriteString(line + "\n")
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	published := map[string]Outcome{"success": {Images: []Image{{
		Name: "web-1.4.0-amd64", Release: "1.4.0", Build: 7, Channels: []string{"stable"},
		Files: []File{
			{"raw", "/home/u/.local/state/gild/images/ab/disk.raw", strings.Repeat("0123456789abcdef", 4), 2 << 30, 671088640},
			{"qcow2", "/home/u/.local/state/gild/images/ab/disk.qcow2", strings.Repeat("fedcba9876543210", 4), 430 << 20, 430 << 20},
		},
		Copies: []Copy{{"eu-1", "/home/u/.local/state/gild/regions/eu-1/ab"}, {"us-1", "/home/u/.local/state/gild/regions/us-1/ab"}},
	}}, Retired: []string{"web-1.3.9-amd64 build 1: older than the newest 5"}, Locks: []string{"pipelines/gild.lock"}}}
	for _, stream := range []string{"success", "failure", "interrupted"} {
		for _, place := range places {
			t.Run(stream+"-"+place.name, func(t *testing.T) {
				t.Parallel()
				s := tell(recorded(t, stream))
				var out bytes.Buffer
				fmt.Fprintln(&out, "== last frame")
				for _, line := range s.lastFrame(time.Time{}, place.width-1, 20, place.look) {
					fmt.Fprintln(&out, line)
				}
				fmt.Fprintln(&out, "== failure")
				if err := s.Failure(&out, place.look, place.width); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&out, "== summary")
				if err := s.Summary(&out, place.look, place.width, published[stream]); err != nil {
					t.Fatal(err)
				}
				golden(t, stream+"-"+place.name+".report", out.String())
			})
		}
	}
}

// readEvents calls emit for every event of a stream written by [event.JSONL].
// The error names the line that is no event.
func readEvents(in io.Reader, emit func(event.Event)) error {
	dec := json.NewDecoder(in)
	for line := 1; ; line++ {
		var e event.Event
		switch err := dec.Decode(&e); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("event %d: %w", line, err)
		}
		emit(e)
	}
}
