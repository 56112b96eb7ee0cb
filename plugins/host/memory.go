package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gildhq/gild/plugins/internal/procs"
)

// searchEvery is how many looks at the memory of a process's children come before the next
// search for those that have left it, which reads something of every process there is.
const searchEvery = 5

// watchMemory kills the process when it and what it started use more memory than they may:
// its children, theirs, and others with its mark. A limit by the kernel would be on
// addresses, of which many runtimes reserve far more than they use.
func (p *program) watchMemory() {
	tick := time.NewTicker(p.tick)
	defer tick.Stop()
	var away []int
	for n := 0; ; n++ {
		select {
		case <-p.exited:
			return
		case <-tick.C:
		}
		if n%searchEvery == 0 {
			var err error
			if away, err = procs.Find(p.seat.holds); err != nil {
				p.kill(fmt.Errorf("watch its memory: %w", err))
				return
			}
		}
		seen := map[int]bool{}
		used := memoryOf(p.pid, seen)
		for _, pid := range away {
			// By now the number may be another's.
			if !seen[pid] && p.seat.holds(pid) {
				used += memoryOf(pid, seen)
			}
		}
		if used > p.limits.Memory {
			p.kill(fmt.Errorf("it used %s of memory, and may use %s; `limits: {memory: ...}` in its plugin.yaml sets how much",
				size(used), size(p.limits.Memory)))
			return
		}
	}
}

// memoryOf adds up the memory of a process and its descendants, in bytes, without those seen.
func memoryOf(pid int, seen map[int]bool) int64 {
	if seen[pid] {
		return 0
	}
	seen[pid] = true
	used := ownMemory(pid)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return used
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				used += memoryOf(child, seen)
			}
		}
	}
	return used
}

// ownMemory is what a process holds in memory that is no file on a disk, in bytes: its own
// and what it shares with others, which counts for each of them. It is 0 for a process that
// has ended.
func ownMemory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var used int64
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "RssAnon" && name != "RssShmem" {
			continue
		}
		if kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err == nil {
			used += kib << 10
		}
	}
	return used
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}
