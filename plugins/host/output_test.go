package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	goplugin "github.com/hashicorp/go-plugin"
)

func newOutput(shown *buffer) *output {
	return &output{name: func() string { return "acme/test" }, log: &log{w: shown}}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	many := func(n int) string {
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprint("line ", i))
		}
		return strings.Join(lines, "\n") + "\n"
	}
	cases := []struct {
		name, said string
		want       []string
	}{
		{"nothing", "", nil},
		{"a line without an end", "one\ntwo", []string{"one", "two"}},
		{"empty lines", "\n\none\n\n", []string{"one"}},
		{"more than is kept", many(15), strings.Split(strings.TrimSpace(many(15)), "\n")[5:]},
		{"sequences for the terminal", "\x1b[2J\x07red\t.\r\n\xff\n", []string{"[2Jred .", "\uFFFD"}},
		{
			"a crash of a program in Go",
			many(5) + "panic: out of cheese\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/main.go:5 +0x1\n" + many(100),
			[]string{
				"line 3", "line 4", "panic: out of cheese", "goroutine 1 [running]:", "main.main()", " /x/main.go:5 +0x1",
				"line 0", "line 1", "line 2", "line 3",
			},
		},
		{
			"go-plugin's logger",
			`{"@level":"debug","@message":"plugin address","@timestamp":"x"}` + "\n" +
				`{"@level":"warn","@message":"disk is full","@module":"x","path":"/","free":0}` + "\n{\"@broken\n",
			[]string{"disk is full free=0 path=/", `{"@broken`},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out := newOutput(&buffer{})
			w := out.stream()
			if _, err := w.Write([]byte(c.said)); err != nil {
				t.Error(err)
			}
			w.flush()
			if diff := cmp.Diff(c.want, out.tail); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

// However output is cut into pieces, the lines are the same, and none is too long.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), 1)
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine), 100)
	f.Add([]byte("{\"@level\":\"debug\"}\npanic: \n"), 7)
	f.Fuzz(func(t *testing.T, said []byte, piece int) {
		whole, cut := &buffer{}, &buffer{}
		w := newOutput(whole).stream()
		w.Write(said)
		w.flush()
		w = newOutput(cut).stream()
		for rest := said; len(rest) > 0; {
			n := min(len(rest), 1+abs(piece)%100)
			w.Write(rest[:n])
			rest = rest[n:]
		}
		w.flush()
		if diff := cmp.Diff(whole.String(), cut.String()); diff != "" {
			t.Errorf("in pieces (-whole +pieces):\n%s", diff)
		}
		for line := range strings.Lines(whole.String()) {
			if len(line) > len("acme/test: \n")+3*maxLine {
				t.Errorf("a line has %d bytes", len(line))
			}
		}
	})
}

func abs(n int) int { return max(n, -(n + 1)) }

// Whatever a plugin writes first, the handshake is found or there is an error.
func FuzzHandshake(f *testing.F) {
	for _, seed := range []string{"1|1|unix|/x|grpc|\n", "hello\n 1|1|unix|/x\n1|7|unix|/x|grpc|cert\nmore", "1|99999999999999999999|unix|/x|grpc|\n", strings.Repeat("x", maxPreamble+1), ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		var before bytes.Buffer
		line, err := findHandshake(bufio.NewReaderSize(bytes.NewReader(said), maxPreamble), &before)
		if !bytes.HasPrefix(said, append(before.Bytes(), line...)) {
			t.Errorf("%q was cut into %q and %q", said, before.Bytes(), line)
		}
		if before.Len() > 2*maxPreamble {
			t.Errorf("%d bytes were read before it", before.Len())
		}
		switch {
		case err == nil:
			versions := map[int]goplugin.PluginSet{1: nil}
			if err := (&Host{versions: versions}).checkVersion(line); err == nil && !strings.Contains(line, "1|") {
				t.Errorf("%q passes as one of version 1", line)
			}
		case !errors.Is(err, errLongOutput) && !errors.Is(err, errNoHandshake):
			t.Error(err)
		}
	})
}

// However long a line with a secret is, and wherever it is cut, no piece of the secret is
// passed on or kept for an error.
func TestSecretsAreNotCut(t *testing.T) {
	t.Parallel()
	const secret = "SECRETVALUE"
	for before := maxLine - len(secret) - 1; before <= maxLine+1; before++ {
		for _, piece := range []int{1, 7, 1 << 20} {
			shown := &buffer{}
			out := newOutput(shown)
			out.secrets.Add(map[string]string{"TOKEN": secret})
			w := out.stream()
			said := strings.Repeat("x", before) + secret + strings.Repeat("y", 2*maxLine) + secret + "\nshort " + secret + "\n"
			for rest := []byte(said); len(rest) > 0; {
				n := min(piece, len(rest))
				w.Write(rest[:n])
				rest = rest[n:]
			}
			w.flush()
			text := shown.String() + out.last()
			if strings.ContainsAny(text, "SECRTVALU") {
				t.Fatalf("after %d bytes, in pieces of %d: a piece of the secret is shown:\n%s", before, piece, text)
			}
			if got := strings.Count(shown.String(), "x"); got != before {
				t.Errorf("after %d bytes, in pieces of %d: %d bytes are shown", before, piece, got)
			}
			if got := strings.Count(shown.String(), "y"); got != 2*maxLine {
				t.Errorf("after %d bytes, in pieces of %d: %d bytes are shown after the secret", before, piece, got)
			}
		}
	}
}

// A line that just fits is one line, however it is cut into pieces.
func TestLongestLine(t *testing.T) {
	t.Parallel()
	whole := long(maxLine)
	for _, piece := range []int{1, maxLine, maxLine + 1} {
		shown := &buffer{}
		w := newOutput(shown).stream()
		for rest := []byte(whole + "\n"); len(rest) > 0; {
			n := min(piece, len(rest))
			w.Write(rest[:n])
			rest = rest[n:]
		}
		if want := "acme/test: " + whole + "\n"; shown.String() != want {
			t.Errorf("in pieces of %d: %d bytes are shown, want %d", piece, len(shown.String()), len(want))
		}
	}
}
