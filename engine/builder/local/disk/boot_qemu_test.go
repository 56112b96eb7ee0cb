package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBootsInQEMU(t *testing.T) {
	t.Parallel()
	raw := assemble(t, debianTree(t), layout())
	for _, tc := range []struct {
		name string
		args []string
	}{
		{"seabios", nil},
		{"ovmf", []string{
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,format=raw,unit=1,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// What systemd says of multi-user itself is lost when getty takes the console first.
			console := bootUntil(t, raw, tc.args, "login:")
			root := "root=UUID=" + layout().id("root file system").String()
			if !strings.Contains(console, root) {
				t.Errorf("no %q on the kernel's command line; console:\n%s", root, console)
			}
			if strings.Contains(console, "[FAILED]") {
				t.Errorf("a unit failed; console:\n%s", console)
			}
		})
	}
}

// TestMenuFindsKernel looks only at which kernel GRUB starts.
func TestMenuFindsKernel(t *testing.T) {
	t.Parallel()
	const newer = "9.9.9-1-amd64"
	for _, tc := range []struct {
		name string
		// tree changes the tree before the disk is made, disk the disk thereafter, as an
		// upgrade in the running image does.
		tree func(t *testing.T, root, version string)
		disk func(t *testing.T, raw, version string)
		want func(version string) string
	}{
		{
			name: "links in boot",
			tree: func(t *testing.T, root, version string) {
				unlink(t, root)
				must(t, os.Symlink("vmlinuz-"+version, filepath.Join(root, "boot/vmlinuz")))
				must(t, os.Symlink("/boot/initrd.img-"+version, filepath.Join(root, "boot/initrd.img")))
			},
			want: func(string) string { return "/boot/vmlinuz " },
		},
		{
			name: "newest file without links",
			tree: func(t *testing.T, root, version string) {
				unlink(t, root)
				must(t, os.Link(filepath.Join(root, "boot/vmlinuz-"+version), filepath.Join(root, "boot/vmlinuz-"+newer)))
				must(t, os.Link(filepath.Join(root, "boot/initrd.img-"+version), filepath.Join(root, "boot/initrd.img-"+newer)))
			},
			want: func(string) string { return "/boot/vmlinuz-" + newer + " " },
		},
		{
			name: "kernel replaced later without links",
			tree: func(t *testing.T, root, _ string) { unlink(t, root) },
			disk: func(t *testing.T, raw, version string) {
				for _, name := range []string{"/boot/vmlinuz-", "/boot/initrd.img-"} {
					debugfs(t, raw, "ln "+name+version+" "+name+newer)
					debugfs(t, raw, "unlink "+name+version)
				}
			},
			want: func(string) string { return "/boot/vmlinuz-" + newer + " " },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			root := linkedTree(t)
			kernels, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
			if err != nil || len(kernels) != 1 {
				t.Fatalf("kernels in the tree: %q, %v; want one", kernels, err)
			}
			version := strings.TrimPrefix(filepath.Base(kernels[0]), "vmlinuz-")
			tc.tree(t, root, version)
			raw := assemble(t, root, layout())
			if tc.disk != nil {
				tc.disk(t, raw, version)
			}
			want := "Command line: BOOT_IMAGE=" + tc.want(version)
			bootUntil(t, raw, nil, want)
		})
	}
}

// unlink removes the links to the newest kernel.
func unlink(t *testing.T, root string) {
	t.Helper()
	for _, name := range []string{"vmlinuz", "initrd.img", "vmlinuz.old", "initrd.img.old"} {
		must(t, os.Remove(filepath.Join(root, name)))
	}
}

// debugfs runs a request on the root file system within a disk.
func debugfs(t *testing.T, raw, request string) string {
	t.Helper()
	return tool(t, "debugfs", "-w", "-R", request, fmt.Sprintf("%s?offset=%d", raw, layout().rootStart()))
}

// bootUntil boots a throw-away copy until the serial console has said all texts, and
// returns what it said.
func bootUntil(t *testing.T, raw string, extra []string, texts ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	// TCG, because /dev/kvm exists on machines whose KVM can't run a guest.
	args := append([]string{
		"-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "1024", "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot",
		"-serial", "stdio", "-device", "virtio-rng-pci", "-drive", "if=virtio,format=raw,snapshot=on,file=" + raw,
	}, extra...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start QEMU (packages qemu-system-x86, ovmf): %v", err)
	}
	console, ok := readUntil(stdout, texts)
	cancel()
	waitErr := cmd.Wait()
	if !ok {
		t.Fatalf("the guest never said all of %q: %v\n%s\nconsole:\n%s", texts, waitErr, stderr.String(), console)
	}
	return console
}

// readUntil reads until all texts were seen; ok is false if r ended before.
func readUntil(r io.Reader, texts []string) (seen string, ok bool) {
	var all strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		all.Write(buf[:n])
		missing := 0
		for _, text := range texts {
			if !strings.Contains(all.String(), text) {
				missing++
			}
		}
		if missing == 0 || err != nil {
			return all.String(), missing == 0
		}
	}
}
