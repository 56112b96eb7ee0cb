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

// clock is before the test, so that what the test makes is set back to it.
var clock = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// bootstrap is a small real tree, made when the first test asks for it.
type bootstrap struct {
	once sync.Once
	dir  string
	err  error
}

var debian bootstrap

func (b *bootstrap) make() {
	if b.dir, b.err = os.MkdirTemp("", "gild-disk-test-"); b.err != nil {
		return
	}
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include=linux-image-cloud-amd64,systemd-sysv,udev",
		"bookworm", filepath.Join(b.dir, "tree")).CombinedOutput()
	if err != nil {
		b.err = fmt.Errorf("mmdebstrap (package mmdebstrap): %w\n%s", err, out)
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if debian.dir != "" {
		if err := os.RemoveAll(debian.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// debianTree returns the root of a minimal Debian 12 that is able to boot. Tests must not change it.
func debianTree(tb testing.TB) string {
	tb.Helper()
	debian.once.Do(debian.make)
	must(tb, debian.err)
	return filepath.Join(debian.dir, "tree")
}

// linkedTree returns a copy of the tree whose files are hard links: names may be
// changed in it, contents must not.
func linkedTree(tb testing.TB) string {
	tb.Helper()
	root := filepath.Join(filepath.Dir(debianTree(tb)), filepath.Base(tb.TempDir())+"-"+strings.ReplaceAll(tb.Name(), "/", "-"))
	tool(tb, "cp", "-al", debianTree(tb), root)
	tb.Cleanup(func() { must(tb, os.RemoveAll(root)) })
	return root
}

// tinyTree returns a tree with files that pass for a kernel and an initramfs.
func tinyTree(tb testing.TB) string {
	tb.Helper()
	root := tb.TempDir()
	put(tb, root, "boot/vmlinuz-6.1.0-1-amd64", "kernel")
	put(tb, root, "boot/initrd.img-6.1.0-1-amd64", "initramfs")
	return root
}

func put(tb testing.TB, root, name, content string) {
	tb.Helper()
	path := filepath.Join(root, name)
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	must(tb, os.WriteFile(path, []byte(content), 0o644))
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

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
