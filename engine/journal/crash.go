//go:build crashtest

package journal

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// crashPoint kills the process with SIGKILL at the Nth record it commits, for tests of what
// is left then. GILD_CRASH_AT is N, counting from 1 in each journal; GILD_CRASH_WHEN is
// "before" or "after" the commit; GILD_CRASH_COUNT names a file that gets the number of
// records written when the journal is closed. Each record is a transaction of its own.
type crashPoint struct {
	at, count int
	when      string
	file      string
}

func newCrashPoint() (*crashPoint, error) {
	c := &crashPoint{when: os.Getenv("GILD_CRASH_WHEN"), file: os.Getenv("GILD_CRASH_COUNT")}
	at := os.Getenv("GILD_CRASH_AT")
	if at == "" {
		return c, nil
	}
	var err error
	if c.at, err = strconv.Atoi(at); err != nil || c.at < 1 {
		return nil, fmt.Errorf("GILD_CRASH_AT=%q: want a number from 1", at)
	}
	if c.when != "before" && c.when != "after" {
		return nil, fmt.Errorf("GILD_CRASH_WHEN=%q: want before or after", c.when)
	}
	return c, nil
}

// batch makes each record a transaction, so that every one is a point to crash at.
func (c *crashPoint) batch(int) int { return 1 }

func (c *crashPoint) before(records int) error {
	c.count += records
	return c.kill("before")
}

func (c *crashPoint) after() error { return c.kill("after") }

func (c *crashPoint) kill(when string) error {
	if c.count != c.at || c.when != when {
		return nil
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		return fmt.Errorf("crash test: %w", err)
	}
	select {}
}

// report writes the number of records.
func (c *crashPoint) report() error {
	if c.file == "" {
		return nil
	}
	return os.WriteFile(c.file, []byte(strconv.Itoa(c.count)+"\n"), 0o600)
}
