package step_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, tc := range []struct {
		in   string
		want time.Duration
		err  string
	}{
		{"30s", 30 * time.Second, ""},
		{"5m", 5 * time.Minute, ""},
		{"1h30m", 90 * time.Minute, ""},
		{"90d", 90 * day, ""},
		{"1w2d3h4m5s", 9*day + 3*time.Hour + 4*time.Minute + 5*time.Second, ""},
		{"0s", 0, ""},
		{"5", 0, "has no unit"},
		{"1h30", 0, "has no unit"},
		{"5min", 0, `has the unit "min"`},
		{"500ms", 0, `has the unit "ms"`},
		{"30m1h", 0, "from large to small"},
		{"1h1h", 0, "each once"},
		{"99999999w", 0, "too long"},
		{"15250w7d", 0, "too long"},
		{"99999999999999999999s", 0, "too long"},
		{"", 0, "is not a duration"},
		{"d", 0, "is not a duration"},
		{"-5m", 0, "is not a duration"},
		{"1.5h", 0, "is not a duration"},
		{"5 m", 0, "is not a duration"},
		{"soon", 0, "is not a duration"},
	} {
		got, err := step.ParseDuration(tc.in)
		switch {
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", tc.in, got, err, tc.want)
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("ParseDuration(%q): error %v, want one with %q", tc.in, err, tc.err)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"90d", "1w1d1h", "5m", "-1s", "1.5h", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := step.ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("ParseDuration(%q) = %v, which is negative", s, d)
		}
		again, err := step.ParseDuration(d.String())
		if err != nil || again != d {
			t.Fatalf("ParseDuration(%q) = %v, whose text reads back as %v, %v", s, d, again, err)
		}
	})
}

func TestDurationJSON(t *testing.T) {
	t.Parallel()
	var d step.Duration
	if err := json.Unmarshal([]byte(`"90d"`), &d); err != nil || d.Duration != 90*24*time.Hour {
		t.Fatalf("unmarshal: %v, %v", d, err)
	}
	text, err := json.Marshal(d)
	if err != nil || string(text) != `"2160h0m0s"` {
		t.Errorf("marshal: %s, %v", text, err)
	}
	if err := json.Unmarshal([]byte(`90`), &d); err == nil {
		t.Error("a number was accepted as a duration")
	}
}
