package lock_test

import (
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/lock"
)

func TestValidVersion(t *testing.T) {
	t.Parallel()
	for _, v := range []string{
		"0.0.0", "1.4.0", "10.20.30", "1.0.0-rc.1", "1.0.0-0", "1.0.0-0a", "1.0.0-01a", "1.0.0--", "1.0.0-x-y.7.z",
		"1.0.0+1", "1.0.0+001", "1.0.0-alpha+build.5", "1.0.0+a-b", "1.0.0+" + strings.Repeat("1", 58),
		"99999999999999999999.0.0",
	} {
		if !lock.ValidVersion(v) {
			t.Errorf("%q isn't valid", v)
		}
	}
	for _, v := range []string{
		"", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.00.0", "1.0.00", "1.0.0-", "1.0.0+", "1.0.0-.", "1.0.0-a..b",
		"1.0.0-01", "1.0.0-a.01", "1.0.0+a..b", "1.0.0+.", "1.0.0+a+b", "1.0.0-ä", " 1.0.0", "1.0.0\n", "-1.0.0", "1.0.0 ",
		"1.0.0+" + strings.Repeat("1", 59),
	} {
		if lock.ValidVersion(v) {
			t.Errorf("%q is valid", v)
		}
	}
}
