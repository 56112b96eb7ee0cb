package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestStartUnbootable(t *testing.T) {
	t.Parallel()
	kernels := []string{"rm /vmlinuz", "rm /boot/vmlinuz", "rm /boot/initrd.img"}
	for _, name := range bootFiles(t) {
		kernels = append(kernels, "rm /boot/"+name)
	}
	unsigned := blankDisk(t)
	f, err := os.OpenFile(unsigned, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{0, 0}, sectorSize-2)
	must(t, errors.Join(err, f.Close()))
	tests := []struct {
		name     string
		firmware string
		disk     string
		reason   string
	}{
		{"no boot sector", "bios", unsigned, "the firmware found nothing to boot"},
		{"no boot program", "uefi", blankDisk(t), "the firmware found nothing to boot and started its shell"},
		{"no kernel", "bios", changedDisk(t, kernels...), "the guest's boot loader couldn't start a kernel"},
		{"no init", "bios", changedDisk(t, "rm /sbin/init", "rm /usr/sbin/init", "rm /bin/sh", "rm /usr/bin/sh"), "the guest stopped in the shell of its initramfs"},
	}
	// One after the other: each takes a processor or two.
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g, err := Start(t.Context(), Config{
				Disk: test.disk, Arch: "amd64", Firmware: test.firmware, Dir: t.TempDir(), Token: "unbootable", Accel: TCG,
			})
			if err == nil {
				must(t, g.Close())
				t.Fatal("Start: no error")
			}
			var boot *BootError
			if !errors.As(err, &boot) || boot.Reason != test.reason {
				t.Fatalf("Start: %v\nwant a BootError with the reason %q", err, test.reason)
			}
			if boot.Console == "" {
				t.Error("the error doesn't have the end of the console")
			}
		})
	}
}

// bootFiles lists the kernels and initramfs of the Debian disk.
func bootFiles(t *testing.T) []string {
	t.Helper()
	f, err := os.Open(debianDisk(t))
	must(t, err)
	defer f.Close()
	offset, err := findRoot(f, "amd64")
	must(t, err)
	var names []string
	for _, word := range strings.Fields(tool(t, "debugfs", "-R", "ls /boot", fmt.Sprintf("%s?offset=%d", f.Name(), offset))) {
		if strings.HasPrefix(word, "vmlinuz-") || strings.HasPrefix(word, "initrd.img-") {
			names = append(names, word)
		}
	}
	if len(names) != 2 {
		t.Fatalf("boot files of the disk: %q, want a kernel and an initramfs", names)
	}
	return names
}

func TestStartTimeout(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	const token = "timeout"
	_, err := Start(ctx, Config{Disk: blankDisk(t), Arch: "amd64", Firmware: "uefi", Dir: t.TempDir(), Token: token, Accel: TCG})
	var boot *BootError
	if !errors.As(err, &boot) || !strings.HasPrefix(boot.Reason, "no answer from the guest within ") {
		t.Errorf("Start: %v, want no answer", err)
	}
	if pids := guests(t, token); len(pids) > 0 {
		t.Errorf("QEMU is still there: %v", pids)
	}
}

func TestStartCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the user has gone home")
	time.AfterFunc(time.Second, func() { cancel(cause) })
	_, err := Start(ctx, Config{Disk: blankDisk(t), Arch: "amd64", Firmware: "uefi", Dir: t.TempDir(), Token: "canceled", Accel: TCG})
	if !errors.Is(err, cause) {
		t.Errorf("Start: %v, want the cause of the cancellation", err)
	}
}

func TestStartBadConfig(t *testing.T) {
	t.Parallel()
	blank := blankDisk(t)
	noTable := filepath.Join(t.TempDir(), "zeros")
	must(t, errors.Join(os.WriteFile(noTable, nil, 0o600), os.Truncate(noTable, 1<<20)))
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"architecture", func(c *Config) { c.Arch = "riscv64" }, `no machine for architecture "riscv64": amd64 and arm64 are known`},
		{"firmware", func(c *Config) { c.Firmware = "coreboot" }, `firmware "coreboot": give bios or uefi`},
		{"token", func(c *Config) { c.Token = "a,b" }, `token "a,b": only letters, digits`},
		{"accelerator", func(c *Config) { c.Accel = "xen" }, `accelerator "xen": give "kvm", "tcg" or nothing`},
		{"memory", func(c *Config) { c.MemoryMiB = -1 }, "both must be positive"},
		{"no disk", func(c *Config) { c.Disk = "/nowhere/disk.raw" }, "no such file"},
		{"no table", func(c *Config) { c.Disk = noTable }, "the disk has no GUID partition table"},
		{"no file system", func(c *Config) { c.RootOffset = 512 }, "the root file system isn't ext4 with systemd"},
		{"QEMU refuses", func(c *Config) { c.CPUs = 100000 }, "QEMU ended with exit status 1: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := Config{Disk: blank, Arch: "amd64", Firmware: "bios", Dir: t.TempDir(), Token: "bad", Accel: TCG}
			test.change(&c)
			g, err := Start(t.Context(), c)
			if err == nil {
				must(t, g.Close())
				t.Fatal("Start: no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start: %v\nwant %q in it", err, test.want)
			}
		})
	}
}

const abandonEnv = "GILD_TEST_ABANDON"

// abandonGuest starts a guest that nobody closes.
func abandonGuest(token string) error {
	dir, err := os.MkdirTemp(os.Getenv("GILD_TEST_DIR"), "guest-")
	if err != nil {
		return err
	}
	if err := writeBlankDisk(dir); err != nil {
		return err
	}
	c := Config{Disk: filepath.Join(dir, "blank.raw"), Arch: "amd64", Firmware: "uefi", Dir: dir, Token: token, Accel: TCG}
	_, err = Start(context.Background(), c)
	return err
}

func TestHostKilled(t *testing.T) {
	t.Parallel()
	const token = "abandoned"
	self, err := os.Executable()
	must(t, err)
	host := exec.Command(self)
	host.Env = append(os.Environ(), abandonEnv+"="+token, "GILD_TEST_DIR="+t.TempDir())
	host.Stderr = os.Stderr
	must(t, host.Start())
	eventually(t, "QEMU starts", func() bool { return len(guests(t, token)) == 1 })
	must(t, host.Process.Kill())
	if err := host.Wait(); err == nil {
		t.Error("the host ended by itself")
	}
	eventually(t, "QEMU ends with its host", func() bool { return len(guests(t, token)) == 0 })
}

func TestKill(t *testing.T) {
	t.Parallel()
	const token = "killed-1"
	failed := make(chan error, 1)
	go func() {
		_, err := Start(t.Context(), Config{Disk: blankDisk(t), Arch: "amd64", Firmware: "uefi", Dir: t.TempDir(), Token: token, Accel: TCG})
		failed <- err
	}()
	eventually(t, "QEMU starts", func() bool { return len(guests(t, token)) == 1 })
	// Neither a guest whose token only begins alike nor another program of that name.
	must(t, Kill("killed"))
	impostor := exec.Command("sh", "-c", "sleep 60; :", "-name", processName(token))
	must(t, impostor.Start())
	if n := len(guests(t, token)); n != 1 {
		t.Fatalf("%d guests after the end of another one, want 1", n)
	}
	must(t, Kill(token))
	if pids := guests(t, token); len(pids) > 0 {
		t.Errorf("QEMU is still there: %v", pids)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("Start: %v, want that QEMU was killed", err)
	}
	if err := impostor.Process.Signal(os.Interrupt); err != nil {
		t.Errorf("another program with the name was ended too: %v", err)
	}
	must(t, impostor.Process.Kill())
	_ = impostor.Wait()
	must(t, Kill(token))
	if err := Kill("*"); err == nil {
		t.Error("Kill takes what is no token")
	}
}

// guests lists the processes that are guests with the token.
func guests(t *testing.T, token string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	must(t, err)
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && isGuest(pid, token) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
