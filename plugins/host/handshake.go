package host

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxPreamble bounds what a plugin may write to its standard output before the handshake,
// in bytes.
const maxPreamble = 64 << 10

// handshakeLine is what the line begins with that tells where a plugin listens. Other lines
// are part of its log: a library that greets on standard output is no reason not to start.
var handshakeLine = regexp.MustCompile(`^\s*(\d+)\|(\d+)\|[a-z]+\|[^|]*\|`)

var (
	errNotStarted  = errors.New("it could not be started")
	errLongOutput  = fmt.Errorf("it wrote more than %d KiB to its standard output and no handshake", maxPreamble>>10)
	errNoHandshake = errors.New("it closed its standard output before the handshake")
)

// handshake is the line that go-plugin waits for, cut out of a process's standard output.
type handshake struct {
	r *io.PipeReader
	w *io.PipeWriter

	mu    sync.Mutex
	line  string
	fault error // why there is none
}

func (h *handshake) init() { h.r, h.w = io.Pipe() }

func (h *handshake) set(line string, fault error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line, h.fault = line, fault
}

func (h *handshake) get() (line string, fault error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.line, h.fault
}

// readStdout hands the handshake to go-plugin and takes the rest as output.
func (p *program) readStdout() {
	defer p.endOut()
	w := p.said.stream()
	r := bufio.NewReaderSize(p.stdout, maxPreamble)
	line, err := findHandshake(r, w)
	if !p.condemned() {
		p.handshake.set(line, err)
	}
	if errors.Is(err, errNoHandshake) {
		// Most often it is ending, and how it ends says more than that it said nothing.
		select {
		case <-p.dead:
		case <-time.After(time.Second):
		}
	}
	if err == nil {
		_, err = io.WriteString(p.handshake.w, line)
	}
	p.handshake.w.CloseWithError(err)
	// The error is the deadline after the process's end.
	_, _ = io.Copy(w, r)
	w.flush()
}

func findHandshake(r *bufio.Reader, w io.Writer) (string, error) {
	for total := 0; ; {
		line, err := r.ReadSlice('\n')
		if err == nil && handshakeLine.Match(line) {
			return string(line), nil
		}
		if _, err := w.Write(line); err != nil {
			return "", err
		}
		total += len(line)
		switch {
		case total >= maxPreamble || errors.Is(err, bufio.ErrBufferFull):
			return "", errLongOutput
		case err != nil:
			return "", errNoHandshake
		}
	}
}

// checkVersion explains a version of the protocol that the host doesn't speak.
func (h *Host) checkVersion(line string) error {
	found := handshakeLine.FindStringSubmatch(line)
	version, err := strconv.Atoi(found[2])
	if _, ok := h.versions[version]; ok || err != nil {
		return err
	}
	known := slices.Sorted(maps.Keys(h.versions))
	var names []string
	for _, v := range known {
		names = append(names, strconv.Itoa(v))
	}
	remedy := "update gild, or install an older version of the plugin"
	if version < known[0] {
		remedy = "install a newer version of the plugin"
	}
	return fmt.Errorf("it speaks version %d of the plugin protocol, and this gild version %s: %s",
		version, strings.Join(names, ", "), remedy)
}
