package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strings"
)

// maxEvent bounds one line of the callback plugin, in bytes.
const maxEvent = 64 << 10

// counts are how many tasks ended in which way, and how many hosts there were.
type counts struct {
	Hosts   int `json:"hosts"`
	OK      int `json:"ok"`
	Changed int `json:"changed"`
	Skipped int `json:"skipped"`
}

// failure is a task that failed.
type failure struct {
	Task    string `json:"task"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

// story is what the callback plugin told.
type story struct {
	// failed is the last task that failed: what failed before was rescued.
	failed *failure
	end    counts
}

// listen reads lines of the callback plugin until there are no more, and tells how many
// tasks began. A line that isn't one of ours is passed over.
func listen(from io.Reader, progress func(tasks int)) story {
	var s story
	tasks := 0
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var event struct {
			Event string `json:"event"`
			counts
			failure
		}
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue
		}
		switch event.Event {
		case "task":
			tasks++
			progress(tasks)
		case "failed":
			s.failed = &event.failure
		case "end":
			s.end = event.counts
		}
	}
	// A line that is too long ends the scan; what comes after it mustn't block the teller. The
	// pipe's deadline is an error here, and the way it ends.
	io.Copy(io.Discard, from)
	return s
}

// tail passes on what it is given and keeps the end of it.
type tail struct {
	to   io.Writer
	last []byte
}

// kept is how much a tail keeps, in bytes.
const kept = 4 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if n := len(t.last) - kept; n > 0 {
		t.last = append([]byte(nil), t.last[n:]...)
	}
	return t.to.Write(p)
}

// String returns the last lines that aren't empty.
func (t *tail) String() string {
	lines := bytes.Split(t.last, []byte("\n"))
	var out []string
	for _, line := range lines {
		if text := strings.TrimSpace(string(line)); text != "" {
			out = append(out, "  "+text)
		}
	}
	return strings.Join(out[max(0, len(out)-15):], "\n")
}
