package step_test

import (
	"encoding/json"
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
	}{
		{"0", 0},
		{"90s", 90 * time.Second},
		{"1m30s", 90 * time.Second},
		{"90d", 90 * day},
		{"2w", 14 * day},
		{"1w1d", 8 * day},
		{"1d12h", 36 * time.Hour},
		{"500ms", 500 * time.Millisecond},
	} {
		got, err := step.ParseDuration(tc.in)
		if err != nil || got != tc.want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", tc.in, got, err, tc.want)
		}
	}
}

func TestParseDurationRefuses(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "5", "d", "-5m", "+5m", "-1d", "1d-2h", "1.5d", "1d1w", "5 m", "ten", "99999999999d", "106751d24h", "4294967295w"} {
		if got, err := step.ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", in, got)
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
