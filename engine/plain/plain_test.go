package plain_test

import (
	"testing"

	"github.com/gildhq/gild/engine/plain"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		is   bool
		text string
	}{
		"":                   {true, ""},
		"Größe, 大きさ \u00a0☃": {true, "Größe, 大きさ \u00a0☃"},
		"a\nb":               {true, "ab"}, // allowed below
		"a\tb":               {false, "ab"},
		"\x1b[2J":            {false, "[2J"},
		"\u009b2J":           {false, "2J"},
		"\x7f":               {false, ""},
		"a\u202eb":           {false, "ab"},
		"a\u2066b\u200f":     {false, "ab"},
		"a\u2028b\u2029":     {false, "ab"},
		"a\xffb":             {false, "ab"},
	} {
		if got := plain.Is(text, "\n"); got != want.is {
			t.Errorf("%q is plain: %v", text, got)
		}
		if got := plain.Text(text); got != want.text {
			t.Errorf("%q gives %q, want %q", text, got, want.text)
		}
	}
}
