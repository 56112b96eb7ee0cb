package capture_test

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/gildhq/gild/steps/internal/capture"
)

func TestKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	out := capture.New(&log, 4)
	write(t, out.Stdout(), "abc")
	write(t, out.Stderr(), "XY")
	write(t, out.Stdout(), "defgh")
	if got, want := out.StdoutText(), "efgh"; got != want {
		t.Errorf("StdoutText() = %q, want %q", got, want)
	}
	if got, want := out.StderrText(), "XY"; got != want {
		t.Errorf("StderrText() = %q, want %q", got, want)
	}
	if got, want := out.Text(), "efgh"; got != want {
		t.Errorf("Text() = %q, want %q", got, want)
	}
	if got, want := log.String(), "abcXYdefgh"; got != want {
		t.Errorf("log has %q, want %q", got, want)
	}
}

func TestStreamsTogether(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	out := capture.New(&log, 1000)
	var wg sync.WaitGroup
	for _, w := range []io.Writer{out.Stdout(), out.Stderr()} {
		wg.Go(func() {
			for range 100 {
				write(t, w, "x")
			}
		})
	}
	wg.Wait()
	if got, want := out.Text(), strings.Repeat("x", 200); got != want || log.String() != want {
		t.Errorf("kept %d bytes and logged %d, want 200 of each", len(got), log.Len())
	}
	if got := len(out.StdoutText()); got != 100 {
		t.Errorf("kept %d bytes of stdout, want 100", got)
	}
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Errorf("write %q: %d, %v", s, n, err)
	}
}
