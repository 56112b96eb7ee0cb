package run

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/event"
)

const (
	// longestLine is where a line is cut in two, in bytes.
	longestLine = 16 << 10
	// tailLines is how many last lines a failure shows.
	tailLines = 40
	// defaultMaxLog bounds a task's log, in bytes.
	defaultMaxLog = 128 << 20
	// lineCost is what a line counts for at least: as an event it takes more than its text.
	lineCost = 64
)

// LogName is the name of a task's log file in Options.LogDir. Different ids have
// different names.
func LogName(task string) string {
	name := []byte(task)
	for i, c := range name {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '=', c == '.' && i > 0:
		default:
			name[i] = '-'
		}
	}
	const longest = 200
	if string(name) == task && len(name) <= longest {
		return task + ".log"
	}
	sum := sha256.Sum256([]byte(task))
	return string(name[:min(len(name), longest)]) + "-" + hex.EncodeToString(sum[:4]) + ".log"
}

// logError says that a log can't be written any further. Another attempt would not do better.
type logError struct{ err error }

func (l *logError) Error() string { return l.err.Error() }
func (l *logError) Unwrap() error { return l.err }

// taskLog turns a task's output into lines: in its log file, as events, and the last of
// them for a report. Secrets are hidden twice: in the stream, because a secret may span
// lines, and in each line, because terminal sequences may have cut one in pieces. What
// it keeps in memory is bounded, however much is written. Safe for concurrent use.
type taskLog struct {
	r    *runner
	node string
	path string
	max  int64

	mu   sync.Mutex
	mask *MaskWriter
	// line is the line not yet ended; afterCR tells that the last byte was a carriage
	// return, so that a newline after it belongs to the same line end.
	line    []byte
	afterCR bool
	// file is nil until there is a line.
	file *os.File
	buf  *bufio.Writer
	size int64
	tail []string
	err  error
	// failed is called once when err is set; it cancels the attempt.
	failed func(error)
	closed bool
}

func newTaskLog(r *runner, node string) *taskLog {
	l := &taskLog{r: r, node: node, path: filepath.Join(r.o.LogDir, LogName(node)), max: cmp.Or(r.o.MaxLog, defaultMaxLog)}
	l.mask = r.o.Mask.Writer((*lineWriter)(l))
	return l
}

// Write implements [io.Writer] for Attempt.Log.
func (l *taskLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && l.closed {
		return 0, fmt.Errorf("write log of %s: %w", l.node, os.ErrClosed)
	}
	if l.err == nil {
		_, err := l.mask.Write(p)
		l.note(err)
		l.note(l.sync())
	}
	if l.err != nil {
		return 0, l.err
	}
	return len(p), nil
}

// begin prepares for an attempt, which failed ends.
func (l *taskLog) begin(failed func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = failed
}

// end writes what an attempt left without a newline. It returns why the log could not be
// written, or nil.
func (l *taskLog) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain()
	l.failed = nil
	return l.err
}

func (l *taskLog) drain() {
	if l.err == nil {
		l.note(l.mask.Close())
	}
	if l.err == nil && len(l.line) > 0 {
		l.note(l.endLine())
	}
	l.note(l.sync())
}

// close ends the log; later writes fail.
func (l *taskLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain()
	l.closed = true
	if l.file == nil {
		return l.err
	}
	return cmp.Or(l.err, l.file.Close())
}

// report returns the last lines and the path of the file, both empty without any output.
func (l *taskLog) report() (tail []string, path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, ""
	}
	return slices.Clone(l.tail), l.path
}

// note keeps the first error and ends the attempt with it.
func (l *taskLog) note(err error) {
	if err == nil || l.err != nil {
		return
	}
	var known *logError
	if !errors.As(err, &known) {
		known = &logError{err: fmt.Errorf("write log: %w", err)}
	}
	l.err = known
	if l.failed != nil {
		l.failed(l.err)
	}
}

func (l *taskLog) sync() error {
	if l.buf == nil {
		return nil
	}
	return l.buf.Flush()
}

// lineWriter is the end of a taskLog where masked text arrives. Called with mu held.
type lineWriter taskLog

// Write splits text into lines at newlines and carriage returns, of which progress bars
// are made.
func (w *lineWriter) Write(p []byte) (int, error) {
	l := (*taskLog)(w)
	for rest := p; len(rest) > 0; {
		if l.afterCR && rest[0] == '\n' {
			rest = rest[1:]
		}
		l.afterCR = false
		end := bytes.IndexAny(rest, "\r\n")
		text := rest
		if end >= 0 {
			text = rest[:end]
		}
		if err := l.extend(text); err != nil {
			return 0, err
		}
		if end < 0 {
			break
		}
		l.afterCR = rest[end] == '\r'
		rest = rest[end+1:]
		if err := l.endLine(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// extend adds to the line, cutting it where it gets too long, between two characters.
func (l *taskLog) extend(text []byte) error {
	for len(l.line)+len(text) > longestLine {
		n := longestLine - len(l.line)
		l.line = append(l.line, text[:n]...)
		text = text[n:]
		rest := bytes.Clone(l.line[wholeRunes(l.line):])
		l.line = l.line[:len(l.line)-len(rest)]
		if err := l.endLine(); err != nil {
			return err
		}
		l.line = append(l.line, rest...)
	}
	l.line = append(l.line, text...)
	return nil
}

// wholeRunes is the length of text without a character that is cut off at its end.
func wholeRunes(text []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(text); i++ {
		if at := len(text) - i; utf8.RuneStart(text[at]) {
			if !utf8.FullRune(text[at:]) {
				return at
			}
			break
		}
	}
	return len(text)
}

// endLine passes the line on, unless that would make the log too large.
func (l *taskLog) endLine() error {
	text := l.r.clean(string(l.line))
	l.line = l.line[:0]
	if err := l.open(); err != nil {
		return err
	}
	if l.size += max(int64(len(text))+1, lineCost); l.size > l.max {
		limit := &logError{err: fmt.Errorf("more than %s of output: print less, or send it to a file", byteSize(l.max))}
		return errors.Join(limit, l.put("the log ends here: "+limit.Error()))
	}
	return l.put(text)
}

func (l *taskLog) put(text string) error {
	if len(l.tail) == tailLines {
		l.tail = slices.Delete(l.tail, 0, 1)
	}
	l.tail = append(l.tail, text)
	l.r.out.emit(event.Event{Kind: event.NodeLog, Node: l.node, Stream: "stdout", Text: text})
	_, err := l.buf.WriteString(text + "\n")
	return err
}

// open opens the file at the first line: most tasks of a large graph print nothing. A
// resumed run adds to what is there.
func (l *taskLog) open() error {
	if l.file != nil {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.file, l.buf = f, bufio.NewWriterSize(f, 32<<10)
	return nil
}

// byteSize writes a limit as people gave it.
func byteSize(n int64) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%d %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
