package sqlite

import (
	"math"
	"time"
)

// FromTime is how times are stored: nanoseconds since 1970 UTC, 0 for the zero time. Times that
// don't fit (after the year 2261) become the latest that does.
func FromTime(t time.Time) int64 {
	switch {
	case t.IsZero():
		return 0
	case t.Year() > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

// ToTime is the inverse of [FromTime], in UTC.
func ToTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
