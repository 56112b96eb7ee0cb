package journal_test

import (
	"fmt"
	"testing"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/event"
	"github.com/gildhq/gild/engine/journal"
	"github.com/gildhq/gild/engine/step"
)

// BenchmarkTenThousandNodes is the journal's part of a graph of 10,000 nodes: each starts and ends.
func BenchmarkTenThousandNodes(b *testing.B) {
	b.ReportAllocs()
	j := fresh(b)
	run := 0
	for b.Loop() {
		run++
		for _, state := range []event.State{event.Running, event.Done} {
			for i := range 10_000 {
				must(b, j.SetNode(journal.Node{Run: fmt.Sprint(run), ID: fmt.Sprintf("web/step-%d", i), State: state, Started: noon}))
			}
		}
		must(b, j.Flush(b.Context()))
	}
}

// BenchmarkIntent opens and settles an entry: two durable calls.
func BenchmarkIntent(b *testing.B) {
	b.ReportAllocs()
	j := fresh(b)
	for b.Loop() {
		id, err := j.Intent(b.Context(), "run", "node", builder.Resource{Kind: "tmpdir", ID: "/x"})
		must(b, err)
		must(b, j.Settle(b.Context(), id))
	}
}

// BenchmarkIntentParallel does the same from many goroutines, which share the syncs.
func BenchmarkIntentParallel(b *testing.B) {
	j := fresh(b)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id, err := j.Intent(b.Context(), "run", "node", builder.Resource{Kind: "tmpdir", ID: "/x"})
			if err == nil {
				err = j.Settle(b.Context(), id)
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkResults looks 10,000 keys up at once, one in a hundred of them known.
func BenchmarkResults(b *testing.B) {
	j := fresh(b)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("%064d", i)
	}
	for i := 0; i < len(keys); i += 100 {
		must(b, j.SaveResult(b.Context(), keys[i], step.Outputs{"port": 80}))
	}
	for b.Loop() {
		_, err := j.Results(b.Context(), keys)
		must(b, err)
	}
}

// BenchmarkOpen opens a journal that is up to date, and closes it: what every command pays.
func BenchmarkOpen(b *testing.B) {
	path := b.TempDir() + "/gild.db"
	j, err := journal.Open(b.Context(), path)
	must(b, err)
	must(b, j.Close())
	for b.Loop() {
		j, err := journal.Open(b.Context(), path)
		must(b, err)
		must(b, j.Close())
	}
}
