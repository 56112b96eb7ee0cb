package scaffold

import (
	"errors"
	"testing"
)

func TestFetchable(t *testing.T) {
	t.Parallel()
	for version, ok := range map[string]bool{
		"v1.2.3":                              true,
		"v0.0.0-20261123061836-eae49a5f0a1b":  true,
		"v0.0.0-20261123061836-eae49a5+dirty": false,
		"(devel)":                             false,
		"":                                    false,
	} {
		got, err := fetchable(version)
		if ok && (err != nil || got != version) || !ok && !errors.Is(err, errDevelopment) {
			t.Errorf("%q: got %q, %v", version, got, err)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"./gild-plugin-motd": "./gild-plugin-motd",
		"it's here":          `'it'\''s here'`,
	} {
		if got := quote(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}
