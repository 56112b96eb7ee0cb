package connect

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

const bootIDFile = "/proc/sys/kernel/random/boot_id"

// attemptWithin bounds one look at a machine that is restarting.
const attemptWithin = 2 * time.Minute

// Reboot has the machine restarted by the given function, such as one that calls
// RebootInstances, and returns when commands run on it again. Whether it has restarted is
// seen by the kernel's id of the boot. Commands that were running fail.
func (m *Machine) Reboot(ctx context.Context, reboot func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.within, fmt.Errorf("it isn't back within %s", m.within))
	defer cancel()
	if err := m.reboot(ctx, reboot); err != nil {
		return fmt.Errorf("restart %s: %w", m.in.ID, err)
	}
	return nil
}

func (m *Machine) reboot(ctx context.Context, reboot func(context.Context) error) error {
	before, err := m.bootID(ctx)
	if err != nil {
		return err
	}
	if err := reboot(ctx); err != nil {
		return err
	}
	m.t.lost()
	for delay := time.Second; ; delay = min(delay*3/2, 10*time.Second) {
		attempt, stop := context.WithTimeout(ctx, attemptWithin)
		// An error is what a machine that restarts gives; ctx says for how long.
		now, err := m.bootID(attempt)
		stop()
		if err == nil && now != before {
			return nil
		}
		if err != nil {
			m.t.lost()
		}
		if waitErr := pause(ctx, delay); waitErr != nil {
			if err != nil {
				return fmt.Errorf("%w; the last try: %w", waitErr, err)
			}
			return waitErr
		}
	}
}

// bootID is what the kernel calls this boot.
func (m *Machine) bootID(ctx context.Context) (string, error) {
	var out bytes.Buffer
	err := m.Exec(ctx, step.Cmd{Argv: []string{"cat", bootIDFile}, Stdout: &out})
	return strings.TrimSpace(out.String()), err
}
