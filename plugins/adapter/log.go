package adapter

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode"

	"github.com/gildhq/gild/plugins/internal/hide"
)

// maxTail bounds what is kept of the last lines of standard error in bytes, besides as much
// again as the longest value that is to be hidden.
const maxTail = 2 << 10

// log joins what a program says on standard error and in log events, and remembers the end
// of standard error.
type log struct {
	mu  sync.Mutex
	out io.Writer
	// open tells that what was written last didn't end its line.
	open bool
	tail []byte
	// cut tells that something came before tail.
	cut bool
	// secrets are the values of the step's environment, which are hidden before text is cut.
	secrets hide.Values
	// err is the first error of writing; nothing is written after it.
	err error
}

// Write takes standard error as it comes.
func (l *log) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	// What comes before the last maxTail bytes tells which values reach into them.
	keep := maxTail + l.secrets.Longest()
	l.cut = l.cut || len(l.tail)+len(p) > keep
	l.tail = append(l.tail, p[max(0, len(p)-keep):]...)
	l.tail = l.tail[max(0, len(l.tail)-keep):]
	l.open = p[len(p)-1] != '\n'
	var n int
	n, l.err = l.out.Write(p)
	return n, l.err
}

// failed is the error of writing the log, if there was one.
func (l *log) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// line takes a log event.
func (l *log) line(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	text = strings.TrimSuffix(text, "\n") + "\n"
	if l.open {
		l.open, text = false, "\n"+text
	}
	_, l.err = io.WriteString(l.out, text)
	return l.err
}

// last is the last line of standard error that isn't empty, cut to what fits into an error.
func (l *log) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := bytes.TrimRight(l.tail, " \t\r\n")
	from := bytes.LastIndexByte(all, '\n') + 1
	if from == 0 && l.cut {
		from = min(l.secrets.Longest(), len(all))
	}
	const most = 300
	text := l.secrets.Slice(string(all), from, min(from+most, len(all)))
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(strings.TrimSpace(text), "\uFFFD"))
}
