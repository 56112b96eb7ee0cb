package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock is later than anything in Debian 12 when this was written, and earlier than the test.
var clock = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// debian makes a small real tree, once for all tests.
var debian = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gild-disk-test-")
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include=linux-image-cloud-amd64,systemd-sysv,udev", "bookworm", tree).CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("mmdebstrap (package mmdebstrap): %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	// Asking costs a bootstrap when no test wanted the tree.
	if treeUsed {
		if dir, err := debian(); dir != "" && err == nil {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

var (
	treeMu   sync.Mutex
	treeUsed bool
)

// debianTree returns the root of a minimal Debian 12 that is able to boot. Tests must not change it.
func debianTree(tb testing.TB) string {
	tb.Helper()
	treeMu.Lock()
	treeUsed = true
	treeMu.Unlock()
	dir, err := debian()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(dir, "tree")
}

func layout() Layout {
	return Layout{Size: 2 << 30, Arch: "amd64", Firmware: []string{BIOS, UEFI}, Seed: "test", Clock: clock}
}

// assemble makes a disk in a temporary folder and returns its path.
func assemble(tb testing.TB, root string, l Layout) string {
	tb.Helper()
	dir := tb.TempDir()
	out := filepath.Join(dir, "disk.raw")
	var log strings.Builder
	if err := Assemble(tb.Context(), root, out, dir, l, &log); err != nil {
		tb.Fatalf("Assemble: %v\n%s", err, log.String())
	}
	return out
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
