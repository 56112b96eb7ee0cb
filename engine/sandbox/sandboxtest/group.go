package sandboxtest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// group is the folder of a cgroup: all processes of a machine are in it, or below.
type group string

// groupWithin is how long the kernel may take with a cgroup.
const groupWithin = 10 * time.Second

func newGroup() (group, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		// The type comes after a dash; what stands before it varies in number.
		dash := slices.Index(fields, "-")
		if dash > 4 && len(fields) > dash+1 && fields[dash+1] == "cgroup2" {
			dir, err := os.MkdirTemp(fields[4], "gild-quick-")
			if err != nil {
				return "", fmt.Errorf("make a cgroup (quick machines need root): %w", err)
			}
			return group(dir), os.Chmod(dir, 0o755)
		}
	}
	return "", errors.Join(errors.New("no cgroup2 hierarchy is mounted"), lines.Err())
}

// start starts a command in the group.
func (g group) start(cmd *exec.Cmd) error {
	dir, err := os.Open(string(g))
	if err != nil {
		return err
	}
	defer dir.Close()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	return cmd.Start()
}

// freeze stops all processes, or lets them go on.
func (g group) freeze(stop bool) error {
	word := "0"
	if stop {
		word = "1"
	}
	if err := os.WriteFile(filepath.Join(string(g), "cgroup.freeze"), []byte(word), 0); err != nil {
		return err
	}
	for deadline := time.Now().Add(groupWithin); ; time.Sleep(time.Millisecond) {
		events, err := os.ReadFile(filepath.Join(string(g), "cgroup.events"))
		if err != nil {
			return err
		}
		if strings.Contains(string(events), "frozen "+word) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cgroup %s hasn't changed within %s", g, groupWithin)
		}
	}
}

// remove removes the group with those below, once the last of its processes is gone.
// Removing it again changes nothing.
func (g group) remove() error {
	var dirs []string
	err := filepath.WalkDir(string(g), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		err = errors.Join(err, removeGroup(dir))
	}
	return err
}

func removeGroup(dir string) error {
	for deadline := time.Now().Add(groupWithin); ; time.Sleep(time.Millisecond) {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove the cgroup %s: %w", dir, err)
		}
	}
}
