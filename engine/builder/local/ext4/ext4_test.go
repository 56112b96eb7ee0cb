package ext4

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var clock = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func options(size int64) Options {
	return Options{
		Size: size, Label: "test", Clock: clock,
		UUID:     [16]byte{0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0x4c, 0xde, 0x8f, 1, 2, 3, 4, 5, 6, 7},
		HashSeed: [16]byte{9, 8, 7, 6, 5, 4, 3, 2, 1},
	}
}

// write makes a file system of a tree and has e2fsck check it.
func write(tb testing.TB, root string, o Options) string {
	tb.Helper()
	path, err := tryWrite(tb, root, o)
	if err != nil {
		tb.Fatal(err)
	}
	tool(tb, "e2fsck", "-fn", path)
	return path
}

func tryWrite(tb testing.TB, root string, o Options) (string, error) {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "fs.img"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(o.Size); err != nil {
		tb.Fatal(err)
	}
	return f.Name(), Write(tb.Context(), f, 0, root, o)
}

// tool runs a command of e2fsprogs that must succeed and returns what it printed.
func tool(tb testing.TB, name string, args ...string) string {
	tb.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%s (package e2fsprogs) %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func debugfs(tb testing.TB, image, request string) string {
	tb.Helper()
	return tool(tb, "debugfs", "-R", request, image)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// testTree makes one of everything. The order of making things is turned round by reverse.
func testTree(tb testing.TB, reverse bool) string {
	tb.Helper()
	root := tb.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	var makers []func() error
	add := func(f func() error) { makers = append(makers, f) }
	file := func(name, content string, mode os.FileMode) {
		add(func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(content), 0o600), os.Chmod(at(name), mode))
		})
	}
	file("etc/motd", "hello\n", 0o644)
	file("usr/bin/su", strings.Repeat("x", 100_000), 0o755|fs.ModeSetuid)
	file("usr/bin/wall", "w", 0o755|fs.ModeSetgid)
	file("empty", "", 0o444)
	file("block", strings.Repeat("b", blockSize), 0o600)
	file(strings.Repeat("n", 255), "long", 0o644)
	file("naïve name\twith\nodd \xff bytes", "odd", 0o644)
	for i := range 700 {
		file(fmt.Sprintf("many/%s-%d", strings.Repeat("m", i%40), i), fmt.Sprint(i), 0o644)
	}
	add(func() error {
		return errors.Join(os.MkdirAll(at("tmp"), 0o755), os.Chmod(at("tmp"), 0o777|fs.ModeSticky), os.MkdirAll(at("a/b/c/d"), 0o750))
	})
	add(func() error {
		return errors.Join(os.Symlink("etc/motd", at("short")), os.Symlink(strings.Repeat("l", 59), at("fast")), os.Symlink(strings.Repeat("l", 60), at("slow")), os.Symlink("/"+strings.Repeat("t/", 2047), at("longest")))
	})
	add(func() error { return mknod(at("null"), unix.S_IFCHR|0o666, 1, 3) })
	add(func() error { return mknod(at("nvme"), unix.S_IFBLK|0o660, 259, 70000) })
	add(func() error {
		return errors.Join(unix.Mkfifo(at("fifo"), 0o600), mknod(at("socket"), unix.S_IFSOCK|0o700, 0, 0))
	})
	if reverse {
		slices.Reverse(makers)
	}
	for _, m := range makers {
		must(tb, m())
	}
	must(tb, os.Link(at("etc/motd"), at("usr/hard")))
	must(tb, os.Lchown(at("block"), 70_000, 3_000_000))
	must(tb, os.Lchown(at("short"), 33, 34))
	attributes(tb, root)
	sparse(tb, at("sparse"), !reverse)
	settle(tb, root, reverse)
	return root
}

func mknod(path string, mode, major, minor uint32) error {
	if err := unix.Mknod(path, mode, int(unix.Mkdev(major, minor))); err != nil {
		return fmt.Errorf("make %s (the test must run as root): %w", path, err)
	}
	return unix.Chmod(path, mode)
}

// capNetBind is cap_net_bind_service=ep in the kernel's second form.
var capNetBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// acl is user::rw-, user:70000:r--, group::r--, mask::r--, other::---.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 0xffffffff}, {2, 4, 70000}, {4, 4, 0xffffffff}, {0x10, 4, 0xffffffff}, {0x20, 0, 0xffffffff}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func attributes(tb testing.TB, root string) {
	tb.Helper()
	set := func(name, attribute string, value []byte) {
		must(tb, unix.Lsetxattr(filepath.Join(root, name), attribute, value, 0))
	}
	set("usr/bin/su", "security.capability", capNetBind)
	set("etc/motd", "system.posix_acl_access", acl())
	set("empty", "user.big", bytes.Repeat([]byte("v"), 3000))
	set("empty", "user.none", nil)
	set("empty", "user.a", []byte("1"))
	set("block", "user.overlay.opaque", []byte("y"))
	set("block", "trusted.mine", []byte("y"))
}

// sparse writes data between zeros, which are holes on the host or not.
func sparse(tb testing.TB, path string, holes bool) {
	tb.Helper()
	f, err := os.Create(path)
	must(tb, err)
	defer f.Close()
	const size = 5<<20 + 77
	if holes {
		must(tb, f.Truncate(size))
	} else {
		_, err := f.Write(make([]byte, size))
		must(tb, err)
	}
	for _, at := range []int64{100_000, 3 << 20} {
		_, err := f.WriteAt([]byte("data"), at)
		must(tb, err)
	}
}

// settle sets all times: some before the clock, which count, and all others at or
// after it, which don't.
func settle(tb testing.TB, root string, later bool) {
	tb.Helper()
	past := time.Date(1999, 12, 31, 23, 59, 59, 123456789, time.UTC)
	future := clock
	if later {
		future = clock.Add(1000 * time.Hour)
	}
	must(tb, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		mtime := future
		if d.Name() == "motd" || d.Name() == "hard" || d.Name() == "many" || d.Name() == "short" {
			mtime = past
		}
		ts := []unix.Timespec{unix.NsecToTimespec(time.Now().UnixNano()), unix.NsecToTimespec(mtime.UnixNano())}
		return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}))
}

func TestWriteKeepsEverything(t *testing.T) {
	t.Parallel()
	root := testTree(t, false)
	image := write(t, root, options(64<<20))
	for _, tc := range []struct {
		name, request string
		want          []string
	}{
		{"setuid and capability", "stat /usr/bin/su", []string{"Type: regular    Mode:  04755", "security.capability (20) = 01 00 00 02 00 04"}},
		{"setgid", "stat /usr/bin/wall", []string{"Mode:  02755"}},
		{"sticky", "stat /tmp", []string{"Type: directory    Mode:  01777"}},
		{"root", "stat /", []string{"Mode:  0755", "User:     0   Group:     0"}},
		{"large ids", "stat /block", []string{"User: 70000   Group: 3000000", "Size: 4096", "Blockcount: 8"}},
		{"owner of a link", "stat /short", []string{"User:    33   Group:    34", `Fast link dest: "etc/motd"`}},
		{"longest fast link", "stat /fast", []string{"Blockcount: 0", "Fast link dest"}},
		{"slow link", "stat /slow", []string{"Size: 60", "Blockcount: 8"}},
		{"longest link", "stat /longest", []string{"Size: 4095"}},
		{"hard link", "stat /usr/hard", []string{"Links: 2", "Size: 6"}},
		{"modification time before the clock", "stat /usr/hard", []string{"mtime: 0x386d437f:1d6f3454"}},
		{"time after the clock", "stat /null", []string{"mtime: 0x6ae729c0:00000000", "crtime: 0x6ae729c0:00000000", "ctime: 0x6ae729c0:00000000"}},
		{"character device", "stat /null", []string{"Type: character special    Mode:  0666", "Device major/minor number: 01:03"}},
		{"large device number", "stat /nvme", []string{"Type: block special", "Device major/minor number: 259:70000"}},
		{"fifo", "stat /fifo", []string{"Type: FIFO    Mode:  0600"}},
		{"socket", "stat /socket", []string{"Type: socket    Mode:  0700"}},
		{"sparse", "stat /sparse", []string{"Size: 5242957", "Blockcount: 256"}},
		{"attributes in a block", "ea_get /empty user.a", []string{`user.a (1) = "1"`}},
		{"long attribute", "stat /empty", []string{"user.big (3000)", "user.none (0)"}},
		{"access control list", "ea_get -x /etc/motd system.posix_acl_access", []string{"02 00 00 00 01 00 06 00 00 00 00 00 02 00 04 00 70 11 01 00"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := debugfs(t, image, tc.request)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("debugfs %q has no %q:\n%s", tc.request, want, got)
				}
			}
		})
	}
	if got := debugfs(t, image, "stat /block"); strings.Contains(got, "overlay") || strings.Contains(got, "trusted") {
		t.Errorf("attributes of the host are on the disk:\n%s", got)
	}
}

// TestWriteKeepsTree reads everything back with debugfs and compares.
func TestWriteKeepsTree(t *testing.T) {
	t.Parallel()
	root := testTree(t, false)
	image := write(t, root, options(64<<20))
	back := t.TempDir()
	debugfs(t, image, "rdump / "+back)
	if diff := cmp.Diff(listing(t, root), listing(t, back)); diff != "" {
		t.Errorf("the tree read back differs (-want +got):\n%s", diff)
	}
}

// listing describes all that debugfs is able to copy out: the setuid bits aren't.
func listing(tb testing.TB, root string) map[string]string {
	tb.Helper()
	out := map[string]string{}
	must(tb, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%d bytes, sum %08x", len(data), crc32c(0, data))
		case d.Type() == fs.ModeSymlink:
			// debugfs doesn't set the owner of a link.
			target, err := os.Readlink(path)
			out[strings.TrimPrefix(path, root)] = target
			return err
		case !d.IsDir() || d.Name() == "lost+found":
			return nil
		}
		out[strings.TrimPrefix(path, root)] = fmt.Sprintf("%o %d:%d %s", st.Mode&^0o7000, st.Uid, st.Gid, content)
		return nil
	}))
	return out
}

func TestWriteSameBytes(t *testing.T) {
	t.Parallel()
	var images [2][]byte
	for i, reverse := range []bool{false, true} {
		data, err := os.ReadFile(write(t, testTree(t, reverse), options(64<<20)))
		must(t, err)
		images[i] = data
	}
	if bytes.Equal(images[0], images[1]) {
		return
	}
	for at := range images[0] {
		if images[0][at] != images[1][at] {
			t.Fatalf("two trees of equal content differ first at byte %d (block %d)", at, at/blockSize)
		}
	}
}

func TestWriteSizes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), []byte("content"), 0o644))
	const mib, gib = 1 << 20, 1 << 30
	for _, size := range []int64{
		8 * mib, 9*mib + 4096, 64 * mib, 128 * mib, 129 * mib, 130 * mib, 140 * mib, 257 * mib, 1*gib + mib, 1981 * mib,
		2*gib + 128*mib + 3*mib, 20 * gib, 300*gib + 7*mib,
	} {
		t.Run(fmt.Sprintf("%d KiB", size>>10), func(t *testing.T) {
			t.Parallel()
			image := write(t, root, options(size))
			if got := debugfs(t, image, "cat /file"); !strings.Contains(got, "content") {
				t.Errorf("content of the file is %q", got)
			}
		})
	}
}

func TestWriteGrows(t *testing.T) {
	t.Parallel()
	image := write(t, testTree(t, false), options(130<<20))
	must(t, os.Truncate(image, 3<<30))
	tool(t, "resize2fs", image)
	tool(t, "e2fsck", "-fn", image)
}

func TestWriteManyInodes(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i := range 6000 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), nil, 0o644))
	}
	image := write(t, root, options(64<<20))
	if got := debugfs(t, image, "stat /5999"); !strings.Contains(got, "Type: regular") {
		t.Errorf("the last file is missing:\n%s", got)
	}
}

func TestWriteDeepExtents(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f, err := os.Create(filepath.Join(root, "comb"))
	must(t, err)
	defer f.Close()
	// One more than fits into a tree of a single level below the inode.
	const teeth = extentsInInode*extentsInBlock + 1
	for i := range int64(teeth) {
		_, err := f.WriteAt([]byte{1}, i*2*holeSize)
		must(t, err)
	}
	image := write(t, root, options(256<<20))
	back := filepath.Join(t.TempDir(), "comb")
	debugfs(t, image, "dump /comb "+back)
	if got := tool(t, "cmp", f.Name(), back); got != "" {
		t.Error(got)
	}
}

func TestWriteNoSpace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i := range 40 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprint(i)), bytes.Repeat([]byte{1}, 3<<20), 0o644))
	}
	for _, size := range []int64{8 << 20, 64 << 20, 125 << 20} {
		t.Run(fmt.Sprintf("%d MiB", size>>20), func(t *testing.T) {
			t.Parallel()
			image, err := tryWrite(t, root, options(size))
			var full *NoSpaceError
			if !errors.As(err, &full) {
				t.Fatalf("error is %v, want a NoSpaceError", err)
			}
			if full.Have != size || full.Need <= size {
				t.Errorf("Need is %d and Have %d, want more than %[3]d and %[3]d", full.Need, full.Have, size)
			}
			if st := stat(t, image); st.Blocks != 0 {
				t.Errorf("%d sectors were written all the same", st.Blocks)
			}
			write(t, root, options(full.Need))
		})
	}
}

func stat(tb testing.TB, path string) unix.Stat_t {
	tb.Helper()
	var st unix.Stat_t
	must(tb, unix.Stat(path, &st))
	return st
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	good := options(64 << 20)
	odd, label, early := good, good, good
	odd.Size++
	label.Label = "seventeen letters"
	early.Clock = time.Unix(-1, 0)
	for _, tc := range []struct {
		name, root string
		o          Options
		want       string
	}{
		{"a file", file, good, "is not a folder"},
		{"nothing", filepath.Join(folder, "none"), good, "no such file"},
		{"a mount point", "/", good, "is a mount point"},
		{"a size that isn't whole blocks", folder, odd, "multiple of 4096"},
		{"a long label", folder, label, "at most 16"},
		{"a clock before 1970", folder, early, "1970"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := tryWrite(t, tc.root, tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestWriteStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	f, err := os.Create(filepath.Join(t.TempDir(), "fs.img"))
	must(t, err)
	defer f.Close()
	if err := Write(ctx, f, 0, testTree(t, false), options(64<<20)); !errors.Is(err, cause) {
		t.Errorf("error is %v, want the cause of the cancellation", err)
	}
}

// TestXattrRoom asks the limit directly: the host's own file system may allow no more.
func TestXattrRoom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		bytes int
		want  string
	}{
		{"full", xattrRoom - 4 - xattrEntrySize - 4, ""},
		{"one too many", xattrRoom - 4 - xattrEntrySize - 4 + 1, "at most 4064 fit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if err := checkXattrs("f", []xattr{{1, "name", make([]byte, tc.bytes)}}); err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) || (got == "") != (tc.want == "") {
				t.Errorf("error is %q, want one with %q", got, tc.want)
			}
		})
	}
}

func TestReadNoticesAChangedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("short"), 0o644))
	p := part{node: &node{path: path, size: 9}, size: 9}
	if err := p.read(make([]byte, 9)); err == nil || !strings.Contains(err.Error(), "from 9 to 5 bytes") {
		t.Errorf("error is %v, want one that gives both sizes", err)
	}
}
