package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/plugins/internal/procs"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

const (
	// endTime is how long a plugin may take to end.
	endTime = 2 * time.Second
	// orphanTime is how long it may take to notice that gild is gone.
	orphanTime = 5 * time.Second
	// calls is how many are made, after some that let the plugin fill what it keeps.
	calls, warmUp = 100, 20
	// What may be more afterwards: garbage that waits, and a pool that grew.
	moreMemory, moreFiles = 32 << 20, 10
	// callsTime bounds the runs among the calls.
	callsTime = 20 * time.Second
)

func checkBounded(ctx context.Context, s *session) verdict {
	call, what := s.repeatable(ctx)
	for range warmUp {
		if err := call(); err != nil {
			return fails("%s: %v", what, err)
		}
	}
	before, err := readUsage(s.p.pid)
	if err != nil {
		return fails("%v", err)
	}
	for range calls {
		if err := call(); err != nil {
			return fails("%s: %v", what, err)
		}
	}
	var after usage
	// What a call opened may be closed a moment after its answer.
	calm := eventually(ctx, endTime, func() bool {
		after, err = readUsage(s.p.pid)
		return err != nil || after.files-before.files <= moreFiles && after.memory-before.memory <= moreMemory
	})
	switch {
	case err != nil:
		return fails("%v", err)
	case !calm:
		return fails("%d calls (%s) took it from %d MiB and %d open files to %d MiB and %d", calls, what,
			before.memory>>20, before.files, after.memory>>20, after.files)
	}
	return saw("%s: from %d MiB and %d open files to %d MiB and %d", what, before.memory>>20, before.files, after.memory>>20, after.files)
}

// repeatable finds what to do a hundred times: a run, if one is known and quick, else a question.
func (s *session) repeatable(ctx context.Context) (call func() error, what string) {
	for _, t := range s.described.GetSteps() {
		for _, f := range s.samples(t) {
			if f.RunsUntilCancelled || s.hung.Load() {
				continue
			}
			run := func() error {
				ctx, cancel := context.WithTimeout(ctx, runTime)
				defer cancel()
				j, _, err := s.job(t, f)
				if err == nil {
					s.do(ctx, s.p, j)
					err = ctx.Err()
				}
				return err
			}
			begin := time.Now()
			if err := run(); err == nil && time.Since(begin) < callsTime/(calls+warmUp) {
				return run, fmt.Sprintf("runs of %s", t.GetName())
			}
		}
	}
	return func() error {
		_, err := s.describe(ctx, s.p)
		return err
	}, "descriptions"
}

func checkInterrupt(ctx context.Context, s *session) verdict {
	return s.with(ctx, false, func(p *process) verdict {
		if err := p.interrupt(); err != nil {
			return fails("send it SIGINT: %v", err)
		}
		// The signal may be handled after a question that comes right behind it.
		if eventually(ctx, 300*time.Millisecond, func() bool { return !p.alive() }) {
			return fails("%v", p.explain(fmt.Errorf("SIGINT ends it; gild decides when a step stops")))
		}
		if _, err := s.describe(ctx, p); err != nil {
			return fails("after SIGINT: %v", err)
		}
		return holds()
	})
}

func checkShutdown(ctx context.Context, s *session) verdict {
	return s.with(ctx, false, func(p *process) verdict {
		begin := time.Now()
		if !p.shutdown(ctx, endTime) {
			return fails("it still runs %v after plugin.GRPCController.Shutdown", endTime)
		}
		return saw("in %v", time.Since(begin).Round(time.Millisecond))
	})
}

func checkOrphan(ctx context.Context, s *session) verdict {
	return s.with(ctx, true, func(p *process) verdict {
		begin := time.Now()
		if err := unix.Kill(p.pid, unix.SIGKILL); err != nil {
			return fails("end its parent: %v", err)
		}
		var left []int
		var err error
		if !eventually(ctx, orphanTime, func() bool {
			left, err = procs.Find(p.offspring)
			return err != nil || len(left) == 0
		}) {
			return fails("it still runs %v after its parent was killed; look at %s every second", orphanTime, pluginv1.ParentEnv)
		}
		if err != nil {
			return fails("%v", err)
		}
		return saw("in %v", time.Since(begin).Round(time.Millisecond))
	})
}

func checkLeftovers(ctx context.Context, s *session) verdict {
	return s.with(ctx, false, func(p *process) verdict {
		for _, t := range s.described.GetSteps() {
			for _, f := range s.samples(t) {
				if j, _, err := s.job(t, f); err == nil && !f.RunsUntilCancelled {
					s.do(ctx, p, j)
					break
				}
			}
		}
		tidy := p.shutdown(ctx, endTime)
		var left []int
		var err error
		eventually(ctx, endTime/2, func() bool {
			left, err = procs.Find(p.offspring)
			left = slices.DeleteFunc(left, func(pid int) bool { return pid == p.pid })
			return err != nil || len(left) == 0
		})
		if err != nil {
			return fails("%v", err)
		}
		var wrong []string
		for _, pid := range left {
			wrong = append(wrong, "the process "+commandLine(pid))
		}
		// One that had to be killed can't have removed its socket.
		if tidy {
			files, err := p.leftovers()
			if err != nil {
				return fails("look into its socket folder: %v", err)
			}
			for _, name := range files {
				wrong = append(wrong, "the file "+name)
			}
		}
		if len(wrong) > 0 {
			return fails("when it has ended, there is still\n%s", strings.Join(wrong, "\n"))
		}
		return holds()
	})
}

func checkStdout(_ context.Context, s *session) verdict {
	for _, p := range append(slices.Clone(s.ended), s.p) {
		text := string(p.stdout.Bytes())
		// What comes before the handshake is another check's.
		if _, after, _ := strings.Cut(text, p.handshake); after != "" {
			return fails("it printed %.200q after the handshake; send logs to standard error", after)
		}
	}
	return holds()
}

func checkSecrets(_ context.Context, s *session) verdict {
	status, seen := OK, map[string]bool{}
	var found []string
	for _, r := range s.runs {
		for name, value := range r.env {
			if len(value) < 4 {
				continue // too short to tell from chance
			}
			for where, text := range r.shown() {
				line := fmt.Sprintf("step %q: the value of %s is in its %s", r.step, name, where)
				if !strings.Contains(string(text), value) || seen[line] {
					continue
				}
				seen[line] = true
				found = append(found, line)
				if r.fixture == nil || !r.fixture.PrintsSecrets {
					status = Failed
				} else if status == OK {
					status = Warning
				}
			}
		}
	}
	for _, p := range append(slices.Clone(s.ended), s.p) {
		if strings.Contains(string(p.stderr.Bytes())+string(p.stdout.Bytes()), s.secret) {
			status = Failed
			found = append(found, "the value of "+secretEnv+" is on its standard error or output, where gild can't mask it")
			break
		}
	}
	slices.Sort(found)
	if len(s.runs) == 0 {
		return skips("nothing was run")
	}
	return verdict{status, strings.Join(found, "\n")}
}
