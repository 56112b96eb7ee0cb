package step

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as the language writes it, such as "90s", "5m" or "180d".
// It is never negative; the zero value is no time at all.
type Duration struct{ time.Duration }

// ParseDuration reads what [time.ParseDuration] reads, and days ("90d") and weeks ("2w")
// of 24 hours each, alone or in front of the rest ("1d12h"). A sign is an error.
func ParseDuration(s string) (time.Duration, error) {
	total, rest := time.Duration(0), s
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		digits, after, found := strings.Cut(rest, unit.letter)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || time.Duration(n) > (math.MaxInt64-total)/unit.length {
			return 0, badDuration(s)
		}
		total, rest = total+time.Duration(n)*unit.length, after
	}
	if rest == "" && rest != s {
		return total, nil
	}
	if strings.ContainsAny(rest, "+-") {
		return 0, badDuration(s)
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d > math.MaxInt64-total {
		return 0, badDuration(s)
	}
	return total + d, nil
}

func badDuration(s string) error {
	return fmt.Errorf("%q is not a duration: write it like \"90s\", \"5m\", \"12h\", \"30d\" or \"2w\"", s)
}

// UnmarshalJSON reads a string in the form of [ParseDuration].
func (d *Duration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("a duration is a string like \"5m\": %w", err)
	}
	v, err := ParseDuration(s)
	if err != nil {
		return err
	}
	d.Duration = v
	return nil
}

// MarshalJSON writes a string that UnmarshalJSON reads back.
func (d Duration) MarshalJSON() ([]byte, error) {
	return json.Marshal(d.String())
}
