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

// watchMemory kills the process when it and its children use more memory than they may.
// A limit by the kernel would be on addresses, of which many runtimes reserve far more than
// they use.
func (p *program) watchMemory() {
	tick := time.NewTicker(p.tick)
	defer tick.Stop()
	for {
		select {
		case <-p.exited:
			return
		case <-tick.C:
		}
		if used := memoryOf(p.pid, map[int]bool{}); used > p.limits.Memory {
			p.kill(fmt.Errorf("it used %s of memory, and may use %s; `limits: {memory: ...}` in its plugin.yaml sets how much",
				size(used), size(p.limits.Memory)))
			return
		}
	}
}

// memoryOf adds up the private memory of a process and its descendants, in bytes.
func memoryOf(pid int, seen map[int]bool) int64 {
	if seen[pid] {
		return 0
	}
	seen[pid] = true
	used := privateMemory(pid)
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

// privateMemory is what a process holds in memory and shares with no file, in bytes; 0 when
// it has ended.
func privateMemory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var total, resident, shared int64
	if _, err := fmt.Sscan(string(text), &total, &resident, &shared); err != nil {
		return 0
	}
	return (resident - shared) * int64(os.Getpagesize())
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
