package run

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// hidden stands where a secret was.
	hidden = "***"
	// shortest is the least number of characters a secret must have to be hidden:
	// hiding "1" or "yes" would make every log unreadable and hide nothing.
	shortest = 4
	// encodeLimit is the size in bytes up to which a secret's encodings are looked for.
	encodeLimit = 64 << 10
)

// Mask hides secrets in text. It finds each value as it is, each line of a value with
// several, and both in the encodings that programs print: base64 (standard and URL
// alphabet, with and without padding, inside longer encoded text, wrapped lines), URL,
// JSON, hex and a shell's quotes. A value over 64 KiB is found only as it is and line
// by line. A nil Mask hides nothing. Safe for concurrent use.
type Mask struct {
	trie  trie
	short []int
}

// NewMask returns a Mask of the given values. Empty values are ignored; values with
// fewer than four characters besides surrounding space are not hidden, see [Mask.TooShort].
func NewMask(secrets ...string) *Mask {
	m := &Mask{}
	var forms []string
	for i, s := range secrets {
		switch {
		case s == "":
		case !maskable(s):
			m.short = append(m.short, i)
		default:
			forms = append(forms, secretForms(s)...)
		}
	}
	m.trie = newTrie(forms)
	return m
}

func maskable(s string) bool {
	return utf8.RuneCountInString(strings.TrimSpace(s)) >= shortest
}

// TooShort returns the positions, among NewMask's arguments, of the values that are not
// hidden because they are too short.
func (m *Mask) TooShort() []int {
	if m == nil {
		return nil
	}
	return slices.Clone(m.short)
}

// String returns s with every secret replaced by "***". Secrets that overlap or touch
// are replaced together. It takes time linear in s.
func (m *Mask) String(s string) string {
	if m.empty() || !m.trie.occursIn(s) {
		return s
	}
	var out bytes.Buffer
	w := m.Writer(&out)
	// A bytes.Buffer never returns an error.
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return out.String()
}

func (m *Mask) empty() bool { return m == nil || len(m.trie.nodes) <= 1 }

// Writer returns a writer that hides secrets in what passes through it to w, wherever
// the text is cut into writes. It holds back the bytes that may be the beginning of a
// secret until more text or Close decides; at most as many as the longest form has.
func (m *Mask) Writer(w io.Writer) *MaskWriter {
	return &MaskWriter{mask: m, to: w}
}

// MaskWriter is a stream through a [Mask]. It is used by one goroutine at a time.
type MaskWriter struct {
	mask  *Mask
	to    io.Writer
	state int32
	// held are the bytes not yet passed on; the first is at position base of the stream.
	held []byte
	base int
	// spans are what to hide in held, sorted, neither overlapping nor touching.
	spans []span
	// hiding tells that the last thing passed on was a replaced secret.
	hiding bool
	out    []byte
}

// span is the part from start up to end of a stream.
type span struct{ start, end int }

// Write takes text and passes on what is certain not to be part of a secret, secrets replaced.
// Its errors are those of the writer below.
func (w *MaskWriter) Write(p []byte) (int, error) {
	if w.mask.empty() {
		return w.to.Write(p)
	}
	const piece = 32 << 10
	for rest := p; len(rest) > 0; {
		n := min(len(rest), piece)
		if err := w.feed(rest[:n]); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// Close passes on what was held back. It does not close the writer below, and the
// MaskWriter can be written to again.
func (w *MaskWriter) Close() error {
	w.state = 0
	return w.release(w.base + len(w.held))
}

func (w *MaskWriter) feed(p []byte) error {
	pos := w.base + len(w.held)
	w.held = append(w.held, p...)
	t := &w.mask.trie
	for _, c := range p {
		w.state = t.next(w.state, c)
		pos++
		if n := int(t.nodes[w.state].found); n > 0 {
			w.hide(span{pos - n, pos})
		}
	}
	return w.release(pos - int(t.nodes[w.state].depth))
}

// hide adds a span that ends later than all others.
func (w *MaskWriter) hide(s span) {
	for n := len(w.spans); n > 0 && w.spans[n-1].end >= s.start; n-- {
		s.start = min(s.start, w.spans[n-1].start)
		w.spans = w.spans[:n-1]
	}
	w.spans = append(w.spans, s)
}

// release passes on everything before position end. No secret found later begins before it.
func (w *MaskWriter) release(end int) error {
	w.out = w.out[:0]
	at, used := w.base, 0
	for _, s := range w.spans {
		if s.start >= end {
			break
		}
		w.show(at, max(at, s.start))
		if !w.hiding {
			w.out = append(w.out, hidden...)
			w.hiding = true
		}
		at = min(s.end, end)
		if s.end > end {
			break
		}
		used++
	}
	w.show(at, end)
	// Cut, not moved: many small writes must not each move all that is held.
	w.spans = w.spans[used:]
	w.held = w.held[end-w.base:]
	w.base = end
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.to.Write(w.out)
	return err
}

func (w *MaskWriter) show(from, to int) {
	if from < to {
		w.out = append(w.out, w.held[from-w.base:to-w.base]...)
		w.hiding = false
	}
}
