package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gildhq/gild/plugins/internal/procs"
)

// offspring tells of the processes that have the token or belong to the process group, and
// aren't dead and only wait to be collected.
func (p *process) offspring(pid int) bool {
	stat, err := readStat(pid)
	if err != nil || stat.state == 'Z' || stat.state == 'X' {
		return false // gone while we looked
	}
	return stat.group == p.pid || procs.Variable(pid, procs.RunEnv) == p.token
}

type procStat struct {
	state byte
	group int
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	// The name stands in parentheses and may hold anything, these included.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 3 {
		return procStat{}, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	group, err := strconv.Atoi(fields[2])
	return procStat{state: fields[0][0], group: group}, err
}

// usage is what a process holds.
type usage struct {
	// memory is resident, in bytes.
	memory int64
	files  int
}

func readUsage(pid int) (usage, error) {
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return usage{}, fmt.Errorf("count the open files of the plugin: %w", err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return usage{}, fmt.Errorf("read the memory of the plugin: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return usage{}, errors.New("read the memory of the plugin: its process is gone")
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return usage{memory: pages * int64(os.Getpagesize()), files: len(files)}, err
}

// commandLine shows a process to people.
func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return strconv.Itoa(pid)
	}
	line := strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	if len(line) > 200 {
		line = line[:200] + "..."
	}
	return fmt.Sprintf("%d (%s)", pid, line)
}

// eventually asks again until holds says yes; false when it didn't within the time.
func eventually(ctx context.Context, within time.Duration, holds func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return holds()
		case <-tick.C:
		}
	}
	return true
}
