// Package procs starts processes so that they end with gild, and finds and ends what they
// started in turn, whose parent or process group may be another by then.
//
// A question about a process id goes in; out come the ids of the processes of which it holds.
// Most questions are about [Variable], which processes inherit from their parents. The
// package asks nothing of this process, ends it never, and keeps no state.
package procs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// RunEnv names the variable that marks the process of a plugin and all that it starts.
const RunEnv = "GILD_PLUGIN_RUN"

// killTime is how long [Kill] goes on: the kernel may need time to end a process, and a
// process may start others meanwhile.
const killTime = 10 * time.Second

// Find returns the ids of the processes that are wanted, without this one, sorted.
func Find(wanted func(pid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() && wanted(pid) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

// Kill kills the processes that are wanted until there is none, and returns those it killed.
// It is an error when some are still there after 10 s, or must not be killed.
func Kill(wanted func(pid int) bool) (killed []int, err error) {
	for deadline := time.Now().Add(killTime); ; time.Sleep(time.Millisecond) {
		left, err := Find(wanted)
		for _, pid := range left {
			ok, failed := kill(pid, wanted)
			if ok && !slices.Contains(killed, pid) {
				killed = append(killed, pid)
			}
			err = errors.Join(err, failed)
		}
		if err == nil && len(left) > 0 && time.Now().After(deadline) {
			err = fmt.Errorf("the processes %v are still there %v after they were killed", left, killTime)
		}
		if err != nil || len(left) == 0 {
			return killed, err
		}
	}
}

// kill kills a process if it still is one that is wanted.
func kill(pid int, wanted func(pid int) bool) (bool, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		if !wanted(pid) {
			return false, nil
		}
		err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("end process %d: %w", pid, err)
	}
	return true, nil
}

// Variable returns the value of a variable that a process was started with. It is empty for
// a process that was started without, that is dead, or that isn't ours to look at.
func Variable(pid int, name string) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}
