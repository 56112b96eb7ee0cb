package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
)

const (
	// maxOut and maxErr are how many characters of a stream are kept, as SSM does.
	maxOut = 24_000
	maxErr = 8_000
	// cutMark ends what was cut.
	cutMark = "\n---Output truncated---"
	// agentWorkers is how many commands the agent runs at a time.
	agentWorkers = 5
	// agentDir is where a command without a working directory runs.
	agentDir = "/usr/bin"
	// deliveryPoll is how often a command that waits for its instance looks whether it is there.
	deliveryPoll = 50 * time.Millisecond
)

// startInvocation delivers and runs a command on an instance, in the background. It needs
// the lock.
func (s *Server) startInvocation(cmd *command, inv *invocation) {
	id, key := inv.Instance, inv.id()
	c := *cmd
	s.background(func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s.mu.Lock()
		s.invoked[key] = cancel
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.invoked, key)
		}()
		m := s.deliver(ctx, &c, key, id)
		if m == nil {
			return
		}
		s.runInvocation(ctx, &c, key, id, m)
	})
}

// deliver waits until the agent of an instance takes a command, and returns its machine. It
// returns nil when the command was cancelled, or its time is over.
func (s *Server) deliver(ctx context.Context, cmd *command, key, id string) Machine {
	tick := time.NewTicker(deliveryPoll)
	defer tick.Stop()
	for {
		var m Machine
		waiting := false
		s.record(func() { m, waiting = s.tryDeliver(cmd, key, id) })
		if !waiting {
			return m
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tryDeliver hands a command to an instance if its agent runs, and tells whether to go on
// waiting if it doesn't.
func (s *Server) tryDeliver(cmd *command, key, id string) (m Machine, waiting bool) {
	inv, i, now := s.invocations.get(key), s.instances.get(id), s.now()
	if inv == nil || inv.Status != "Pending" {
		return nil, false
	}
	switch {
	case i == nil || !i.alive():
		inv.Status, inv.Details, inv.Ended = "Failed", "Terminated", now
	case s.agentRuns(i) && s.working[id] < agentWorkers:
		s.working[id]++
		inv.Status, inv.Details, inv.Started = "InProgress", "InProgress", now
		m = s.machine(id)
	case now.Sub(cmd.Requested) >= time.Duration(cmd.Timeout)*time.Second:
		inv.Status, inv.Details, inv.Ended = "TimedOut", "DeliveryTimedOut", now
	default:
		return nil, true
	}
	s.invocations.put(key, inv)
	return m, false
}

// wrapper stands for the agent: it keeps the script where the agent does and runs it in the
// working directory, with an environment as bare as that of a system service.
const wrapper = `umask 077
mkdir -p "$1" && cat >"$1/_script.sh" && chmod 0700 "$1/_script.sh" && cd "$2" || exit 1
unset HOME LANG
AWS_SSM_INSTANCE_ID=$3 AWS_SSM_REGION_NAME=$4
export AWS_SSM_INSTANCE_ID AWS_SSM_REGION_NAME
umask 022
exec sh -c "$1/_script.sh" </dev/null`

func (s *Server) runInvocation(ctx context.Context, cmd *command, key, id string, m Machine) {
	limit := time.Duration(cmd.Seconds) * time.Second
	running, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	dir := cmd.Dir
	if dir == "" {
		dir = agentDir
	}
	kept := path.Join("/var/lib/amazon/ssm", id, "document/orchestration", cmd.ID, "awsrunShellScript/0.awsrunShellScript")
	var out, errs bytes.Buffer
	// A character has at most four bytes; one more than is kept tells that there were more.
	stdout, stderr := &limited{to: &out, left: 4 * (maxOut + 1)}, &limited{to: &errs, left: 4 * (maxErr + 1)}
	err := m.Exec(running, step.Cmd{
		Argv:  []string{"/bin/sh", "-c", wrapper, "sh", kept, dir, id, cmd.Region},
		Dir:   "/",
		Stdin: strings.NewReader(strings.Join(cmd.Lines, "\n") + "\n"), Stdout: stdout, Stderr: stderr,
	})
	s.record(func() {
		if s.working[id]--; s.working[id] == 0 {
			delete(s.working, id)
		}
		inv := s.invocations.get(key)
		if inv == nil {
			return
		}
		inv.Ended = s.now()
		var exit *step.ExitError
		switch {
		case inv.Status == "Cancelling":
			inv.Status, inv.Details, inv.Code = "Cancelled", "Cancelled", -1
		case errors.Is(running.Err(), context.DeadlineExceeded):
			inv.Status, inv.Details, inv.Code = "TimedOut", "ExecutionTimedOut", -1
		case err == nil:
			inv.Status, inv.Details, inv.Code = "Success", "Success", 0
			inv.keep(out.String(), errs.String())
		case errors.As(err, &exit):
			inv.Status, inv.Details, inv.Code = "Failed", "Failed", int64(exit.Status)
			inv.keep(out.String(), errs.String()+fmt.Sprintf("failed to run commands: exit status %d", exit.Status))
		default:
			// The machine ended, or its agent: what the command did isn't known.
			inv.Status, inv.Details, inv.Code = "Failed", "Failed", -1
			if ctx.Err() == nil {
				s.cfg.Log.Info("sandbox: a command was cut off", "command", cmd.ID, "instance", id, "error", err)
			}
		}
		s.invocations.put(key, inv)
	})
}

// keep stores as much of the output as SSM shows.
func (inv *invocation) keep(out, errs string) {
	inv.Out, inv.Err = shorten(out, maxOut), shorten(errs, maxErr)
}

// shorten cuts a text to a number of characters, the mark that it was cut included.
func shorten(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	r := []rune(text)
	if len(r) <= limit {
		return text
	}
	return string(r[:limit-len(cutMark)]) + cutMark
}

// endLostInvocations ends what a dead sandbox left unfinished: nobody will ever know.
func (s *Server) endLostInvocations() {
	for key, inv := range s.invocations.all {
		if !inv.over() {
			inv.Status, inv.Details, inv.Ended = "Failed", "Failed", s.now()
			s.invocations.put(key, inv)
		}
	}
}
