package wire

import (
	"encoding/base64"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// problem is one thing wrong with a request. The protocol words it.
type problem struct {
	kind problemKind
	path string // of the member, as the client wrote it
	got  string // the value as text
	want string // the constraint
}

type problemKind int

const (
	missing problemKind = iota + 1 // a required member isn't there
	unknown                        // the model has no such member
	wrong                          // not of the member's type
	outside                        // of the type, but breaks a constraint
)

func unescape(s string) (string, error) { return url.QueryUnescape(s) }

// scalar reads a value from text. want is why it can't be read.
func scalar(s *shape, text string) (v any, want string) {
	switch s.kind {
	case "string":
		return text, ""
	case "integer", "long":
		bits := 64
		if s.kind == "integer" {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return nil, "is not an integer of " + strconv.Itoa(bits) + " bits"
		}
		return n, ""
	case "double", "float":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, "is not a number"
		}
		return n, ""
	case "boolean":
		switch strings.ToLower(text) {
		case "true":
			return true, ""
		case "false":
			return false, ""
		}
		return nil, "is not true or false"
	case "timestamp":
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02", "20060102T150405Z"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at.UTC(), ""
			}
		}
		if seconds, err := strconv.ParseFloat(text, 64); err == nil {
			return epoch(seconds)
		}
		return nil, "is not a time"
	case "blob":
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, "is not base64"
		}
		return data, ""
	}
	return nil, "has no type " + s.kind
}

// epoch is a time from seconds since 1970, to the millisecond, in the years that can be
// written with four digits.
func epoch(seconds float64) (any, string) {
	if !(math.Abs(seconds) < 1<<37) {
		return nil, "is not a time"
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), ""
}
