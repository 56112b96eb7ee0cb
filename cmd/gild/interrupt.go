package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// interrupted is the cause of a context that a signal ended.
type interrupted struct{ signal os.Signal }

func (i *interrupted) Error() string {
	if i.signal == syscall.SIGINT {
		return "interrupted"
	}
	return "stopped by signal: " + i.signal.String()
}

// stoppable is what an interrupt needs to know of what it interrupts.
type stoppable interface {
	// Run is the run's id, empty before it has begun.
	Run() string
	// Running are the ids of the steps that are running.
	Running() []string
	// Say shows a sentence at once.
	Say(text string)
}

// interruptible returns a context that the first SIGINT, SIGTERM or SIGHUP cancels; the
// second ends gild at once. work may be nil. stop must be called.
func (a *app) interruptible(ctx context.Context, work stoppable) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case s := <-signals:
			if work != nil {
				work.Say(stopping(work))
			}
			cancel(&interrupted{s})
		}
		select {
		case <-done:
		case <-signals:
			if work != nil {
				work.Say(abandoning(work))
			}
			os.Exit(exitInterrupted)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

func stopping(work stoppable) string {
	running := work.Running()
	if len(running) == 0 {
		return "stopping; Ctrl-C again exits at once"
	}
	return fmt.Sprintf("stopping %s and removing what %s made; Ctrl-C again exits at once", strings.Join(running, ", "), itOrThey(running))
}

func abandoning(work stoppable) string {
	if work.Run() == "" {
		return "exited at once; nothing had been started"
	}
	left := ""
	if running := work.Running(); len(running) > 0 {
		left = fmt.Sprintf(": \"gild gc\" will find what %s made", strings.Join(running, ", "))
	}
	return fmt.Sprintf("exited at once%s; go on with \"gild resume %s\"", left, work.Run())
}

func itOrThey(names []string) string {
	if len(names) == 1 {
		return "it"
	}
	return "they"
}
