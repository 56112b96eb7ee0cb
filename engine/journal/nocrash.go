//go:build !crashtest

package journal

// crashPoint is where a test kills the process; in a normal build there is none.
type crashPoint struct{}

func newCrashPoint() (*crashPoint, error) { return nil, nil }
func (*crashPoint) batch(limit int) int   { return limit }
func (*crashPoint) before(int) error      { return nil }
func (*crashPoint) after() error          { return nil }
func (*crashPoint) report() error         { return nil }
