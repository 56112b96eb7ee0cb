package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
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
		{"ovmf", []string{"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd", "-drive", "if=pflash,format=raw,unit=1,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bootToMultiUser(t, raw, tc.args)
		})
	}
}

// bootToMultiUser boots a throw-away copy and reads the serial console until systemd
// reaches multi-user.
func bootToMultiUser(t *testing.T, raw string, extra []string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, fmt.Errorf("not booted within 5 minutes"))
	defer cancel()
	args := append([]string{
		"-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "1024", "-smp", "1", "-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot",
		"-serial", "stdio", "-device", "virtio-rng-pci", "-drive", "if=virtio,format=raw,snapshot=on,file=" + raw,
	}, extra...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start QEMU (package qemu-system-x86): %v", err)
	}
	var console strings.Builder
	ok := readUntil(stdout, &console, "Multi-User System", "login:")
	cancel()
	waitErr := cmd.Wait()
	if !ok {
		t.Fatalf("the guest didn't reach multi-user: %v\n%s\nconsole:\n%s", waitErr, stderr.String(), console.String())
	}
	root := "root=UUID=" + layout().id("root file system").String()
	if !strings.Contains(console.String(), root) {
		t.Errorf("no %q on the kernel's command line; console:\n%s", root, console.String())
	}
	if strings.Contains(console.String(), "[FAILED]") {
		t.Errorf("a unit failed; console:\n%s", console.String())
	}
}

// readUntil copies r into seen until seen holds all of the texts.
func readUntil(r io.Reader, seen *strings.Builder, texts ...string) bool {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		seen.Write(buf[:n])
		missing := 0
		for _, text := range texts {
			if !strings.Contains(seen.String(), text) {
				missing++
			}
		}
		if missing == 0 || err != nil {
			return missing == 0
		}
	}
}
