package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/google/go-cmp/cmp"
)

// TestMakeDisk checks the throw-away disk with the file system's own tools.
func TestMakeDisk(t *testing.T) {
	t.Parallel()
	for _, offset := range []int64{0, 1 << 20} {
		t.Run(fmt.Sprintf("offset %d", offset), func(t *testing.T) {
			t.Parallel()
			src, dir := blankDisk(t), t.TempDir()
			before := digest(t, src)
			must(t, makeDisk(t.Context(), Config{Disk: src, RootOffset: offset, Arch: "amd64", Dir: dir}))
			if after := digest(t, src); after != before {
				t.Error("the image was changed")
			}
			root := filepath.Join(dir, diskName) + "?offset=1048576"
			tool(t, "e2fsck", "-fn", root)
			for _, path := range []string{"/lib/systemd/gild-agent", "/lib/systemd/system/gild-agent.service"} {
				stat := tool(t, "debugfs", "-R", "stat "+path, root)
				if !strings.Contains(stat, "Mode:  0644") || !strings.Contains(stat, "User:     0   Group:     0 ") {
					t.Errorf("%s isn't root's and readable:\n%s", path, stat)
				}
			}
			var st [2]os.FileInfo
			for i, path := range []string{src, filepath.Join(dir, diskName)} {
				info, err := os.Stat(path)
				must(t, err)
				st[i] = info
			}
			if st[0].Size() != st[1].Size() {
				t.Errorf("size %d of a copy of %d bytes", st[1].Size(), st[0].Size())
			}
			if got, want := allocated(t, filepath.Join(dir, diskName)), allocated(t, src)+256<<10; got > want {
				t.Errorf("the copy takes %d bytes on the disk, want at most %d", got, want)
			}
		})
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var blocks int64
	_, err := fmt.Sscan(tool(t, "stat", "-c", "%b", path), &blocks)
	must(t, err)
	return blocks * 512
}

func TestMakeDiskWithoutRoom(t *testing.T) {
	t.Parallel()
	src := blankDisk(t)
	filler := filepath.Join(t.TempDir(), "filler")
	must(t, os.WriteFile(filler, bytes.Repeat([]byte("x"), 40<<20), 0o600))
	tool(t, "debugfs", "-w", "-R", "write "+filler+" filler", src+"?offset=1048576")
	err := makeDisk(t.Context(), Config{Disk: src, Arch: "amd64", Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "room for two files") {
		t.Errorf("makeDisk: %v, want that there is no room", err)
	}
}

// TestCopyData compares copies of files with data and holes in odd places.
func TestCopyData(t *testing.T) {
	t.Parallel()
	for name, extents := range map[string][][2]int64{
		"empty":        {{0, 0}},
		"all hole":     {{10 << 20, 0}},
		"all data":     {{0, 1<<20 + 5}},
		"hole first":   {{3 << 20, 4096}},
		"several":      {{0, 1}, {2<<20 + 7, 99999}, {9 << 20, 1 << 20}},
		"hole at last": {{0, 12345}, {50 << 20, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in, err := os.Create(filepath.Join(dir, "in"))
			must(t, err)
			defer in.Close()
			size := int64(0)
			for _, e := range extents {
				_, err := in.WriteAt(randomBytes(int(e[1])), e[0])
				must(t, err)
				size = e[0] + e[1]
			}
			must(t, in.Truncate(size))
			out, err := os.Create(filepath.Join(dir, "out"))
			must(t, err)
			defer out.Close()
			must(t, copyData(t.Context(), out, in, size))
			tool(t, "cmp", in.Name(), out.Name())
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	if err := copyData(ctx, f, f, 1<<20); !errors.Is(err, context.Canceled) {
		t.Errorf("copyData after cancellation: %v", err)
	}
}

func TestFindRoot(t *testing.T) {
	t.Parallel()
	const bios, efi = "21686148-6449-6E6F-744E-656564454649", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	tests := []struct {
		name, arch string
		types      []string
		ext4       []int64 // offsets in MiB
		want       int64   // in MiB; 0 for an error
	}{
		{"root type", "amd64", []string{bios, efi, rootTypes["amd64"]}, nil, 3},
		{"another architecture's", "amd64", []string{rootTypes["arm64"], rootTypes["amd64"]}, nil, 2},
		{"arm64", "arm64", []string{efi, rootTypes["arm64"]}, nil, 2},
		{"the only ext4", "amd64", []string{efi, linuxType, linuxType}, []int64{3}, 3},
		{"two of them", "amd64", []string{linuxType, linuxType}, []int64{1, 2}, 0},
		{"none", "amd64", []string{bios, efi, linuxType}, nil, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(8<<20))
			script := "label: gpt\n"
			for _, kind := range test.types {
				script += "size=1MiB, type=" + kind + "\n"
			}
			fdisk := exec.Command("sfdisk", "--quiet", f.Name())
			fdisk.Stdin = strings.NewReader(script)
			if out, err := fdisk.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk (package fdisk): %v\n%s", err, out)
			}
			for _, at := range test.ext4 {
				_, err := f.WriteAt([]byte{0x53, 0xef}, at<<20+1024+56)
				must(t, err)
			}
			got, err := findRoot(f, test.arch)
			if got != test.want<<20 || (err == nil) != (test.want != 0) {
				t.Errorf("findRoot = %d, %v, want %d", got, err, test.want<<20)
			}
		})
	}
}

// TestWriteWord lets a real shell decode every byte.
func TestWriteWord(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"", "plain", "a b\n\n", `\0101\n%s'"$(x)`, string(rangeBytes(1, 255)), strings.Repeat("é", 5000)} {
		var b strings.Builder
		writeWord(&b, word)
		if n := strings.Count(b.String(), "\n"); n != 1 {
			t.Errorf("%q becomes %d lines", word, n)
		}
		cmd := exec.Command("sh", "-c", `read -r word; printf '%b' "${word#+}"`)
		cmd.Stdin = strings.NewReader(b.String())
		got, err := cmd.Output()
		must(t, err)
		if diff := cmp.Diff(word, string(got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func rangeBytes(from, to int) []byte {
	var b []byte
	for c := from; c <= to; c++ {
		b = append(b, byte(c))
	}
	return b
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cmd  step.Cmd
		want string
	}{
		{"NUL in an argument", step.Cmd{Argv: []string{"echo", "a\x00b"}}, "NUL byte"},
		{"NUL in a variable", step.Cmd{Argv: []string{"env"}, Env: map[string]string{"A": "\x00"}}, "NUL byte"},
		{"variable", step.Cmd{Argv: []string{"env"}, Env: map[string]string{"A B": ""}}, `"A B" can't be set`},
		{"no name", step.Cmd{Argv: []string{"env"}, Env: map[string]string{"": ""}}, `"" can't be set`},
		{"agent's own", step.Cmd{Argv: []string{"env"}, Env: map[string]string{"_gild_left": "1"}}, "can't be set"},
		{"relative folder", step.Cmd{Argv: []string{"pwd"}, Dir: "tmp"}, `folder "tmp" isn't absolute`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := encode(test.cmd); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("encode: %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestParseMessage(t *testing.T) {
	t.Parallel()
	const session = "0f6fd4f2-9d0c-4c2b-8f0e-2b9a3d1c5e77"
	for line, want := range map[string]message{
		"hello " + session: {word: "hello", session: session},
		"exit 12 137":      {word: "exit", id: 12, status: 137},
		"done 12":          {word: "done", id: 12},
		"killed 3":         {word: "killed", id: 3},
	} {
		if got, ok := parseMessage(line); !ok || got != want {
			t.Errorf("parseMessage(%q) = %v, %t, want %v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "hello", "hello 1", "hello " + strings.ToUpper(session), "exit 1", "exit a 1", "exit 1 b", "done", "done x", "bye 1"} {
		if got, ok := parseMessage(line); ok {
			t.Errorf("parseMessage(%q) = %v, want nothing", line, got)
		}
	}
}

func TestCleaner(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, in, want string }{
		{"plain", "hello\tworld\n", "hello\tworld\n"},
		{"carriage returns", "a\r\nb\r", "a\nb"},
		{"colours", "[\x1b[0;32m  OK  \x1b[0m] done", "[  OK  ] done"},
		{"title", "\x1b]0;evil\x07x\x1b]8;;http://e\x1b\\y", "xy"},
		{"charset and single", "\x1b(Ba\x1bcb\x1b7c", "abc"},
		{"bells and others", "a\x07\x08\x00\x7fb", "ab"},
		{"C1 as UTF-8", "a\u009b31mb", "a31mb"},
		{"not UTF-8", "a\xff\xfe\xc3(b", "a(b"},
		{"UTF-8", "ünï ☃ 😀", "ünï ☃ 😀"},
		{"turned around", "a\u202eb\u2066c", "abc"},
		{"sequence without an end", "\x1b[12\nnext", "\nnext"},
		{"title without an end", "\x1b]0;long\nnext", "\nnext"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var whole, pieces cleaner
			if got := string(whole.append(nil, []byte(test.in))); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			var got []byte
			for _, b := range []byte(test.in) {
				got = pieces.append(got, []byte{b})
			}
			if string(got) != test.want {
				t.Errorf("byte by byte: got %q, want %q", got, test.want)
			}
		})
	}
}

func TestConsole(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var reasons []string
	c := newConsole(&log, func(reason string, _ bool) { reasons = append(reasons, reason) })
	long := strings.Repeat("0123456789", 10_000)
	c.read(strings.NewReader("one\r\n\n\x1b[1mtwo\x1b[0m\r\n" + long + "\nKernel panic - not syncing: x\nprompt\n(initramfs) "))
	<-c.done
	want := []string{"the guest's kernel panicked", "the guest stopped in the shell of its initramfs"}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	lines := strings.Split(log.String(), "\n")
	if got := lines[:3]; !slices.Equal(got, []string{"one", "", "two"}) || lines[len(lines)-2] != "(initramfs) " {
		t.Errorf("log begins with %q and ends with %q", got, lines[len(lines)-2])
	}
	if longest := slices.MaxFunc(lines, func(a, b string) int { return len(a) - len(b) }); len(longest) > lineLimit+4096 {
		t.Errorf("a line of the log has %d bytes", len(longest))
	}
	if strings.Count(log.String(), "0123456789") < 9_900 {
		t.Error("the log lost a part of the long line")
	}
	if n := len(c.text()); n != consoleKept {
		t.Errorf("%d bytes are kept, want %d", n, consoleKept)
	}
	if tail := c.tail(); !strings.HasSuffix(tail, "Kernel panic - not syncing: x\nprompt\n(initramfs) ") {
		t.Errorf("tail ends with %q", tail[max(0, len(tail)-100):])
	}
}

func TestFindForward(t *testing.T) {
	t.Parallel()
	const table = `Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   21       127.0.0.1 80          10.0.2.15 42001     0     0
  TCP[HOST_FORWARD]  20       127.0.0.1 42002       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  19       127.0.0.1 42001       10.0.2.15    80     0     0
`
	if got, err := findForward(table, 80); err != nil || got != "127.0.0.1:42001" {
		t.Errorf("findForward = %q, %v", got, err)
	}
	if got, err := findForward(table, 42001); err == nil {
		t.Errorf("findForward of a port that isn't forwarded = %q", got)
	}
}

// TestProbe shows that the probe's guest ends QEMU where guests run, and that one that
// hangs is ended.
func TestProbe(t *testing.T) {
	t.Parallel()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("%v (package qemu-system-x86)", err)
	}
	run := func(ctx context.Context, sector [sectorSize]byte) int {
		disk, err := os.Create(filepath.Join(t.TempDir(), "probe.raw"))
		must(t, err)
		defer disk.Close()
		_, err = disk.Write(sector[:])
		must(t, err)
		return runProbe(ctx, qemu, disk, "tcg", "max")
	}
	if status := run(t.Context(), probeSector); status != probeStatus {
		t.Errorf("status %d, want %d", status, probeStatus)
	}
	hanging := probeSector
	copy(hanging[:], []byte{0xeb, 0xfe}) // jmp to itself
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	begin := time.Now()
	if status := run(ctx, hanging); status != -1 {
		t.Errorf("status %d of a guest that hangs, want -1", status)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s to end a guest that hangs", took)
	}
}

// TestWorkingKVM holds the probe's answer against a guest of the real machine type.
func TestWorkingKVM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := time.Now()
	works := WorkingKVM(t.Context(), dir)
	if took := time.Since(begin); took > 2*probeTimeout {
		t.Errorf("the probe took %s", took)
	}
	file := filepath.Join(dir, "kvm.json")
	kept, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		if device, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			t.Errorf("/dev/kvm opens, but no answer was kept: %v", device.Close())
		}
		return
	}
	must(t, err)
	if want := fmt.Sprintf(`"works":%t`, works); !strings.Contains(string(kept), want) {
		t.Errorf("kept %s, want %s in it", kept, want)
	}
	// What is kept is believed, unless it is for something else or broken.
	turned := strings.Replace(string(kept), fmt.Sprint(works), fmt.Sprint(!works), 1)
	must(t, os.WriteFile(file, []byte(turned), 0o600))
	if WorkingKVM(t.Context(), dir) != !works {
		t.Error("the kept answer wasn't used")
	}
	for _, other := range []string{strings.Replace(turned, `"boot_id":"`, `"boot_id":"x`, 1), turned[:len(turned)/2], ""} {
		must(t, os.WriteFile(file, []byte(other), 0o600))
		if WorkingKVM(t.Context(), dir) != works {
			t.Errorf("the answer %q was used", other)
		}
	}
}

func TestMachineErrors(t *testing.T) {
	t.Parallel()
	none := platform{pkg: "some-package", firmwarePkg: "some-firmware", firmware: [][2]string{{"/nowhere/code", "/nowhere/vars"}}}
	_, err := none.chooseFirmware(Config{Arch: "amd64", Firmware: "uefi", Dir: t.TempDir()})
	if want := "no UEFI firmware for amd64 on this machine: install some-firmware"; err == nil || err.Error() != want {
		t.Errorf("chooseFirmware: %v, want %s", err, want)
	}
	_, err = none.chooseFirmware(Config{Arch: "arm64", Firmware: "bios"})
	if want := "arm64 has no BIOS: use firmware uefi"; err == nil || err.Error() != want {
		t.Errorf("chooseFirmware: %v, want %s", err, want)
	}
	_, err = none.find("arm64")
	if err == nil || !strings.HasPrefix(err.Error(), "no emulator for arm64: ") || !strings.HasSuffix(err.Error(), ": install some-package") {
		t.Errorf("find: %v, want the package to install", err)
	}
}

func FuzzCleaner(f *testing.F) {
	f.Add([]byte("a\x1b[0mb\x1b]x\x07\xc3\xbc\xff\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, pieces cleaner
		got := whole.append(nil, data)
		var other []byte
		for _, b := range data {
			other = pieces.append(other, []byte{b})
		}
		if !bytes.Equal(got, other) {
			t.Errorf("%q at once, %q in pieces", got, other)
		}
		for _, r := range string(got) {
			if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f {
				t.Errorf("control character %q in %q", r, got)
			}
		}
	})
}

func FuzzFindRoot(f *testing.F) {
	head := make([]byte, 4*sectorSize)
	copy(head[sectorSize:], "EFI PART")
	head[sectorSize+72], head[sectorSize+80], head[sectorSize+84] = 2, 4, 128
	f.Add(head)
	f.Fuzz(func(t *testing.T, data []byte) {
		if at, err := findRoot(bytes.NewReader(data), "amd64"); at < 0 || err != nil && at != 0 {
			t.Errorf("findRoot = %d, %v", at, err)
		}
	})
}

// FuzzSplitter cuts a stream anywhere.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("noise"), []byte("MARK< data MARK M>"), uint64(1))
	f.Fuzz(func(t *testing.T, noise, data []byte, seed uint64) {
		begin, end := []byte("MARK<"), []byte("MARK>")
		if bytes.Contains(append(noise, begin[:4]...), begin) || bytes.Contains(append(data, end[:4]...), end) {
			return // marks can't be guessed
		}
		stream := slices.Concat(noise, begin, data, end)
		s := splitter{begin: begin, end: end}
		r := rand.New(rand.NewPCG(seed, 0))
		var got []byte
		for over := false; !over; {
			n := min(len(stream), 1+r.IntN(8))
			var out []byte
			if out, over = s.next(stream[:n]); n == 0 && !over {
				t.Fatal("the end wasn't found")
			}
			got = append(got, out...)
			stream = stream[n:]
		}
		if !bytes.Equal(got, data) {
			t.Errorf("got %q, want %q", got, data)
		}
	})
}

// BenchmarkBoot boots until nothing of the boot is left to do.
func BenchmarkBoot(b *testing.B) {
	raw := debianDisk(b)
	for b.Loop() {
		g, err := Start(b.Context(), Config{Disk: raw, Arch: "amd64", Firmware: "bios", Dir: b.TempDir(), Token: "benchmark"})
		must(b, err)
		b.ReportMetric(time.Since(g.PoweredOn()).Seconds(), "s/answer")
		output(b, g, "systemctl", "is-system-running", "--wait")
		must(b, g.Close())
	}
}

func BenchmarkGuest(b *testing.B) {
	g := boot(b, "bios")
	output(b, g, "systemctl", "is-system-running", "--wait")
	b.Run("exec", func(b *testing.B) {
		for b.Loop() {
			output(b, g, "true")
		}
	})
	data := randomBytes(8 << 20)
	b.Run("put", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			must(b, g.Put(b.Context(), step.PutFile{Path: "/root/data"}, bytes.NewReader(data)))
		}
	})
	b.Run("get", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			must(b, g.Get(b.Context(), "/root/data", io.Discard))
		}
	})
}
