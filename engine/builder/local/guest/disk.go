package guest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const diskName = "disk.raw"

// The agent that goes on the copy of the disk.
var (
	//go:embed agent.sh
	agentScript []byte
	//go:embed agent.service
	agentUnit []byte
)

// AgentScript is the agent, a POSIX shell script, for images that have it as a service of
// their own: its one argument is [MachineConfig.AgentPorts]. It wants a cgroup of its own
// that it may divide (Delegate=yes).
func AgentScript() []byte { return bytes.Clone(agentScript) }

// makeDisk makes the guest's own disk: the image, with the agent on it.
func makeDisk(ctx context.Context, c Config) error {
	offset := c.RootOffset
	disk := filepath.Join(c.Dir, diskName)
	if err := copyDisk(ctx, disk, c.Disk, &offset, c.Arch); err != nil {
		return fmt.Errorf("make a throw-away copy of the disk: %w", err)
	}
	if err := addAgent(ctx, c.Dir, offset); err != nil {
		return fmt.Errorf("put the test agent on the throw-away copy: %w", err)
	}
	return nil
}

// copyDisk copies the data of src to the new file dst and leaves its holes out. When
// *offset is 0 it is set to where the root file system starts. Nothing is synced: the
// copy isn't meant to outlive the guest.
func copyDisk(ctx context.Context, dst, src string, offset *int64, arch string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if *offset == 0 {
		if *offset, err = findRoot(in, arch); err != nil {
			return fmt.Errorf("find the root partition: %w", err)
		}
	}
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	return copyData(ctx, out, in, info.Size())
}

// copyPiece is how much is copied between two looks at the context.
const copyPiece = 64 << 20

func copyData(ctx context.Context, out, in *os.File, size int64) error {
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find data in %s: %w", in.Name(), err)
		}
		hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find a hole in %s: %w", in.Name(), err)
		}
		at = min(hole, data+copyPiece)
		if err := copyRange(out, in, data, at); err != nil {
			return err
		}
	}
	return nil
}

func copyRange(out, in *os.File, from, to int64) error {
	if _, err := in.Seek(from, io.SeekStart); err != nil {
		return err
	}
	if _, err := out.Seek(from, io.SeekStart); err != nil {
		return err
	}
	// Between two files this is copy_file_range.
	_, err := io.CopyN(out, in, to-from)
	return err
}

// On the guest's disk. /lib is where systemd is both with and without a merged /usr.
// A unit below /lib is no business of presets, which a first boot may apply.
const (
	unitDir    = "/lib/systemd/system"
	unitName   = "gild-agent.service"
	scriptDir  = "/lib/systemd"
	scriptName = "gild-agent"
	wantsDir   = "/lib/systemd/system/sysinit.target.wants"
)

// addAgent writes the agent into the ext4 file system at offset of the disk in dir,
// without mounting it.
func addAgent(ctx context.Context, dir string, offset int64) error {
	commands := strings.Join([]string{
		"cd " + scriptDir,
		"write gild-agent.sh " + scriptName,
		"sif " + scriptName + " mode 0100644", "sif " + scriptName + " uid 0", "sif " + scriptName + " gid 0",
		"cd " + unitDir,
		"write gild-agent.unit " + unitName,
		"sif " + unitName + " mode 0100644", "sif " + unitName + " uid 0", "sif " + unitName + " gid 0",
		"cd " + wantsDir,
		"symlink " + unitName + " ../" + unitName,
		// Read back what was written: debugfs ends with status 0 whatever happens.
		"cat " + scriptDir + "/" + scriptName,
		"cat " + unitDir + "/" + unitName,
		"stat " + wantsDir + "/" + unitName,
		"close",
		"",
	}, "\n")
	for name, data := range map[string][]byte{
		"gild-agent.sh": agentScript, "gild-agent.unit": agentUnit, "gild-agent.debugfs": []byte(commands),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return runDebugfs(ctx, dir, offset)
}

func runDebugfs(ctx context.Context, dir string, offset int64) error {
	cmd := exec.CommandContext(ctx, "debugfs", "-w", "-f", "gild-agent.debugfs", fmt.Sprintf("%s?offset=%d", diskName, offset))
	cmd.Dir = dir
	cmd.Env = toolEnv()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install e2fsprogs", err)
	}
	written := bytes.Contains(stdout.Bytes(), agentScript) && bytes.Contains(stdout.Bytes(), agentUnit) &&
		strings.Contains(stdout.String(), `"../`+unitName+`"`)
	if err != nil || !written {
		return errors.Join(err, fmt.Errorf("the root file system isn't ext4 with systemd and room for two files: debugfs: %s", complaints(stderr.String())))
	}
	return nil
}

// complaints leaves out the banner with which debugfs starts.
func complaints(stderr string) string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs 1.") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// toolEnv is the environment of the host's tools: no more than what finds them.
func toolEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C"}
}
