package disk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// extract copies a part of a disk to a file of its own.
func extract(t *testing.T, raw string, offset, size int64) string {
	t.Helper()
	in, err := os.Open(raw)
	must(t, err)
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "part.img"))
	must(t, err)
	defer out.Close()
	_, err = io.Copy(out, io.NewSectionReader(in, offset, size))
	must(t, err)
	return out.Name()
}

func TestAssembleIsSound(t *testing.T) {
	t.Parallel()
	l := layout()
	raw := assemble(t, debianTree(t), l)
	t.Run("partition table", func(t *testing.T) {
		t.Parallel()
		if got := tool(t, "sfdisk", "--verify", raw); !strings.Contains(got, "No errors detected") {
			t.Errorf("sfdisk finds errors:\n%s", got)
		}
	})
	t.Run("EFI system partition", func(t *testing.T) {
		t.Parallel()
		esp := extract(t, raw, mib+biosBootSize, espSize)
		tool(t, "fsck.vfat", "-n", esp)
		if got := tool(t, "mdir", "-i", esp, "-b", "::/EFI/BOOT"); !strings.Contains(got, "BOOTX64.EFI") {
			t.Errorf("no BOOTX64.EFI:\n%s", got)
		}
	})
	t.Run("root file system", func(t *testing.T) {
		t.Parallel()
		root := extract(t, raw, l.rootStart(), l.Size-mib-l.rootStart())
		tool(t, "e2fsck", "-fn", root)
	})
	t.Run("qcow2", func(t *testing.T) {
		t.Parallel()
		checkQCOW2(t, raw)
	})
	t.Run("digest", func(t *testing.T) {
		t.Parallel()
		got, allocated, err := Digest(t.Context(), raw, nil)
		must(t, err)
		want, _, _ := strings.Cut(tool(t, "sha256sum", raw), " ")
		if got != want {
			t.Errorf("digest is %s, want %s", got, want)
		}
		if allocated <= 0 || allocated > l.Size/2 {
			t.Errorf("the disk takes %d bytes: want it sparse", allocated)
		}
	})
}

func checkQCOW2(t *testing.T, raw string) {
	t.Helper()
	dir := t.TempDir()
	var digests [2]string
	for i := range digests {
		out := filepath.Join(dir, fmt.Sprintf("%d.qcow2", i))
		var last, total int64
		must(t, ConvertQCOW2(t.Context(), raw, out, func(d, n int64) {
			if d < last || d > n {
				t.Errorf("progress went from %d to %d of %d", last, d, n)
			}
			last, total = d, n
		}))
		if last != total || total != layout().Size {
			t.Errorf("progress ended at %d of %d, want the whole %d", last, total, layout().Size)
		}
		tool(t, "qemu-img", "check", out)
		var err error
		digests[i], _, err = Digest(t.Context(), out, nil)
		must(t, err)
	}
	if digests[0] != digests[1] {
		t.Errorf("two conversions differ: %s and %s", digests[0], digests[1])
	}
	back := filepath.Join(dir, "back.raw")
	tool(t, "qemu-img", "convert", "-O", "raw", filepath.Join(dir, "0.qcow2"), back)
	tool(t, "cmp", raw, back)
}

// TestAssembleSameBytes makes the tree again in another order, at another place and
// at other times.
func TestAssembleSameBytes(t *testing.T) {
	t.Parallel()
	again := t.TempDir()
	tool(t, "sh", "-c", `cd "$0" && find . -mindepth 1 | sort -r | tar --xattrs --no-recursion -cf - -T - | tar --xattrs --xattrs-include='*' -C "$1" -xpf -`,
		debianTree(t), again)
	var digests []string
	for _, root := range []string{debianTree(t), again} {
		got, _, err := Digest(t.Context(), assemble(t, root, layout()), nil)
		must(t, err)
		digests = append(digests, got)
	}
	if digests[0] != digests[1] {
		t.Errorf("two disks of equal trees differ: %s and %s", digests[0], digests[1])
	}
}

func TestAssembleNamesNothingOfTheHost(t *testing.T) {
	t.Parallel()
	raw := assemble(t, tinyTree(t), Layout{Size: 192 * mib, Arch: "amd64", Firmware: []string{BIOS, UEFI}, Seed: "x", Clock: clock})
	data, err := os.ReadFile(raw)
	must(t, err)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	for _, text := range []string{os.TempDir() + "/", filepath.Dir(raw), grubModules, strings.TrimSpace(string(release))} {
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("%q is on the disk", text)
		}
	}
}

func TestAssembleLayouts(t *testing.T) {
	t.Parallel()
	root := tinyTree(t)
	for _, tc := range []struct {
		name     string
		firmware []string
		want     []string
	}{
		{"both", []string{UEFI, BIOS}, []string{"gild-bios", "gild-esp", "gild-root"}},
		{"bios", []string{BIOS}, []string{"gild-bios", "gild-root"}},
		{"uefi", []string{UEFI}, []string{"gild-esp", "gild-root"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := layout()
			l.Size, l.Firmware = 256*mib, tc.firmware
			got := sfdisk(t, assemble(t, root, l))
			var names []string
			for _, p := range got.Partitions {
				names = append(names, p.Name)
			}
			if diff := cmp.Diff(tc.want, names); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			rootPart := got.Partitions[len(got.Partitions)-1]
			if !strings.EqualFold(rootPart.Type, typeRootAMD64.String()) || rootPart.Start%2048 != 0 || rootPart.Attrs != "GUID:59" {
				t.Errorf("root partition is %+v", rootPart)
			}
		})
	}
}

func TestAssembleRefuses(t *testing.T) {
	t.Parallel()
	with := func(change func(*Layout)) Layout {
		l := layout()
		l.Size = 256 * mib
		change(&l)
		return l
	}
	noInitrd := t.TempDir()
	put(t, noInitrd, "boot/vmlinuz-6.1", "kernel")
	badArgs := tinyTree(t)
	put(t, badArgs, "etc/kernel/cmdline", "quiet root=/dev/sda1\n")
	for _, tc := range []struct {
		name string
		root string
		l    Layout
		want string
	}{
		{"odd size", tinyTree(t), with(func(l *Layout) { l.Size++ }), "multiple of 1 MiB"},
		{"tiny size", tinyTree(t), with(func(l *Layout) { l.Size = 70 * mib }), "builders.local.disk.size"},
		{"no firmware", tinyTree(t), with(func(l *Layout) { l.Firmware = nil }), "no firmware"},
		{"unknown firmware", tinyTree(t), with(func(l *Layout) { l.Firmware = []string{"efi"} }), `unknown firmware "efi"`},
		{"unknown architecture", tinyTree(t), with(func(l *Layout) { l.Arch = "riscv64" }), `"riscv64"`},
		{"arm64 with BIOS", tinyTree(t), with(func(l *Layout) { l.Arch = "arm64" }), "arm64 has no BIOS"},
		{"early clock", tinyTree(t), with(func(l *Layout) { l.Clock = time.Time{} }), "1970"},
		{"no kernel", t.TempDir(), with(func(*Layout) {}), "the tree has no kernel"},
		{"no initramfs", noInitrd, with(func(*Layout) {}), "has no initramfs /boot/initrd.img-6.1"},
		{"root in the command line", badArgs, with(func(*Layout) {}), `/etc/kernel/cmdline: sets "root=/dev/sda1"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			err := Assemble(t.Context(), tc.root, filepath.Join(dir, "out"), dir, tc.l, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
			left, err := os.ReadDir(dir)
			must(t, err)
			if len(left) != 0 {
				t.Errorf("%v was left behind", left)
			}
		})
	}
}

func TestAssembleTooSmall(t *testing.T) {
	t.Parallel()
	l := layout()
	l.Size = 200 * mib
	dir := t.TempDir()
	err := Assemble(t.Context(), debianTree(t), filepath.Join(dir, "out"), dir, l, io.Discard)
	if err == nil {
		t.Fatal("the tree fits into 200 MiB")
	}
	m := regexp.MustCompile(`disk of 200 MiB is too small.*set builders\.local\.disk\.size to (\d+)MiB or more`).FindStringSubmatch(err.Error())
	if m == nil {
		t.Fatalf("the error names no size: %v", err)
	}
	enough, err := strconv.ParseInt(m[1], 10, 64)
	must(t, err)
	l.Size = enough * mib
	assemble(t, debianTree(t), l)
}

func TestAssembleKeepsAnExistingFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	must(t, os.WriteFile(out, []byte("precious"), 0o644))
	if err := Assemble(t.Context(), tinyTree(t), out, dir, layout(), io.Discard); !errors.Is(err, os.ErrExist) {
		t.Errorf("error is %v, want one that says the file exists", err)
	}
	if data, err := os.ReadFile(out); err != nil || string(data) != "precious" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

func TestConvertQCOW2Refuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	raw, out := filepath.Join(dir, "raw:1"), filepath.Join(dir, "out")
	if err := ConvertQCOW2(t.Context(), raw, out, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v, want one that says the disk doesn't exist", err)
	}
	must(t, os.WriteFile(raw, make([]byte, mib), 0o644))
	must(t, ConvertQCOW2(t.Context(), raw, out, nil))
	if err := ConvertQCOW2(t.Context(), raw, out, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("error is %v, want one that says the file exists", err)
	}
}

func TestDigestOfSparseFiles(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		size int64
		data []int64
	}{
		{"empty", 0, nil},
		{"only a hole", 3*mib + 5, nil},
		{"only data", 7, []int64{0}},
		{"data between holes", 9*mib + 1, []int64{mib - 3, 4 * mib}},
		{"data at the end", 5 * mib, []int64{5*mib - 7}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "file")
			f, err := os.Create(path)
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(tc.size))
			for _, at := range tc.data {
				_, err := f.WriteAt([]byte("content"), at)
				must(t, err)
			}
			got, _, err := Digest(t.Context(), path, nil)
			must(t, err)
			if want, _, _ := strings.Cut(tool(t, "sha256sum", path), " "); got != want {
				t.Errorf("digest is %s, want %s", got, want)
			}
		})
	}
}

func TestToolsAreInTheirPackages(t *testing.T) {
	t.Parallel()
	for _, w := range Tools() {
		path := w.Name
		if !filepath.IsAbs(path) {
			var err error
			if path, err = exec.LookPath(w.Name); err != nil {
				t.Errorf("%s (package %s): %v", w.Name, w.Package, err)
				continue
			}
		}
		if got := tool(t, "dpkg", "-S", path); !strings.HasPrefix(got, w.Package+":") {
			t.Errorf("%s is in %q, want %s", path, got, w.Package)
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	both, bios := layout(), layout()
	bios.Firmware = []string{BIOS}
	first, err := Fingerprint(both)
	must(t, err)
	second, err := Fingerprint(both)
	must(t, err)
	other, err := Fingerprint(bios)
	must(t, err)
	if first != second || first == other {
		t.Errorf("fingerprints are %s, %s and with other firmware %s", first, second, other)
	}
}

// sfdiskTable is what sfdisk makes of a partition table.
type sfdiskTable struct {
	ID         string
	LastLBA    uint64
	Partitions []struct {
		Start, Size             uint64
		Type, UUID, Name, Attrs string
	}
}

func sfdisk(tb testing.TB, path string) sfdiskTable {
	tb.Helper()
	cmd := exec.Command("sfdisk", "-J", path)
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("sfdisk -J (package fdisk): %v\n%s", err, out)
	}
	var got struct{ PartitionTable sfdiskTable }
	must(tb, json.Unmarshal(out, &got))
	return got.PartitionTable
}
