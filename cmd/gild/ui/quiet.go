package ui

import (
	"fmt"
	"io"
	"sync"

	"github.com/gildhq/gild/engine/event"
)

// Quiet shows nothing of a run but sentences that must be said. It is an [event.Sink],
// safe for concurrent use.
type Quiet struct {
	mu    sync.Mutex
	out   io.Writer
	story Story
	err   error
}

// NewQuiet says what must be said on out.
func NewQuiet(out io.Writer) *Quiet { return &Quiet{out: out} }

// Emit remembers an event.
func (q *Quiet) Emit(e event.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.story.Emit(e)
}

// Say writes a sentence.
func (q *Quiet) Say(text string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, err := fmt.Fprintln(q.out, clean(text)); err != nil && q.err == nil {
		q.err = fmt.Errorf("write to standard error: %w", err)
	}
}

// Run is the run's id; empty before it has begun.
func (q *Quiet) Run() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.story.Run()
}

// Running lists the ids of the steps that are running.
func (q *Quiet) Running() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.story.Running()
}

// Close returns the first error of writing.
func (q *Quiet) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}
