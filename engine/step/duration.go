package step

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

// Duration is a length of time as the language writes it, such as "90s", "5m" or "180d".
// It is never negative; the zero value is no time at all.
type Duration struct{ time.Duration }

var durationUnits = []struct {
	name string
	unit time.Duration
}{
	{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second},
}

var (
	durationText = regexp.MustCompile(`^(?:[0-9]+[a-zA-Z]*)+$`)
	durationPart = regexp.MustCompile(`([0-9]+)([a-zA-Z]*)`)
)

// ParseDuration reads a duration such as "30s", "5m", "1h30m" or "90d". The units are
// w, d, h, m and s, largest first and each at most once; a day is 24 hours. A duration
// without a unit is an error.
func ParseDuration(text string) (time.Duration, error) {
	if !durationText.MatchString(text) {
		return 0, fmt.Errorf("%q is not a duration such as 30s, 5m, 1h30m or 90d", text)
	}
	var total time.Duration
	next := 0
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		i, err := durationUnit(text, part[2], next)
		if err != nil {
			return 0, err
		}
		next = i + 1
		n, err := strconv.ParseInt(part[1], 10, 64)
		unit := durationUnits[i].unit
		if err != nil || n > (math.MaxInt64-int64(total))/int64(unit) {
			return 0, fmt.Errorf("the duration %q is too long", text)
		}
		total += time.Duration(n) * unit
	}
	return total, nil
}

// durationUnit returns the index of a unit that must not come before next.
func durationUnit(text, name string, next int) (int, error) {
	if name == "" {
		return 0, fmt.Errorf("the duration %q has no unit: s, m, h, d or w", text)
	}
	for i, u := range durationUnits {
		if u.name != name {
			continue
		}
		if i < next {
			return 0, fmt.Errorf("the duration %q must have its units from large to small, each once", text)
		}
		return i, nil
	}
	return 0, fmt.Errorf("the duration %q has the unit %q; units are s, m, h, d and w", text, name)
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
