package sandbox_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/sandbox"
)

func TestWild(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"debian-12-*", "debian-12-amd64", true}, {"debian-12-*", "debian-13-amd64", false}, {"*", "", true}, {"", "", true}, {"", "a", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {`a\*c`, "a*c", true}, {`a\*c`, "abc", false}, {`\?`, "?", true}, {`\\`, `\`, true},
		{"*a*b", "xaxbxb", true}, {"*a*b", "xaxbx", false}, {"ü*", "übel", true}, {"A", "a", false},
	} {
		if got := sandbox.Wild(test.pattern, test.text); got != test.want {
			t.Errorf("%q matches %q: %v, want %v", test.pattern, test.text, got, test.want)
		}
	}
}

// FuzzWild holds the matcher against a regular expression that says the same.
func FuzzWild(f *testing.F) {
	f.Add("debian-*-amd64?", "debian-12-amd64x")
	f.Add(`a\*b**`, "a*bc")
	f.Add(`\`, `\`)
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 50 || len(text) > 200 || strings.ToValidUTF8(pattern, "") != pattern || strings.ToValidUTF8(text, "") != text {
			return
		}
		if got, want := sandbox.Wild(pattern, text), expression(pattern).MatchString(text); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, text, got, want)
		}
	})
}

func expression(pattern string) *regexp.Regexp {
	var b strings.Builder
	runes := []rune(pattern)
	for i := 0; i < len(runes); i++ {
		switch r := runes[i]; {
		case r == '*':
			b.WriteString("(?s:.*)")
		case r == '?':
			b.WriteString("(?s:.)")
		case r == '\\' && i+1 < len(runes):
			i++
			b.WriteString(regexp.QuoteMeta(string(runes[i])))
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	return regexp.MustCompile(`\A(?:` + b.String() + `)\z`)
}
