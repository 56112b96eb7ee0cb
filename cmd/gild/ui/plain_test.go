package ui

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"success", "failure", "interrupted", "fleet", "wide"} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			events := recorded(t, stream)
			var out bytes.Buffer
			p := NewPlain(&out, func() time.Time { return events[0].Time })
			for _, e := range events {
				p.Emit(e)
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			golden(t, stream+".plain", out.String())
		})
	}
}

func TestPlainHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := NewPlain(&out, func() time.Time { return time.Now().UTC() })
		at := func(e event.Event) event.Event { e.Time = time.Now().UTC(); return e }
		p.Emit(at(event.Event{Kind: event.RunStarted, Run: "r", Graph: []event.Node{{ID: "web/base"}, {ID: "web/disk"}}}))
		p.Emit(at(event.Event{Kind: event.NodeState, Node: "web/base", State: event.Running, Attempt: 1}))
		time.Sleep(20 * time.Second)
		p.Emit(at(event.Event{Kind: event.NodeLog, Node: "web/base", Text: "unpacking"}))
		p.Emit(at(event.Event{Kind: event.NodeProgress, Node: "web/base", Done: 1 << 20, Unit: "bytes"}))
		time.Sleep(65 * time.Second)
		p.Emit(at(event.Event{Kind: event.NodeState, Node: "web/base", State: event.Done, ElapsedMS: 85000}))
		time.Sleep(time.Minute)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		want := `00:00:00 run r: 2 steps
00:00:00 [web/base] running
00:00:20 [web/base] unpacking
00:00:50 [web/base] still running after 50s, 1.0 MiB; last line: unpacking
00:01:20 [web/base] still running after 1m20s, 1.0 MiB; last line: unpacking
00:01:25 [web/base] done after 1m25s
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

func TestLookOf(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		terminal, noColor bool
		env               map[string]string
		want              Look
	}{
		{"terminal", true, false, map[string]string{"LANG": "en_GB.UTF-8"}, Look{Color: true, Unicode: true}},
		{"piped", false, false, map[string]string{"LANG": "en_GB.utf8"}, Look{Unicode: true}},
		{"no colour asked for", true, true, map[string]string{"LANG": "C.UTF-8"}, Look{Unicode: true}},
		{"NO_COLOR", true, false, map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, Look{Unicode: true}},
		{"NO_COLOR empty", true, false, map[string]string{"LANG": "C.UTF-8", "NO_COLOR": ""}, Look{Color: true, Unicode: true}},
		{"dumb terminal", true, false, map[string]string{"TERM": "dumb"}, Look{}},
		{"LC_ALL wins", true, false, map[string]string{"LC_ALL": "C", "LANG": "C.UTF-8"}, Look{Color: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := LookOf(tt.terminal, tt.noColor, func(name string) string { return tt.env[name] })
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, got, want string }{
		{"colours", clean("\x1b[1;31mred\x1b[0m"), "red"},
		{"window title", clean("\x1b]0;owned\aok \x1b]8;;http://x\x1b\\link"), "ok link"},
		{"8-bit sequences", clean("a\u009b31mb"), "ab"},
		{"unfinished sequence", clean("a\x1b[31"), "a"},
		{"lone escape", clean("a\x1b"), "a"},
		{"drawn over", clean("10%\r50%\r100%\r"), "100%"},
		{"tab", clean("a\tb"), "a b"},
		{"not UTF-8", clean("a\xffb"), "a\uFFFDb"},
		{"reordering", clean("a\u202egnp.exe"), "agnp.exe"},
		{"milliseconds", Span(49 * time.Millisecond), "0.0s"},
		{"tenths", Span(9949 * time.Millisecond), "9.9s"},
		{"seconds", Span(9950 * time.Millisecond), "10s"},
		{"rounds to a minute", Span(59900 * time.Millisecond), "1m00s"},
		{"hours", clock(3725 * time.Second), "1h02m"},
		{"small size", Size(1023), "1023 B"},
		{"size", Size(2 << 30), "2.0 GiB"},
		{"size just below a unit", Size(1<<30 - 1), "1.0 GiB"},
		{"largest size", Size(1<<63 - 1), "8.0 EiB"},
		{"quoting", quote([]string{"sh", "-c", "echo 'a b'", ""}), `sh -c 'echo '\''a b'\''' ''`},
		{"whole id", join(splitID("web")), "|web"},
		{"id", join(splitID("web/base")), "web|base"},
		{"slash in the matrix", join(splitID("web[path=a/b]/base")), "web[path=a/b]|base"},
		{"long command", shorten(strings.Repeat("é", 300)), strings.Repeat("é", 150) + " [200 bytes more] " + strings.Repeat("é", 50)},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}

func join(a, b string) string { return a + "|" + b }

// No text of a build's output can move the cursor or change the terminal.
func FuzzClean(f *testing.F) {
	data, err := os.ReadFile("testdata/wide.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(data), "\x1b[", "\x1b]", "\u009b", "\x1bP\x1b\\", "a\rb", "\xc2", "\x1b\xc2\x9b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		for _, r := range got {
			if r < ' ' || r >= 0x7f && r < 0xa0 || reorders(r) {
				t.Fatalf("clean(%q) = %q holds %U", s, got, r)
			}
		}
		if again := clean(got); again != got {
			t.Fatalf("clean(%q) = %q, but clean again gives %q", s, got, again)
		}
		if cut := fit(got, 10, "…"); cells.String(cut) > 10 {
			t.Fatalf("fit(%q, 10) = %q is wider", got, cut)
		}
	})
}
