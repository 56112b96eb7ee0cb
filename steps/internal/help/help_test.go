package help_test

import (
	"testing"

	"github.com/gildhq/gild/steps/internal/help"
)

func TestText(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want string }{
		"comment":         {"// Package x does y.\n//\n//\ttests:\n//\t  - uses: x\npackage x\n", "Package x does y.\n\n\ttests:\n\t  - uses: x\n"},
		"licence above":   {"// Copyright\n\n// Package x does y.\npackage x\n", "Package x does y.\n"},
		"no comment":      {"package x\n", ""},
		"detached":        {"// Copyright\n\npackage x\n", ""},
		"no package line": {"// text\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := help.Text(tc.in); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
