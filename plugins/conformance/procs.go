package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runEnv names the variable by whose value a plugin's processes are found.
const runEnv = "GILD_PLUGIN_RUN"

// offspring returns the process ids that have the token in their environment or belong to
// the process group, sorted, without those that are dead and only wait to be collected.
func offspring(token string, group int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	want := []byte(runEnv + "=" + token)
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := readStat(pid)
		if err != nil || stat.state == 'Z' || stat.state == 'X' {
			continue // gone while we looked
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil && !gone(err) && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("look at process %d: %w", pid, err)
		}
		if stat.group == group || slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) }) {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
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

// killAll ends what is left of a plugin, and what that starts meanwhile.
func killAll(token string, group int) error {
	var left []int
	var err error
	if !eventually(context.Background(), killTime, func() bool {
		if left, err = offspring(token, group); err != nil {
			return true
		}
		for _, pid := range left {
			if e := unix.Kill(pid, unix.SIGKILL); e != nil && !errors.Is(e, unix.ESRCH) {
				err = errors.Join(err, fmt.Errorf("end process %d: %w", pid, e))
			}
		}
		return err != nil || len(left) == 0
	}) {
		err = fmt.Errorf("the processes %v of the plugin don't end when killed", left)
	}
	return err
}

// killTime is how long the kernel may take to end killed processes.
const killTime = 10 * time.Second

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
