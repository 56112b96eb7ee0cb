package host

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killMarked kills every process whose token is wanted, until there is none. A process that
// starts others while it is being killed can win only a few rounds.
func killMarked(wanted func(token string) bool) []int {
	var killed []int
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		pids := marked(wanted)
		for _, pid := range pids {
			if killIfMarked(pid, wanted) && !slices.Contains(killed, pid) {
				killed = append(killed, pid)
			}
		}
		if len(pids) == 0 || time.Now().After(deadline) {
			return killed
		}
	}
}

// killIfMarked kills a process if it still is one whose token is wanted.
func killIfMarked(pid int, wanted func(token string) bool) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return wanted(tokenOf(pid)) && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// marked lists the processes whose token is wanted.
func marked(wanted func(token string) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if wanted(tokenOf(pid)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tokenOf returns the token in a process's environment. It is empty for one that has none,
// that is dead, or that isn't ours to look at.
func tokenOf(pid int) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(tokenEnv+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// searchEvery is how many looks at the memory of a process's children come before the next
// search for those that have left it, which reads something of every process there is.
const searchEvery = 5

// watchMemory kills the process when it and what it started use more memory than they may:
// its children, theirs, and others with its mark. A limit by the kernel would be on
// addresses, of which many runtimes reserve far more than they use.
func (p *program) watchMemory() {
	tick := time.NewTicker(p.tick)
	defer tick.Stop()
	mine := func(token string) bool { return token == p.seat.token }
	var away []int
	for n := 0; ; n++ {
		select {
		case <-p.exited:
			return
		case <-tick.C:
		}
		if n%searchEvery == 0 {
			away = marked(mine)
		}
		seen := map[int]bool{}
		used := memoryOf(p.pid, seen)
		for _, pid := range away {
			// By now the number may be another's.
			if !seen[pid] && mine(tokenOf(pid)) {
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
