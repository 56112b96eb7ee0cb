package conformance

import (
	"bytes"
	"context"
	"sync"
)

// stream keeps what a process writes, up to a limit. Safe for concurrent use.
type stream struct {
	mu    sync.Mutex
	text  bytes.Buffer
	total int64
	// more is closed and replaced at each write.
	more chan struct{}
}

// keep is how many bytes of a stream are kept: the first ones, which hold the handshake,
// and far more than a plugin that behaves writes.
const keep = 4 << 20

func newStream() *stream { return &stream{more: make(chan struct{})} }

// Write implements io.Writer and never fails.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total += int64(len(p))
	s.text.Write(p[:min(len(p), max(0, keep-s.text.Len()))])
	close(s.more)
	s.more = make(chan struct{})
	return len(p), nil
}

// Bytes returns a copy of what was kept.
func (s *stream) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.text.Bytes())
}

// wait returns the first whole line for which ok says yes, with its newline. It fails when
// ctx ends or done is closed.
func (s *stream) wait(ctx context.Context, done <-chan struct{}, ok func(line []byte) bool) (string, error) {
	for {
		s.mu.Lock()
		text, more := bytes.Clone(s.text.Bytes()), s.more
		s.mu.Unlock()
		for line := range bytes.Lines(text) {
			if bytes.HasSuffix(line, []byte("\n")) && ok(line) {
				return string(line), nil
			}
		}
		select {
		case <-more:
		case <-done:
			return "", errEnded
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// lastLines returns the end of a text: at most n lines and 2 KiB.
func lastLines(text []byte, n int) string {
	text = bytes.TrimSpace(text[max(0, len(text)-2048):])
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
