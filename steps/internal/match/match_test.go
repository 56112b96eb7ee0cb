package match_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gildhq/gild/steps/internal/match"
	"github.com/google/go-cmp/cmp"
)

func TestText(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		want, got string
		failed    []string
	}{
		"anything":     {`{}`, "x", nil},
		"equal":        {`{"equals": "x"}`, "x", nil},
		"equals empty": {`{"equals": ""}`, "x", []string{`stdout is "x", want ""`}},
		"one part":     {`{"contains": "b"}`, "abc", nil},
		"parts":        {`{"contains": ["b", "z", "y"]}`, "abc", []string{`stdout is "abc", which doesn't contain "z"`, `stdout is "abc", which doesn't contain "y"`}},
		"found":        {`{"matches": "(?m)^b$"}`, "a\nb\nc", nil},
		"not found":    {`{"matches": "^b$"}`, "abc", []string{`stdout is "abc", which doesn't match "^b$"`}},
		"long":         {`{"equals": ""}`, strings.Repeat("x", 199) + "éy", []string{`stdout is "` + strings.Repeat("x", 199) + `" and 3 bytes more, want ""`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want match.Text
			if err := json.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			failed, err := want.Check("stdout", tc.got)
			if d := cmp.Diff(tc.failed, failed); d != "" || err != nil {
				t.Errorf("error %v (-want +got)\n%s", err, d)
			}
		})
	}
}

func TestTextRefuses(t *testing.T) {
	t.Parallel()
	if failed, err := (match.Text{Matches: "("}).Check("stdout", "x"); err == nil || failed != nil {
		t.Errorf("a broken expression gave %q, %v", failed, err)
	}
	var s match.Strings
	if err := json.Unmarshal([]byte(`[1]`), &s); err == nil {
		t.Errorf("a number was read as the text %q", s)
	}
}
