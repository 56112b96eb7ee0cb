package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/event"
)

func TestLogLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", longestLine)
	tests := map[string]struct {
		writes []string
		want   []string
	}{
		"nothing":                      {nil, nil},
		"lines in one write":           {[]string{"a\nb\n"}, []string{"a", "b"}},
		"a line in pieces":             {[]string{"a", "b", "c\n"}, []string{"abc"}},
		"no newline at the end":        {[]string{"a\nb"}, []string{"a", "b"}},
		"empty lines":                  {[]string{"\n\na\n"}, []string{"", "", "a"}},
		"windows line ends":            {[]string{"a\r\nb\r", "\nc"}, []string{"a", "b", "c"}},
		"a progress bar":               {[]string{"1%\r2%\r3%\n"}, []string{"1%", "2%", "3%"}},
		"a long line is cut":           {[]string{long + "yz\n"}, []string{long, "yz"}},
		"just not too long":            {[]string{long, "\n"}, []string{long}},
		"cut between characters":       {[]string{long[1:] + "ü!\n"}, []string{long[1:], "ü!"}},
		"colours are dropped":          {[]string{"\x1b[31;1mred\x1b[0m\n"}, []string{"red"}},
		"a title is dropped":           {[]string{"\x1b]0;owned\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n"}, []string{"alink"}},
		"a screen reset is dropped":    {[]string{"\x1bca\x1b(B\x1b7\n"}, []string{"a"}},
		"a sequence cut off":           {[]string{"a\x1b[3"}, []string{"a\ufffd[3"}},
		"control characters":           {[]string{"a\x00\x07\x08\x7f\u0085\u009bb\tc\n"}, []string{"a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdb\tc"}},
		"invalid UTF-8":                {[]string{"a\xff\xc3(\n"}, []string{"a\ufffd\ufffd("}},
		"text that changes its order":  {[]string{"a\u202eb\u2066c\u2028d\n"}, []string{"a\ufffdb\ufffdc\ufffdd"}},
		"other alphabets stay":         {[]string{"größe 寸法 🙂\n"}, []string{"größe 寸法 🙂"}},
		"a secret in pieces":           {[]string{"to", "psec", "ret!\n"}, []string{"***!"}},
		"a secret in base64":           {[]string{"dG9wc2VjcmV0\n"}, []string{"***"}},
		"a secret cut by a colour":     {[]string{"top\x1b[0msecret\n"}, []string{"***"}},
		"a secret over the length":     {[]string{long[2:] + "topsecret\n"}, []string{long[2:] + "**", "*"}},
		"a secret of two lines":        {[]string{"key: line one\nline two\n"}, []string{"key: ***"}},
		"the beginning of a secret":    {[]string{"topsec\n"}, []string{"topsec"}},
		"a secret's beginning at last": {[]string{"topsec"}, []string{"topsec"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.Mask = NewMask("topsecret", "line one\nline two")
			res := f.run(t, Task{ID: "web/a", Do: do(func(_ context.Context, a *Attempt) error {
				for _, text := range tc.writes {
					if n, err := a.Log.Write([]byte(text)); n != len(text) || err != nil {
						t.Errorf("Write(%q) = %d, %v", text, n, err)
					}
				}
				return nil
			})})
			if diff := cmp.Diff(tc.want, f.events.lines("web/a")); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			path := res.Tasks["web/a"].LogPath
			if tc.want == nil {
				if _, err := os.Stat(f.LogDir + "/" + LogName("web/a")); path != "" || !errors.Is(err, os.ErrNotExist) {
					t.Errorf("log %q of a task without output: %v", path, err)
				}
				return
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Join(tc.want, "\n")+"\n", string(text)); diff != "" {
				t.Errorf("file (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogTooLarge(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.MaxLog = 1 << 20
	attempts := 0
	chunk := bytes.Repeat([]byte("0123456789abcdef "), 4096)
	res := f.run(t, Task{ID: "a", Attempts: 3, Do: do(func(ctx context.Context, a *Attempt) error {
		attempts++
		for ctx.Err() == nil {
			// A program doesn't look at what becomes of its output.
			_, _ = a.Log.Write(chunk)
		}
		return ctx.Err()
	})})
	want := "failed: more than 1 MiB of output: print less, or send it to a file"
	if got := endings(res)["a"]; got != want || attempts != 1 {
		t.Errorf("%d attempts, ended %q; want 1 and %q", attempts, got, want)
	}
	info, err := os.Stat(res.Tasks["a"].LogPath)
	if err != nil || info.Size() > f.MaxLog+200 {
		t.Errorf("log file %v, %v; want at most %d bytes and the note", info.Size(), err, f.MaxLog)
	}
	lines := f.events.lines("a")
	if last := lines[len(lines)-1]; last != "the log ends here: more than 1 MiB of output: print less, or send it to a file" {
		t.Errorf("last line %q", last)
	}
}

func TestManyShortLinesAreTooMuchToo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.MaxLog = 64 * 1000
	res := f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error {
		_, err := a.Log.Write(bytes.Repeat([]byte("y\n"), 5000))
		return err
	})})
	if got, want := endings(res)["a"], "failed: more than 64000 bytes of output: print less, or send it to a file"; got != want {
		t.Errorf("ended %q, want %q", got, want)
	}
	if got := len(f.events.lines("a")); got != 1001 {
		t.Errorf("%d lines, want a thousand and the note", got)
	}
}

// A step whose output is ignored by its function fails all the same.
func TestLogTooLargeFailsADoneStep(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.MaxLog = 10
	res := f.run(t, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
		fmt.Fprintln(a.Log, "0123456789abcdef")
		return nil
	})})
	if got, want := endings(res)["a"], "failed: more than 10 bytes of output: print less, or send it to a file"; got != want {
		t.Errorf("ended %q, want %q", got, want)
	}
}

func TestLogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if err := os.MkdirAll(f.LogDir+"/a.log", 0o700); err != nil {
		t.Fatal(err)
	}
	res := f.run(t, Task{ID: "a", Do: do(func(ctx context.Context, a *Attempt) error {
		_, err := fmt.Fprintln(a.Log, "hello")
		if ctx.Err() == nil {
			t.Error("the attempt goes on without its log")
		}
		return err
	})})
	if got, want := endings(res)["a"], "failed: write log: open "+f.LogDir+"/a.log: is a directory"; got != want {
		t.Errorf("ended %q, want %q", got, want)
	}
}

func TestLogAfterTheTask(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var log interface{ Write([]byte) (int, error) }
	f.run(t, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
		log = a.Log
		return nil
	})})
	if _, err := log.Write([]byte("late\n")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("late write: %v, want an error", err)
	}
}

func TestTailIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(t, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
		for i := range 100 {
			fmt.Fprintln(a.Log, i)
		}
		return errBroken
	})})
	for _, e := range f.events.all() {
		if e.State == event.Failed && e.Kind == event.NodeState {
			if tail := e.Failure.Tail; len(tail) != 40 || tail[0] != "60" || tail[39] != "99" {
				t.Errorf("tail %v, want 60 to 99", tail)
			}
			return
		}
	}
	t.Error("no failure seen")
}

// Output without a single newline: what is kept must not grow with it.
func TestLogMemoryIsBounded(t *testing.T) {
	f := newFixture(t)
	f.MaxLog = 1 << 40
	f.Sink = nil
	f.Mask = NewMask("topsecret")
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	var before, after runtime.MemStats
	f.run(t, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 16 {
			if _, err := a.Log.Write(chunk); err != nil {
				return err
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return nil
	})})
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("16 MiB of output left %d KiB on the heap", grown>>10)
	}
}

func TestLogName(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"packages":             "packages.log",
		"web_1.x=2":            "web_1.x=2.log",
		"web/packages":         "web-packages-ed614e63.log",
		"web[arch=arm64]/disk": "web-arch=arm64--disk-27288d86.log",
	} {
		if got := LogName(id); got != want {
			t.Errorf("LogName(%q) = %q, want %q", id, got, want)
		}
	}
	seen := map[string]string{}
	for _, id := range []string{"a/b", "a-b", "a:b", "a b", "../a", "..", ".hidden", strings.Repeat("a", 300), strings.Repeat("a", 301)} {
		name := LogName(id)
		if strings.ContainsAny(name, "/ ") || strings.HasPrefix(name, ".") || len(name) > 255 || seen[name] != "" {
			t.Errorf("LogName(%q) = %q, as %q has", id, name, seen[name])
		}
		seen[name] = id
	}
}

func FuzzHarmless(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\xff\xfe", "a\u202eb", "\x1b\x1b[[0m0m", "\x9b1m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := harmless(s)
		if !utf8.ValidString(got) {
			t.Errorf("harmless(%q) = %q, not UTF-8", s, got)
		}
		for _, c := range got {
			if c == 0x1b || (c < ' ' && c != '\t' && c != '\n') || (c >= 0x7f && c < 0xa0) {
				t.Errorf("harmless(%q) = %q has control character %U", s, got, c)
			}
		}
		if again := harmless(got); again != got {
			t.Errorf("harmless(%q) = %q, and again %q", s, got, again)
		}
	})
}
