package sdk

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// A step's output is sent when there is enough of it or when it has waited long enough: an
// event for each line would cost more than the lines.
const (
	flushSize = 32 << 10
	flushWait = 10 * time.Millisecond
	maxEvent  = 256 << 10
)

var errOver = errors.New("the step has ended: its log takes no more")

// events sends the events of one run. It is safe for concurrent use.
type events struct {
	mu      sync.Mutex
	send    func(*pluginv1.RunEvent) error
	log     []byte
	report  *pluginv1.Progress // the latest that isn't sent
	waiting bool               // a flush is to come
	over    bool
	err     error // of send
}

func newEvents(send func(*pluginv1.RunEvent) error) *events { return &events{send: send} }

// Write implements io.Writer: it is the step's log.
func (e *events) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return 0, errOver
	}
	e.log = append(e.log, p...)
	if len(e.log) >= flushSize {
		e.flush()
	} else {
		e.flushSoon()
	}
	if e.err != nil {
		return 0, e.err
	}
	return len(p), nil
}

// progress keeps the latest report of those that come while a flush is awaited.
func (e *events) progress(done, total int64, unit string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.report = &pluginv1.Progress{Done: done, Total: total, Unit: unit}
	e.flushSoon()
}

func (e *events) flushSoon() {
	if e.waiting {
		return
	}
	e.waiting = true
	time.AfterFunc(flushWait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.waiting = false
		if !e.over {
			e.flush()
		}
	})
}

// flush sends what there is. Its caller holds the lock, so a step that writes faster than
// gild reads waits here.
func (e *events) flush() {
	for rest := e.log; len(rest) > 0; {
		n := min(len(rest), maxEvent)
		e.emit(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Log{Log: rest[:n]}})
		rest = rest[n:]
	}
	e.log = e.log[:0]
	if e.report != nil {
		e.emit(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Progress{Progress: e.report}})
		e.report = nil
	}
}

func (e *events) emit(event *pluginv1.RunEvent) {
	if e.err == nil {
		e.err = e.send(event)
	}
}

// finish sends what is left and the result. Nothing is sent after it.
func (e *events) finish(r *pluginv1.Result) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flush()
	e.emit(&pluginv1.RunEvent{Event: &pluginv1.RunEvent_Result{Result: r}})
	e.over, e.log = true, nil
	return e.err
}

// guard calls f and turns a panic into an error, with the stack on stderr: the process
// serves other steps too.
func guard[T any](stderr io.Writer, f func() (T, error)) (result T, err error) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintf(stderr, "panic: %v\n\n%s", p, debug.Stack())
			err = &Permanent{Err: fmt.Errorf("the plugin panicked: %v (its stack is on the plugin's standard error)", p)}
		}
	}()
	return f()
}
