package hide_test

import (
	"strings"
	"testing"

	"github.com/gildhq/gild/plugins/internal/hide"
)

func TestText(t *testing.T) {
	t.Parallel()
	v := hide.Of(map[string]string{"A": "s3cret", "B": "secret", "KEY": "-----BEGIN-----\r\nabcdef\nyes\n", "C": "abc", "Q": `pa"ss`, "P": "aaaa"})
	for text, want := range map[string]string{
		"":                             "",
		"nothing":                      "nothing",
		"is s3cret, secret.":           "is ***, ***.",
		"s3cretsecret":                 "***",
		"-----BEGIN-----":              "***",
		"  abcdef":                     "  ***",
		"abc yes":                      "abc yes",
		`{"message":"is pa\"ss"}`:      `{"message":"is ***"}`,
		"baaaaaaab":                    "b***b",
		"-----BEGIN-----\r\nabcdef\nx": "***\r\n***\nx",
	} {
		if got := v.Text(text); got != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
	var none hide.Values
	if got := none.Text("secret"); got != "secret" || none.Longest() != 0 {
		t.Errorf("nothing to hide gives %q, %d", got, none.Longest())
	}
	if got := v.Longest(); got != len(`-----BEGIN-----\r\nabcdef\nyes\n`) {
		t.Errorf("the longest has %d bytes", got)
	}
}

// Wherever text is cut, no piece of a value is in what is shown.
func TestSlice(t *testing.T) {
	t.Parallel()
	const text = "one SECRETVALUE two SECRETVALUE three"
	v := hide.Of(map[string]string{"A": "SECRETVALUE"})
	for from := range len(text) {
		for to := from; to <= len(text); to++ {
			got := v.Slice(text, from, to)
			if strings.ContainsAny(got, "SECRTVALU") || len(got) > to-from+4 {
				t.Errorf("[%d:%d] is %q", from, to, got)
			}
		}
	}
}
