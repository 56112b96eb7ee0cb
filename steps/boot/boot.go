package boot

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
	"github.com/gildhq/gild/steps/internal/poll"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "boot",
	Version:   "1",
	Summary:   "check that the image boots in time, with no failed unit",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("boot"),
	Outputs:   map[string]string{"seconds": "number"},
	Sections:  []step.Section{step.Tests},
	Effect:    step.Image,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Within counts from power on; nil means 120 s.
	Within *step.Duration `json:"within"`
	// Target is a unit; empty means multi-user.target.
	Target string `json:"target"`
	// AllowFailed are units that may fail.
	AllowFailed []string `json:"allow-failed"`
}

// Outputs are the step's results.
type Outputs struct {
	// Seconds from power on until systemd had nothing left to start.
	Seconds float64 `json:"seconds"`
}

const (
	defaultWithin = 120 * time.Second
	defaultTarget = "multi-user.target"
)

func run(ctx context.Context, t *step.Target, c Config) (Outputs, error) {
	guest, ok := t.Machine.(step.Guest)
	if !ok {
		return Outputs{}, &step.Permanent{Err: errors.New("the machine is no guest booted from the image")}
	}
	within := defaultWithin
	if c.Within != nil {
		within = c.Within.Duration
	}
	s := &system{guest: guest, log: t.Log}
	failed, err := poll.Until(ctx, guest.PoweredOn().Add(within), s.started)
	if err != nil {
		return Outputs{}, fmt.Errorf("wait for the system to start: %w", err)
	}
	if len(failed) > 0 {
		if err := s.describeStall(ctx); err != nil {
			return Outputs{}, err
		}
		return Outputs{}, &step.TestFailed{Checks: []string{fmt.Sprintf("%s after %s", failed[0], within)}}
	}
	took, err := s.bootTime(ctx)
	if err != nil {
		return Outputs{}, fmt.Errorf("ask how long the boot took: %w", err)
	}
	if took > within {
		failed = append(failed, fmt.Sprintf("the boot took %s, %s is allowed", took.Round(time.Second), within))
	}
	units, err := s.check(ctx, c)
	if err != nil {
		return Outputs{}, err
	}
	if failed = append(failed, units...); len(failed) > 0 {
		return Outputs{}, &step.TestFailed{Checks: failed}
	}
	fmt.Fprintf(t.Log, "started in %s, no unit failed\n", took.Round(time.Second/10))
	return Outputs{Seconds: took.Round(time.Second / 10).Seconds()}, nil
}

// check returns what is wrong with the units of a system that has started.
func (s *system) check(ctx context.Context, c Config) (failed []string, err error) {
	target := c.Target
	if target == "" {
		target = defaultTarget
	}
	active, err := s.systemctl(ctx, "is-active", "--", target)
	if err != nil {
		return nil, fmt.Errorf("ask whether %s is active: %w", target, err)
	}
	if active != "active" {
		failed = append(failed, fmt.Sprintf("%s is %s", target, active))
	}
	units, err := s.failedUnits(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for failed units: %w", err)
	}
	for _, unit := range units {
		if slices.Contains(c.AllowFailed, unit) {
			fmt.Fprintf(s.log, "unit %s failed, which is allowed\n", unit)
			continue
		}
		line, err := s.describeFailure(ctx, unit)
		if err != nil {
			return nil, err
		}
		failed = append(failed, line)
	}
	return failed, nil
}
