// Package capture passes a command's output on to a log and keeps the end of it, so
// that a step can say why a command failed or return what it printed.
package capture

import (
	"io"
	"sync"
)

// Output is a command's output. Make one with [New]; its writers may be used at once.
type Output struct {
	mu    sync.Mutex
	log   io.Writer
	limit int

	stdout, stderr, both tail
}

// New returns an Output that passes everything on to log and keeps the last limit bytes
// of each stream, and of both together.
func New(log io.Writer, limit int) *Output { return &Output{log: log, limit: limit} }

// Stdout is the writer for the command's standard output.
func (o *Output) Stdout() io.Writer { return stream{o, &o.stdout} }

// Stderr is the writer for the command's standard error.
func (o *Output) Stderr() io.Writer { return stream{o, &o.stderr} }

// StdoutText returns the end of the standard output.
func (o *Output) StdoutText() string { return o.text(&o.stdout) }

// StderrText returns the end of the standard error.
func (o *Output) StderrText() string { return o.text(&o.stderr) }

// Text returns the end of both streams, in the order in which it came.
func (o *Output) Text() string { return o.text(&o.both) }

func (o *Output) text(t *tail) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(t.data)
}

type stream struct {
	o   *Output
	own *tail
}

// Write implements io.Writer. The error is the log's.
func (s stream) Write(p []byte) (int, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	s.o.both.add(p, s.o.limit)
	s.own.add(p, s.o.limit)
	return s.o.log.Write(p)
}

// tail is the end of a stream.
type tail struct{ data []byte }

func (t *tail) add(p []byte, limit int) {
	t.data = append(t.data, p[max(0, len(p)-limit):]...)
	if extra := len(t.data) - limit; extra > 0 {
		t.data = t.data[:copy(t.data, t.data[extra:])]
	}
}
