package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

// image is a small real disk, made when the first test asks for it.
type image struct {
	once     sync.Once
	dir, raw string
	err      error
}

var debian image

// The jobs that make it: packages' scripts run in the first, so it is given nothing but the tree.
const (
	treeJob = "guest.test.tree"
	diskJob = "guest.test.disk"
)

func init() {
	sandbox.Register(treeJob, makeTree)
	sandbox.Register(diskJob, makeRaw)
}

func TestMain(m *testing.M) {
	sandbox.Init()
	if token := os.Getenv(abandonEnv); token != "" {
		fmt.Fprintln(os.Stderr, abandonGuest(token))
		os.Exit(1)
	}
	code := m.Run()
	if err := debian.remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (i *image) make() { i.err = i.tryMake(context.Background()) }

func (i *image) tryMake(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "gild-guest-test-")
	if err != nil {
		return err
	}
	i.dir, i.raw = dir, filepath.Join(dir, "image", "disk.raw")
	ids, err := sandbox.FindIDs()
	if err != nil {
		return err
	}
	if err := sandbox.MakeDirs(ctx, ids, dir, "tree", "image"); err != nil {
		return err
	}
	var log bytes.Buffer
	job := sandbox.JobConfig{IDs: ids, Upper: filepath.Join(dir, "tree")}
	if _, err := sandbox.RunJob(ctx, job, treeJob, proxies(), &log); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	job.Writable = []string{filepath.Dir(i.raw)}
	if _, err := sandbox.RunJob(ctx, job, diskJob, i.raw, &log); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	return nil
}

func (i *image) remove() error {
	if i.dir == "" {
		return nil
	}
	ids, err := sandbox.FindIDs()
	return errors.Join(err, sandbox.Remove(context.Background(), ids, i.dir))
}

func proxies() []string {
	var env []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// makeTree makes a Debian 12 with a kernel, systemd and DHCP.
func makeTree(ctx context.Context, tree string, raw json.RawMessage, _ io.Writer) error {
	var env []string
	if err := json.Unmarshal(raw, &env); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--skip=check/empty,chroot/mount/sys",
		"--include=linux-image-cloud-amd64,systemd-sysv,udev", "bookworm", tree)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap (package mmdebstrap): %w", err)
	}
	for name, content := range map[string]string{
		"etc/systemd/network/20-dhcp.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
		"etc/machine-id":                      "",
		"etc/hostname":                        "guest\n",
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	wants := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants")
	return os.Symlink("/lib/systemd/system/systemd-networkd.service", filepath.Join(wants, "systemd-networkd.service"))
}

// makeRaw makes a disk of the tree.
func makeRaw(ctx context.Context, tree string, raw json.RawMessage, _ io.Writer) error {
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return err
	}
	return disk.Assemble(ctx, tree, out, os.TempDir(), disk.Layout{
		Size: 2 << 30, Arch: "amd64", Firmware: []string{disk.BIOS, disk.UEFI}, Seed: "guest", Clock: time.Unix(1_790_000_000, 0),
	}, os.Stderr)
}

// debianDisk returns a disk with a Debian 12 that boots. It must not be changed.
func debianDisk(tb testing.TB) string {
	tb.Helper()
	debian.once.Do(debian.make)
	must(tb, debian.err)
	return debian.raw
}

// changedDisk returns a copy of the Debian disk on which debugfs has run commands.
func changedDisk(tb testing.TB, commands ...string) string {
	tb.Helper()
	offset := int64(0)
	raw := filepath.Join(tb.TempDir(), "disk.raw")
	must(tb, copyDisk(tb.Context(), raw, debianDisk(tb), &offset, "amd64"))
	script := filepath.Join(tb.TempDir(), "script")
	must(tb, os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600))
	tool(tb, "debugfs", "-w", "-f", script, fmt.Sprintf("%s?offset=%d", raw, offset))
	return raw
}

// blankDisk returns a small disk that no firmware can boot, with a root file system on
// which the agent has a place.
func blankDisk(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	must(tb, writeBlankDisk(dir))
	return filepath.Join(dir, "blank.raw")
}

func writeBlankDisk(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "tree/lib/systemd/system/sysinit.target.wants"), 0o755); err != nil {
		return err
	}
	raw := filepath.Join(dir, "blank.raw")
	if err := errors.Join(os.WriteFile(raw, nil, 0o644), os.Truncate(raw, 40<<20)); err != nil {
		return err
	}
	fdisk := exec.Command("sfdisk", "--quiet", raw)
	fdisk.Stdin = strings.NewReader("label: gpt\nstart=2048, size=65536, type=" + rootTypes["amd64"] + "\n")
	mkfs := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", filepath.Join(dir, "tree"), "-E", "offset=1048576", raw, "32M")
	for _, cmd := range []*exec.Cmd{fdisk, mkfs} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v (packages fdisk, e2fsprogs): %w\n%s", cmd.Args, err, out)
		}
	}
	return nil
}

func digest(tb testing.TB, path string) string {
	tb.Helper()
	f, err := os.Open(path)
	must(tb, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(tb, err)
	return hex.EncodeToString(h.Sum(nil))
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// tool runs a command that must succeed and returns what it printed.
func tool(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
