package sandbox

import (
	"io"
	"strings"
	"sync"
)

// tailSize is how much of what a child printed is kept, in bytes.
const tailSize = 16 << 10

// tail keeps the end of what is written to it and passes everything on to next.
type tail struct {
	next io.Writer // may be nil

	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.kept = append(t.kept, p...)
	if len(t.kept) > tailSize {
		t.kept = append([]byte(nil), t.kept[len(t.kept)-tailSize:]...)
	}
	t.mu.Unlock()
	if t.next == nil {
		return len(p), nil
	}
	return t.next.Write(p)
}

// gist is the one line that says most: why the program panicked, or the last.
func (t *tail) gist() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := ""
	for line := range strings.Lines(string(t.kept)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line
		}
		last = line
	}
	return last
}
