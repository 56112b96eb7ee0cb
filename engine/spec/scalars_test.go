package spec_test

import (
	"strings"
	"testing"

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
