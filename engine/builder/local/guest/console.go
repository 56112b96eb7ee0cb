package guest

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	consoleKept = 64 << 10
	// lineLimit breaks a line that never ends.
	lineLimit = 4 << 10
	tailLines = 25
)

// faults are texts of the serial console that say that the guest can't go on by itself.
var faults = []struct {
	text, reason string
	// fatal also ends a guest that has been running commands.
	fatal bool
}{
	{"Kernel panic - not syncing", "the guest's kernel panicked", true},
	{"(initramfs)", "the guest stopped in the shell of its initramfs", false},
	{"You are in emergency mode", "the guest stopped in emergency mode", false},
	{"You are in rescue mode", "the guest stopped in rescue mode", false},
	{"Freezing execution", "the guest's init gave up", false},
	{"grub rescue>", "the guest stopped in GRUB's rescue prompt", false},
	{"grub>", "the guest stopped at GRUB's prompt", false},
	{"Press any key to continue...", "the guest's boot loader couldn't start a kernel", false},
	{"No bootable device", "the firmware found nothing to boot", false},
	{"No bootable option or device was found", "the firmware found nothing to boot", false},
	{"UEFI Interactive Shell", "the firmware found nothing to boot and started its shell", false},
}

// console reads a guest's serial console. What comes from a guest isn't trusted:
// escape sequences and control characters are taken out before anyone sees it.
type console struct {
	done    chan struct{} // closed when the console has ended
	log     io.Writer
	onFault func(reason string, fatal bool)

	clean cleaner
	line  []byte
	seen  bool // the line in progress has already been reported

	mu   sync.Mutex
	kept []byte
}

func newConsole(log io.Writer, onFault func(reason string, fatal bool)) *console {
	return &console{done: make(chan struct{}), log: log, onFault: onFault}
}

// read reads r until it ends. onFault and the log are called from it.
func (c *console) read(r io.Reader) {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		c.add(c.clean.append(nil, buf[:n]))
		if err != nil {
			// The socket's other end is QEMU: how that ended is reported by its exit.
			break
		}
	}
	if len(c.line) > 0 {
		c.add([]byte{'\n'})
	}
}

// add takes cleaned text.
func (c *console) add(text []byte) {
	c.mu.Lock()
	c.kept = append(c.kept, text...)
	if over := len(c.kept) - consoleKept; over > 0 {
		c.kept = append(c.kept[:0], c.kept[over:]...)
	}
	c.mu.Unlock()
	for len(text) > 0 {
		part, rest, ended := bytes.Cut(text, []byte{'\n'})
		c.line = append(c.line, part...)
		text = rest
		// A prompt has no newline, so the line is looked at before it ends.
		c.look()
		if ended || len(c.line) > lineLimit {
			c.flush()
		}
	}
}

func (c *console) look() {
	if c.seen {
		return
	}
	for _, f := range faults {
		if bytes.Contains(c.line, []byte(f.text)) {
			c.seen = true
			c.onFault(f.reason, f.fatal)
			return
		}
	}
}

func (c *console) flush() {
	// The log is for people; a log that can't be written must not end the guest.
	_, _ = c.log.Write(append(c.line, '\n'))
	c.line, c.seen = c.line[:0], false
}

// text returns what is kept.
func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ToValidUTF8(string(c.kept), "")
}

// tail returns the last lines that aren't blank.
func (c *console) tail() string {
	var lines []string
	for line := range strings.SplitSeq(c.text(), "\n") {
		if strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}

// cleaner takes escape sequences and control characters out of a stream, except for
// tabs and newlines. The zero value is ready.
type cleaner struct {
	state   cleanerState
	partial []byte // the beginning of a UTF-8 sequence
}

type cleanerState int

const (
	plain    cleanerState = iota
	escape                // after ESC
	sequence              // after ESC [, until its final byte
	text                  // after ESC ], P, X, ^ or _, until BEL or ESC \
	charset               // after ESC and an intermediate byte, until its final byte
)

// append adds the cleaned text of src to dst.
func (c *cleaner) append(dst, src []byte) []byte {
	for _, b := range src {
		switch {
		case b == 0x1b:
			c.state = escape
		case c.state == plain:
			dst = c.plain(dst, b)
		case c.state == escape:
			c.state = afterEscape(b)
		case c.state == sequence && b >= 0x40 && b <= 0x7e,
			c.state == charset && b >= 0x30 && b <= 0x7e,
			c.state == text && b == 0x07:
			c.state = plain
		case b == '\n':
			// A sequence that is never ended must not swallow all that follows.
			c.state = plain
			dst = append(dst, b)
		}
	}
	return dst
}

func afterEscape(b byte) cleanerState {
	switch {
	case b == '[':
		return sequence
	case strings.IndexByte("]PX^_", b) >= 0:
		return text
	case b >= 0x20 && b <= 0x2f:
		return charset
	default:
		return plain
	}
}

// plain adds b unless it is, or is part of, something that isn't printable.
func (c *cleaner) plain(dst []byte, b byte) []byte {
	if b < utf8.RuneSelf {
		c.partial = c.partial[:0]
		if b == '\n' || b == '\t' || b >= 0x20 && b != 0x7f {
			dst = append(dst, b)
		}
		return dst
	}
	c.partial = append(c.partial, b)
	if !utf8.FullRune(c.partial) {
		return dst
	}
	r, size := utf8.DecodeRune(c.partial)
	// 0x80 to 0x9f are the C1 controls, U+2028 to U+202E and U+2066 to U+2069 turn text around.
	hidden := r <= 0x9f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	if r != utf8.RuneError && !hidden {
		dst = append(dst, c.partial[:size]...)
	}
	c.partial = c.partial[:0]
	return dst
}
