package spec

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

var sizeUnits = map[string]int64{
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

var sizeText = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]*)$`)

// ParseSize reads a size such as "512MiB", "1.5GiB" or "2GB" and returns it in bytes.
// The units are KiB, MiB, GiB and TiB (powers of 1024), and kB, MB, GB and TB (powers
// of 1000); a size without a unit is an error.
func ParseSize(text string) (int64, error) {
	m := sizeText.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size such as 512MiB or 2GiB", text)
	}
	if m[2] == "" {
		return 0, fmt.Errorf("the size %q has no unit, such as MiB or GiB", text)
	}
	unit, ok := sizeUnits[m[2]]
	if !ok {
		known := []string{"KiB", "MiB", "GiB", "TiB", "kB", "MB", "GB", "TB"}
		for _, k := range known {
			if strings.EqualFold(k, m[2]) {
				return 0, fmt.Errorf("the size %q has the unit %q; write %s", text, m[2], k)
			}
		}
		return 0, fmt.Errorf("the size %q has the unit %q; units are %s", text, m[2], strings.Join(known, ", "))
	}
	n, _ := new(big.Rat).SetString(m[1])
	n.Mul(n, new(big.Rat).SetInt64(unit))
	if !n.IsInt() {
		return 0, fmt.Errorf("the size %q is not a whole number of bytes", text)
	}
	if !n.Num().IsInt64() {
		return 0, fmt.Errorf("the size %q is too large", text)
	}
	return n.Num().Int64(), nil
}

var semver = regexp.MustCompile(`^(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})\.(0|[1-9]\d{0,17})` +
	`(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
	`(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?$`)

func checkSemver(text string) error {
	if !semver.MatchString(text) || len(text) > 64 {
		return fmt.Errorf("%q is not a semantic version such as 1.4.0", text)
	}
	return nil
}

func parseDate(text string) (time.Time, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a date such as 2027-06-30", text)
	}
	return t, nil
}

func checkRegexp(text string) error {
	if _, err := regexp.Compile(text); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return nil
}

// formats are the schema formats that are checked here rather than by the schema
// library, each with the code of its diagnostic.
var formats = map[string]struct {
	code  string
	check func(string) error
}{
	"gild-size":     {"bad-size", func(s string) error { _, err := ParseSize(s); return err }},
	"gild-duration": {"bad-duration", func(s string) error { _, err := step.ParseDuration(s); return err }},
	"gild-semver":   {"bad-release", checkSemver},
	"gild-date":     {"bad-date", func(s string) error { _, err := parseDate(s); return err }},
	"gild-regexp":   {"bad-pattern", checkRegexp},
}
