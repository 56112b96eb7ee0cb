package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/gildhq/gild/plugins/internal/hide"
)

const (
	// maxLine is where a line of a plugin's output is cut in two, in bytes.
	maxLine = 4 << 10
	// maxShown bounds what of one process's output is passed on, in bytes.
	maxShown = 16 << 20
	// tailLines is how many last lines an error shows.
	tailLines = 10
)

// log writes lines of many processes to one writer.
type log struct {
	mu sync.Mutex
	w  io.Writer // nil discards
}

func (l *log) line(name, text string) {
	if l.w == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// A log that can't be written is no reason to fail what is logged.
	_, _ = fmt.Fprintf(l.w, "%s: %s\n", name, text)
}

// output takes what one process writes, keeps the last lines and passes them on.
type output struct {
	name func() string // of the plugin
	log  *log
	// secrets are the values of the environments of all steps that the process has run. They
	// are hidden here, because here lines are cut, and put into errors one by one.
	secrets hide.Values

	readers sync.WaitGroup // pipes that are being read

	mu    sync.Mutex
	steps map[*running]struct{} // that run now
	shown int
	tail  []string
	whole bool // the tail tells why the process crashed, and takes no more
}

// crashLine is what the report of a crash begins with that the Go runtime writes: what
// follows it is long, and the end of it says nothing.
var crashLine = regexp.MustCompile(`^(panic: |fatal error: |SIG[A-Z]+: )`)

// reader counts a pipe; end is called at its end, and may be called again.
func (o *output) reader() (end func()) {
	o.readers.Add(1)
	return sync.OnceFunc(o.readers.Done)
}

// wait waits until all pipes were read.
func (o *output) wait() { o.readers.Wait() }

// last returns the last lines, for an error.
func (o *output) last() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.tail) == 0 {
		return "; it wrote nothing to its standard error"
	}
	return "; last lines of its output:\n  " + strings.Join(o.tail, "\n  ")
}

func (o *output) line(raw []byte) {
	text, ok := message(raw)
	if !ok {
		return
	}
	text = strings.ToValidUTF8(o.secrets.Text(text), "\uFFFD")
	text = strings.TrimRight(strings.Map(printable, text), " ")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep(text)
	if o.shown > maxShown {
		return
	}
	name := o.name()
	if o.shown += len(name) + len(text) + len(": \n"); o.shown > maxShown {
		text = fmt.Sprintf("it has written %d MiB; its further output is not shown", maxShown>>20)
	}
	o.log.line(name, text)
	// Of several steps none can be told to have said it.
	if len(o.steps) == 1 {
		for r := range o.steps {
			r.say(text)
		}
	}
}

// attend gives a step what the process writes while no other runs in it, until leave.
func (o *output) attend(r *running) (leave func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.steps == nil {
		o.steps = map[*running]struct{}{}
	}
	o.steps[r] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.steps, r)
	}
}

// keep adds a line to the tail.
func (o *output) keep(text string) {
	const before = 2 // lines kept of those before the report of a crash
	switch {
	case text == "" || o.whole && len(o.tail) == tailLines:
		return
	case !o.whole && crashLine.MatchString(text):
		o.whole = true
		o.tail = slices.Delete(o.tail, 0, max(0, len(o.tail)-before))
	case len(o.tail) == tailLines:
		o.tail = slices.Delete(o.tail, 0, 1)
	}
	o.tail = append(o.tail, text)
}

// message reads the lines that go-plugin's logger writes, which plugins in Go use: those for
// the plugin's author are left out. Other lines stay as they are.
func message(raw []byte) (text string, ok bool) {
	if !bytes.HasPrefix(raw, []byte(`{"@`)) {
		return string(raw), true
	}
	var fields map[string]any
	if json.Unmarshal(raw, &fields) != nil {
		return string(raw), true
	}
	if level := fields["@level"]; level == "trace" || level == "debug" {
		return "", false
	}
	text = fmt.Sprint(fields["@message"])
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !strings.HasPrefix(name, "@") {
			text += fmt.Sprintf(" %s=%v", name, fields[name])
		}
	}
	return text, true
}

// printable keeps a plugin from speaking to the terminal.
func printable(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case unicode.IsControl(r):
		return -1
	}
	return r
}

// stream makes lines of one stream of a process.
func (o *output) stream() *lines { return &lines{to: o} }

type lines struct {
	to *output

	mu   sync.Mutex
	buf  []byte // a line that hasn't ended
	done int    // how much of buf is out; it is kept to find what is to be hidden
	open bool   // a part of the line is out
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	beyond := l.to.secrets.Longest()
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		room := max(l.done+maxLine+beyond-len(l.buf), 0)
		if end < 0 || end > room {
			cut := min(len(p), room)
			l.buf = append(l.buf, p[:cut]...)
			p = p[cut:]
			if len(l.buf) >= l.done+maxLine+beyond {
				l.cut(beyond)
			}
			continue
		}
		l.buf = append(l.buf, p[:end]...)
		p = p[end+1:]
		l.end(beyond)
	}
	return n, nil
}

// cut passes on a piece of a line, and lets go of what is too far back to matter.
func (l *lines) cut(beyond int) {
	to := min(l.done+maxLine, len(l.buf))
	l.to.line([]byte(l.to.secrets.Slice(string(l.buf), l.done, to)))
	keep := max(to-beyond, 0)
	l.buf = append(l.buf[:0], l.buf[keep:]...)
	l.done, l.open = to-keep, true
}

// end passes on the rest of a line.
func (l *lines) end(beyond int) {
	for len(l.buf) > l.done+maxLine {
		l.cut(beyond)
	}
	switch {
	case !l.open:
		l.to.line(l.buf)
	case l.done < len(l.buf):
		l.cut(beyond)
	}
	l.buf, l.done, l.open = l.buf[:0], 0, false
}

// flush ends a line that has no end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > l.done {
		l.end(l.to.secrets.Longest())
	}
}
