package disk

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

func TestKernelArgs(t *testing.T) {
	t.Parallel()
	id := uuid.UUID{1, 2, 3}
	root := "root=UUID=" + id.String()
	for _, tc := range []struct {
		name, cmdline, fstab string
		want                 []string
	}{
		{"nothing", "", "", []string{root, "rw", "console=tty0", "console=ttyS0,115200"}},
		{"root in fstab", "", "# / is here\nUUID=x / ext4 defaults 0 1\n", []string{root, "ro", "console=tty0", "console=ttyS0,115200"}},
		{"others in fstab", "", "#UUID=x / ext4\ntmpfs /tmp tmpfs\n", []string{root, "rw", "console=tty0", "console=ttyS0,115200"}},
		{"own console", "console=hvc0 quiet\n", "", []string{root, "rw", "console=hvc0", "quiet"}},
		{"own mode", "ro", "", []string{root, "console=tty0", "console=ttyS0,115200", "ro"}},
		{"quoted", "a=\"b c\"  d\te", "", []string{root, "rw", "console=tty0", "console=ttyS0,115200", "a=b c", "d", "e"}},
		{"shell's signs", "a=$(reboot);&|{}`", "", []string{root, "rw", "console=tty0", "console=ttyS0,115200", "a=$(reboot);&|{}`"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			put(t, dir, "etc/kernel/cmdline", tc.cmdline)
			put(t, dir, "etc/fstab", tc.fstab)
			tree, err := os.OpenRoot(dir)
			must(t, err)
			defer tree.Close()
			got, err := kernelArgs(tree, id)
			must(t, err)
			if diff := gocmp.Diff(tc.want, got); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFindBootStaysInTheTree(t *testing.T) {
	t.Parallel()
	root := tinyTree(t)
	must(t, os.MkdirAll(filepath.Join(root, "etc"), 0o755))
	must(t, os.Symlink("/etc/fstab", filepath.Join(root, "etc/fstab")))
	if _, err := findBoot(root, uuid.UUID{}); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("error is %v, want one that says the link leaves the tree", err)
	}
}

func FuzzSplitArgs(f *testing.F) {
	for _, line := range []string{"", "quiet", `a="b c" d`, `"`, "a\nb", `a\b`, "a'b", "\x00", "x=\xff", `""`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args, err := splitArgs(line)
		if err != nil {
			if args != nil {
				t.Errorf("arguments %q beside an error", args)
			}
			return
		}
		quoted := make([]string, len(args))
		for i, a := range args {
			if a == "" || strings.ContainsAny(a, "'\"\\\n\r\x00") {
				t.Errorf("argument %q", a)
			}
			quoted[i] = `"` + a + `"`
		}
		again, err := splitArgs(strings.Join(quoted, " "))
		must(t, err)
		if diff := gocmp.Diff(args, again); diff != "" {
			t.Errorf("split again (-want +got):\n%s", diff)
		}
	})
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	versions := []string{
		"6.1.0-9-amd64", "6.1.0-10-amd64", "6.1.0-56-cloud-amd64", "6.1.0-56-rt-amd64", "6.10.0-1-amd64", "6.10~rc1-amd64", "6.10-amd64",
		"5.10.0+deb11u1", "5.10.0", "5.010.0-1", "6.8.0-1021-aws", "6.8.0-45-generic", "6.1.0-0.deb11.5-amd64",
	}
	for _, a := range versions {
		for _, b := range versions {
			want := "eq"
			switch c := cmp.Compare(compareVersions(a, b), 0); c {
			case -1:
				want = "lt"
			case 1:
				want = "gt"
			}
			// The revision added keeps dpkg from taking the kernel's own "-" as the start of one.
			if err := exec.Command("dpkg", "--compare-versions", a+"-0", want, b+"-0").Run(); err != nil {
				t.Errorf("%s %s %s, dpkg says otherwise: %v", a, want, b, err)
			}
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add(uint32(100<<11), uint32(2048), uint32(2048), "root", uint64(attributeGrow))
	f.Add(uint32(64<<11), uint32(34), uint32(1), "größer 😀", uint64(0))
	f.Add(uint32(64<<11), uint32(0), uint32(1), strings.Repeat("x", 40), uint64(1))
	f.Fuzz(func(t *testing.T, sectors, first, size uint32, name string, attributes uint64) {
		tab := table{
			Disk: uuid.UUID{7: 1, 15: 2}, Sectors: uint64(sectors%(128<<11)) + 2048,
			Partitions: []partition{{
				Type: typeRootAMD64, ID: uuid.UUID{0: 9, 15: 4}, Name: strings.ToValidUTF8(name, ""), Attributes: attributes,
				First: uint64(first), Last: uint64(first) + uint64(size) - 1,
			}},
		}
		disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		must(t, err)
		defer disk.Close()
		must(t, disk.Truncate(int64(tab.Sectors)*sectorSize))
		if err := tab.writeTo(disk, nil); err != nil {
			return
		}
		got := sfdisk(t, disk.Name())
		p := got.Partitions[0]
		if p.Start != uint64(first) || p.Size != uint64(size) || !strings.EqualFold(p.UUID, tab.Partitions[0].ID.String()) ||
			!strings.EqualFold(got.ID, tab.Disk.String()) || got.LastLBA != tab.lastUsable() {
			t.Errorf("sfdisk reads %+v of %+v", got, tab)
		}
	})
}

func TestFATTime(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		in         time.Time
		day, clock uint16
	}{
		{"usual", time.Date(2026, 11, 23, 13, 14, 31, 0, time.UTC), 46<<9 | 11<<5 | 23, 13<<11 | 14<<5 | 15},
		{"other zone", time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600)), 45<<9 | 12<<5 | 31, 23 << 11},
		{"before 1980", time.Unix(0, 0), 1<<5 | 1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if day, clock := fatTime(tc.in); day != tc.day || clock != tc.clock {
				t.Errorf("got %#x %#x, want %#x %#x", day, clock, tc.day, tc.clock)
			}
		})
	}
}

func TestFATRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	must(t, err)
	defer f.Close()
	v := fatVolume{Size: espSize, Clock: clock, Root: fatDir("", fatNode{Name: "BIG", Data: make([]byte, espSize)})}
	if err := v.writeTo(f, 0); err == nil || !strings.Contains(err.Error(), "EFI system partition has") {
		t.Errorf("error is %v, want one that says the files don't fit", err)
	}
}
