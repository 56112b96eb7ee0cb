package spec_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/spec"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	cases := []struct {
		text string
		want int64
		err  string
	}{
		{"2GiB", 2 << 30, ""},
		{"512MiB", 512 * mib, ""},
		{"1.5GiB", 1536 * mib, ""},
		{"64 KiB", 64 << 10, ""},
		{"1TiB", 1 << 40, ""},
		{"1TB", 1e12, ""},
		{"2GB", 2e9, ""},
		{"10MB", 1e7, ""},
		{"3kB", 3000, ""},
		{"0MiB", 0, ""},
		{"2048", 0, "has no unit"},
		{"2gib", 0, "write GiB"},
		{"2KB", 0, "write kB"},
		{"2G", 0, `has the unit "G"`},
		{"0.3KiB", 0, "not a whole number of bytes"},
		{"999999999999999TiB", 0, "too large"},
		{"", 0, "is not a size"},
		{"-1GiB", 0, "is not a size"},
		{"1e3MiB", 0, "is not a size"},
		{"GiB", 0, "is not a size"},
	}
	for _, c := range cases {
		t.Run(c.text, func(t *testing.T) {
			t.Parallel()
			got, err := spec.ParseSize(c.text)
			checkScalar(t, got, c.want, err, c.err)
		})
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	cases := []struct {
		text string
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
		{"5x", 0, `has the unit "x"`},
		{"30m1h", 0, "from large to small"},
		{"1h1h", 0, "each once"},
		{"99999999w", 0, "too long"},
		{"15250w7d", 0, "too long"},
		{"99999999999999999999s", 0, "too long"},
		{"", 0, "is not a duration"},
		{"-5m", 0, "is not a duration"},
		{"1.5h", 0, "is not a duration"},
		{"5 m", 0, "is not a duration"},
		{"soon", 0, "is not a duration"},
	}
	for _, c := range cases {
		t.Run(c.text, func(t *testing.T) {
			t.Parallel()
			got, err := spec.ParseDuration(c.text)
			checkScalar(t, got, c.want, err, c.err)
		})
	}
}

func checkScalar[T comparable](t *testing.T, got, want T, err error, wantErr string) {
	t.Helper()
	switch {
	case wantErr == "" && err != nil:
		t.Errorf("unexpected error: %v", err)
	case wantErr == "" && got != want:
		t.Errorf("got %v, want %v", got, want)
	case wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
		t.Errorf("error %v, want one with %q", err, wantErr)
	}
}

func TestSuggest(t *testing.T) {
	t.Parallel()
	known := []string{"timeout", "retry", "needs", "x86", "when"}
	cases := []struct{ name, got, want string }{
		{"two swapped", "tiemout", "timeout"},
		{"one left out", "timout", "timeout"},
		{"one added", "nneeds", "needs"},
		{"two changed", "netds", "needs"},
		{"too far", "tomato", ""},
		{"too short to tell", "ab", ""},
		{"half of it changed", "y87", ""},
		{"empty", "", ""},
		{"letters of more than one byte", "rétry", "retry"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := spec.Suggest(c.got, known); got != c.want {
				t.Errorf("Suggest(%q) = %q, want %q", c.got, got, c.want)
			}
		})
	}
}
