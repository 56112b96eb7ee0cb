// Package match compares a text with what a test asks of it and words the difference.
package match

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/step"
)

// Text is what a text must be. The zero Text is met by any.
type Text struct {
	// Equals is the whole text; nil asks for nothing.
	Equals *string `json:"equals"`
	// Contains are parts of it.
	Contains Strings `json:"contains"`
	// Matches is a regular expression that is found in it; empty asks for nothing.
	Matches string `json:"matches"`
}

// Check returns what of want isn't so, one line each, beginning with name. The error is a
// regular expression that doesn't compile, which no retry can mend.
func (want Text) Check(name, got string) (failed []string, err error) {
	if want.Equals != nil && got != *want.Equals {
		failed = append(failed, fmt.Sprintf("%s is %s, want %s", name, quote(got), quote(*want.Equals)))
	}
	failed = append(failed, want.Contains.Missing(name, got)...)
	if want.Matches == "" {
		return failed, nil
	}
	re, err := regexp.Compile(want.Matches)
	if err != nil {
		return nil, &step.Permanent{Err: fmt.Errorf("%s: %w", name, err)}
	}
	if !re.MatchString(got) {
		failed = append(failed, fmt.Sprintf("%s is %s, which doesn't match %q", name, quote(got), want.Matches))
	}
	return failed, nil
}

// Strings is a list in a config that may be written as a single string.
type Strings []string

// UnmarshalJSON reads a string or a list of strings.
func (s *Strings) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*s = Strings{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("want a text or a list of texts: %w", err)
	}
	*s = list
	return nil
}

// Missing returns a line for each part that got doesn't contain.
func (s Strings) Missing(name, got string) []string {
	var failed []string
	for _, part := range s {
		if !strings.Contains(got, part) {
			failed = append(failed, fmt.Sprintf("%s is %s, which doesn't contain %q", name, quote(got), part))
		}
	}
	return failed
}

// maxQuoted is how many bytes of a text a message shows.
const maxQuoted = 200

func quote(s string) string {
	if len(s) <= maxQuoted {
		return fmt.Sprintf("%q", s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q and %d bytes more", s[:cut], len(s)-cut)
}
