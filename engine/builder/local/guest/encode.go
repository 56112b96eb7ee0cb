package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

var variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// agentPrefix begins the names of the agent's own variables.
const agentPrefix = "_gild_"

// request is a command as agent.sh takes it.
type request struct {
	words, variables int
	input            string // "none" or "some"
	text             string
}

func encode(c step.Cmd) (request, error) {
	r := request{variables: len(c.Env), input: "some"}
	if c.Stdin == nil {
		r.input = "none"
	}
	dir := c.Dir
	if dir == "" {
		dir = "/"
	}
	if !path.IsAbs(dir) {
		return r, fmt.Errorf("folder %q isn't absolute", dir)
	}
	words := []string{dir}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if !variableRE.MatchString(name) || strings.HasPrefix(name, agentPrefix) {
			return r, fmt.Errorf("environment variable %q can't be set: give it a name of letters, digits and '_' that begins neither with a digit nor with %q", name, agentPrefix)
		}
		words = append(words, name+"="+c.Env[name])
	}
	words = append(words, c.Argv...)
	var b strings.Builder
	for _, word := range words {
		if strings.IndexByte(word, 0) >= 0 {
			return r, errors.New("a NUL byte can be in no argument, variable or folder")
		}
		writeWord(&b, word)
	}
	r.words, r.text = len(words), b.String()
	return r, nil
}

// writeWord writes what the agent's printf %b turns into word again.
func writeWord(b *strings.Builder, word string) {
	b.WriteByte('+')
	for _, c := range []byte(word) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-_./:=,@", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(b, "\\0%03o", c)
		}
	}
	b.WriteByte('\n')
}

// copyOutput copies one output of the command to w. When w fails, the command is told to
// end and the rest is still read, so that the agent can go on.
func (x *execution) copyOutput(w io.Writer, from io.Reader) {
	s := splitter{begin: []byte(x.marker + "<"), end: []byte(x.marker + ">")}
	buf := make([]byte, 64<<10)
	for {
		n, readErr := from.Read(buf)
		out, over := s.next(buf[:n])
		if w != nil && len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				x.failed <- fmt.Errorf("pass the command's output on: %w", err)
				w = nil
			}
		}
		if over || readErr != nil {
			// A reader fails when the guest is gone or the command was given up, which
			// whoever waits for the command knows.
			return
		}
	}
}

// splitter finds what is between two marks in a stream.
type splitter struct {
	begin, end []byte
	inside     bool
	held       []byte // may be the beginning of a mark
}

// next takes a piece of the stream. It returns what of it is between the marks, valid
// until the next call, and whether the end was found.
func (s *splitter) next(piece []byte) (out []byte, over bool) {
	data := append(s.held, piece...)
	s.held = nil
	if !s.inside {
		at := bytes.Index(data, s.begin)
		if at < 0 {
			s.held = bytes.Clone(data[len(data)-overlap(data, s.begin):])
			return nil, false
		}
		s.inside = true
		data = data[at+len(s.begin):]
	}
	if at := bytes.Index(data, s.end); at >= 0 {
		return data[:at], true
	}
	keep := len(data) - overlap(data, s.end)
	s.held = bytes.Clone(data[keep:])
	return data[:keep], false
}

// overlap is how many bytes at the end of data may be the beginning of mark.
func overlap(data, mark []byte) int {
	for n := min(len(data), len(mark)-1); n > 0; n-- {
		if bytes.HasPrefix(mark, data[len(data)-n:]) {
			return n
		}
	}
	return 0
}
