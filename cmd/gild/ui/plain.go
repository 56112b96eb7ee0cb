package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/event"
)

// heartbeatEvery is how long a running step may be silent before a line says that it
// still runs.
const heartbeatEvery = 30 * time.Second

// Plain writes one line per event, for CI logs and files: time, step, text. It never
// uses colours. It is an [event.Sink], safe for concurrent use.
type Plain struct {
	now func() time.Time

	mu    sync.Mutex
	out   io.Writer
	story Story
	heard time.Time // when the log was begun, or planning last told of
	err   error

	stop chan struct{}
	done chan struct{}
}

// NewPlain starts a plain log on out. The caller must call Close.
func NewPlain(out io.Writer, now func() time.Time) *Plain {
	p := &Plain{out: out, now: now, heard: now(), stop: make(chan struct{}), done: make(chan struct{})}
	go p.tick()
	return p
}

func (p *Plain) tick() {
	defer close(p.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-ticker.C:
			p.beat()
		}
	}
}

// beat tells of every running step that has been silent for long.
func (p *Plain) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if len(p.story.nodes) == 0 && now.Sub(p.heard) >= heartbeatEvery {
		p.heard = now
		p.write(now, "", "still planning")
	}
	for _, n := range p.story.nodes {
		if n.state != event.Running || now.Sub(n.heard) < heartbeatEvery {
			continue
		}
		n.heard = now
		text := "still running after " + clock(n.running(now))
		if done := n.progress.String(); done != "" {
			text += ", " + done
		}
		if n.lastLine != "" {
			text += "; last line: " + n.lastLine
		}
		p.write(now, n.ID, text)
	}
}

// Emit writes an event.
func (p *Plain) Emit(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.story.Emit(e)
	switch e.Kind {
	case event.RunStarted:
		p.write(e.Time, "", fmt.Sprintf("run %s: %s", e.Run, count(len(e.Graph), "step")))
	case event.NodeState:
		if text := stateLine(e, !p.story.node(e.Node).started.IsZero()); text != "" {
			p.write(e.Time, e.Node, text)
		}
	case event.NodeLog:
		p.write(e.Time, e.Node, clean(e.Text))
	case event.NodeUndone:
		p.write(e.Time, e.Node, undoneLine(e))
	case event.Notice:
		p.write(e.Time, "", clean(e.Text))
	case event.RunFinished:
		counts := painter{}.counts(p.story.tally)
		p.write(e.Time, "", strings.TrimSpace(fmt.Sprintf("run %s: %s in %s: %s", e.Run, e.State, Span(p.story.elapsed), counts)))
	}
}

// Say writes a sentence.
func (p *Plain) Say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(p.now(), "", clean(text))
}

// Run is the run's id; empty before it has begun.
func (p *Plain) Run() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.story.Run()
}

// Running lists the ids of the steps that are running.
func (p *Plain) Running() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.story.Running()
}

// Close ends the heartbeats. It returns the first error of writing.
func (p *Plain) Close() error {
	p.mu.Lock()
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.mu.Unlock()
	<-p.done
	return p.err
}

func (p *Plain) write(at time.Time, node, text string) {
	line := at.Format(time.TimeOnly) + " "
	if node != "" {
		line += "[" + clean(node) + "] "
	}
	if _, err := io.WriteString(p.out, strings.TrimRight(line+text, " ")+"\n"); err != nil && p.err == nil {
		p.err = fmt.Errorf("write the log: %w", err)
	}
}

// stateLine tells a change of state; empty for states that say nothing new. ran is whether
// the node ever ran, and so took time.
func stateLine(e event.Event, ran bool) string {
	text := stateWord(e.State)
	switch e.State {
	case event.Pending:
		return ""
	case event.Running:
		if e.Attempt > 1 {
			text = fmt.Sprintf("running, try %d", e.Attempt)
		}
	case event.Done, event.Failed, event.Undone, event.Cancelled:
		if ran {
			text += " after " + Span(time.Duration(e.ElapsedMS)*time.Millisecond)
		}
	}
	if e.Failure != nil {
		first, _, _ := strings.Cut(e.Failure.Error, "\n")
		return text + ": " + clean(first)
	}
	if e.Reason != "" {
		text += ": " + clean(e.Reason)
	}
	return text
}

func undoneLine(e event.Event) string {
	if e.Failure != nil {
		return couldNotRemove(undo{what: clean(e.Text), err: clean(e.Failure.Error)})
	}
	return "removed " + clean(e.Text)
}

func couldNotRemove(u undo) string { return fmt.Sprintf("could not remove %s: %s", u.what, u.err) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
