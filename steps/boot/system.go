package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/gildhq/gild/engine/step"
)

// system asks the guest's systemd.
type system struct {
	guest step.Guest
	log   io.Writer
}

// systemctl returns what it prints, whatever its exit status: that repeats the answer.
func (s *system) systemctl(ctx context.Context, args ...string) (string, error) {
	return s.output(ctx, append([]string{"systemctl", "--no-pager"}, args...)...)
}

// output runs a command that is a question; an exit status other than 0 is an answer too.
func (s *system) output(ctx context.Context, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := s.guest.Exec(ctx, step.Cmd{Argv: argv, Env: map[string]string{"LC_ALL": "C", "SYSTEMD_COLORS": "0"}, Stdout: &stdout, Stderr: &stderr})
	var exit *step.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	if stdout.Len() == 0 && stderr.Len() > 0 {
		fmt.Fprintf(s.log, "%s: %s\n", argv[0], printable(stderr.String()))
	}
	return printable(strings.TrimSpace(stdout.String())), nil
}

// printable drops the control characters of a text that the image decides on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

// started reports a failed check until the system has nothing left to start.
func (s *system) started(ctx context.Context) ([]string, error) {
	state, err := s.systemctl(ctx, "is-system-running")
	if err != nil {
		return nil, err
	}
	switch state {
	case "running", "degraded":
		return nil, nil
	case "":
		return []string{"systemd gives no answer"}, nil
	default:
		return []string{fmt.Sprintf("the system is still %s", state)}, nil
	}
}

// bootTime is the time from power on until systemd finished. It is worked out from the
// guest's own account of when that was, because this test may not be the first to run.
func (s *system) bootTime(ctx context.Context) (time.Duration, error) {
	uptime, err := s.output(ctx, "cat", "/proc/uptime")
	if err != nil {
		return 0, err
	}
	now := time.Now()
	up, _, _ := strings.Cut(uptime, " ")
	seconds, err := strconv.ParseFloat(up, 64)
	if err != nil {
		return 0, fmt.Errorf("read the guest's uptime: %w", err)
	}
	text, err := s.systemctl(ctx, "show", "--property=FinishTimestampMonotonic", "--value")
	if err != nil {
		return 0, err
	}
	finish, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read when systemd finished: %w", err)
	}
	since := time.Duration(seconds*float64(time.Second)) - time.Duration(finish)*time.Microsecond
	return max(0, now.Sub(s.guest.PoweredOn())-since), nil
}

// failedUnits lists the units that are in the state failed.
func (s *system) failedUnits(ctx context.Context) ([]string, error) {
	list, err := s.systemctl(ctx, "list-units", "--state=failed", "--all", "--plain", "--no-legend", "--full")
	if err != nil {
		return nil, err
	}
	var units []string
	for line := range strings.Lines(list) {
		if fields := strings.Fields(line); len(fields) > 0 {
			units = append(units, fields[0])
		}
	}
	return units, nil
}

// describeFailure logs a failed unit's status and returns one line on it.
func (s *system) describeFailure(ctx context.Context, unit string) (string, error) {
	status, err := s.systemctl(ctx, "status", "--full", "--lines=20", "--", unit)
	if err != nil {
		return "", fmt.Errorf("ask for the status of %s: %w", unit, err)
	}
	fmt.Fprintln(s.log, status)
	result, err := s.systemctl(ctx, "show", "--property=Result", "--value", "--", unit)
	if err != nil {
		return "", fmt.Errorf("ask why %s failed: %w", unit, err)
	}
	line := fmt.Sprintf("unit %s failed: %s", unit, result)
	if last := status[strings.LastIndexByte(status, '\n')+1:]; last != status {
		line += ": " + strings.TrimSpace(last)
	}
	return line, nil
}

// describeStall logs what the system is waiting for.
func (s *system) describeStall(ctx context.Context) error {
	jobs, err := s.systemctl(ctx, "list-jobs", "--no-legend", "--full")
	if err != nil {
		return fmt.Errorf("ask what the system is waiting for: %w", err)
	}
	fmt.Fprintf(s.log, "unfinished jobs:\n%s\nend of the console:\n%s\n", jobs, s.guest.Console())
	return nil
}
