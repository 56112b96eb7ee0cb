package run

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
)

// BenchmarkRun10000 runs 10,000 tasks that do nothing, a hundred chains of a hundred
// that also need their neighbour, with the journal on a real file.
func BenchmarkRun10000(b *testing.B) {
	var tasks []Task
	for chain := range 100 {
		for i := range 100 {
			t := Task{ID: fmt.Sprintf("p%d/%d", chain, i), Title: "nothing", Do: ok()}
			if i > 0 {
				t.Needs = append(t.Needs, fmt.Sprintf("p%d/%d", chain, i-1))
				if chain > 0 {
					t.Needs = append(t.Needs, fmt.Sprintf("p%d/%d", chain-1, i-1))
				}
			}
			tasks = append(tasks, t)
		}
	}
	f := newFixture(b)
	f.Workers, f.Sink = 0, event.JSONL(io.Discard)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		f.Run = fmt.Sprint("bench", i)
		if err := f.Journal.StartRun(b.Context(), journal.Run{ID: f.Run, State: event.Running, Started: time.Now()}); err != nil {
			b.Fatal(err)
		}
		if res := f.run(b, tasks...); res.State != event.Done {
			b.Fatalf("ended %s", res.State)
		}
	}
}

// BenchmarkLog writes output through masks, lines, events and the file.
func BenchmarkLog(b *testing.B) {
	for name, line := range map[string]string{
		"short": "y\n",
		"usual": "Get:12 deb.example/debian bookworm/main amd64 nginx-light amd64 1.22.1-9 [5,123 B]\n",
	} {
		b.Run(name, func(b *testing.B) {
			f := newFixture(b)
			f.Sink, f.MaxLog = event.JSONL(io.Discard), 1<<50
			f.Mask = NewMask("correct horse battery staple", "hunter22")
			chunk := []byte(strings.Repeat(line, 32<<10/len(line)))
			b.SetBytes(int64(len(chunk)))
			f.run(b, Task{ID: "a", Do: do(func(_ context.Context, a *Attempt) error {
				for b.Loop() {
					if _, err := a.Log.Write(chunk); err != nil {
						return err
					}
				}
				return nil
			})})
		})
	}
}

func BenchmarkMask(b *testing.B) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n", 28)
	text := bytes.Repeat([]byte("Get:12 deb.example/debian bookworm/main amd64 nginx-light 1.22.1-9\n"), 1000)
	m := NewMask(key, "hunter22", "correct horse battery staple")
	b.SetBytes(int64(len(text)))
	w := m.Writer(io.Discard)
	for b.Loop() {
		if _, err := w.Write(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNewMask builds the mask of a private key.
func BenchmarkNewMask(b *testing.B) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n", 28)
	b.ReportAllocs()
	for b.Loop() {
		NewMask(key)
	}
}
