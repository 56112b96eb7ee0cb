package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/host"
)

// checkHost lets gild's own host run the plugin: private copy, limits and all.
func checkHost(ctx context.Context, s *session) (v verdict) {
	h, err := host.New(host.Config{
		Dir: filepath.Join(s.dir, "host"), Store: s.store, Version: s.options.Version,
		Self: s.options.Self, Grace: s.options.Grace,
	})
	if err != nil {
		return fails("%v", err)
	}
	defer func() {
		if err := h.Close(); err != nil && v.status == OK {
			v = fails("%v", err)
		}
		// Each fault is told once, by the check that names it best.
		if v.status == Failed && s.broken {
			v = skips("gild can't run it, as was to be expected:\n%s", v.detail)
		}
	}()
	steps, err := h.Steps(ctx, s.content)
	if err != nil {
		return fails("%v", err)
	}
	n := 0
	for _, have := range steps {
		ran, err := s.hosted(ctx, have)
		if err != nil {
			return fails("step %q: %v", have.Name, err)
		}
		if ran {
			n++
		}
	}
	return saw("%d %s, %d of them run", len(steps), plural(len(steps), "step"), n)
}

var errNone = errors.New("none")

// hosted runs a sample of a step through gild's host and compares how it ends with how it
// ended before.
func (s *session) hosted(ctx context.Context, have step.Step) (ran bool, err error) {
	t := s.step(have.Name)
	if t == nil {
		return false, errors.New("it isn't in the description")
	}
	for _, f := range s.samples(t) {
		if f.RunsUntilCancelled || s.hung.Load() {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, runTime)
		defer cancel()
		before, _, err := s.job(t, f)
		if err != nil {
			return false, err
		}
		after, _, err := s.job(t, f)
		if err != nil {
			return false, err
		}
		want, _ := s.do(ctx, s.p, before).outcome()
		if want == "" {
			return false, nil // told by another check
		}
		target, _ := after.target()
		_, err = have.Run(ctx, target, after.config)
		if got := outcomeOf(err); got != want {
			return true, fmt.Errorf("run by gild's host it %s, and on its own it %s; the host's error is %w", past(got), past(want), cmp.Or(err, errNone))
		}
		return true, nil
	}
	return false, nil
}

// outcomeOf is the outcome that an error of a step stands for.
func outcomeOf(err error) outcome {
	var perm *step.Permanent
	var test *step.TestFailed
	var skip *step.Skipped
	switch {
	case err == nil:
		return succeeded
	case errors.As(err, &skip):
		return skipped
	case errors.As(err, &test):
		return testFailed
	case errors.As(err, &perm):
		return permanent
	}
	return failed
}
