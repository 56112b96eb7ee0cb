package disk

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// grubPlatform is one of GRUB's builds.
type grubPlatform struct {
	// format is GRUB's name, which is also the folder its modules are in.
	format string
	// pkg is Debian's package of the modules.
	pkg string
	// modules beyond commonModules.
	modules []string
}

const grubModules = "/usr/lib/grub"

var commonModules = []string{
	"normal", "configfile", "test", "regexp", "linux", "ext2", "part_gpt", "search", "search_fs_uuid",
	"serial", "terminal", "echo", "sleep", "reboot", "halt", "ls", "cat", "minicmd", "memdisk", "tar",
}

// platform tells which GRUB boots an architecture from a firmware.
func platform(arch, firmware string) (grubPlatform, error) {
	switch {
	case firmware != BIOS && firmware != UEFI:
		return grubPlatform{}, fmt.Errorf("unknown firmware %q: give bios or uefi", firmware)
	case arch == "amd64" && firmware == BIOS:
		return grubPlatform{"i386-pc", "grub-pc-bin", []string{"biosdisk"}}, nil
	case arch == "amd64":
		return grubPlatform{"x86_64-efi", "grub-efi-amd64-bin", []string{"all_video"}}, nil
	case arch == "arm64" && firmware == UEFI:
		return grubPlatform{"arm64-efi", "grub-efi-arm64-bin", []string{"all_video"}}, nil
	case arch == "arm64":
		return grubPlatform{}, errors.New("arm64 has no BIOS: use firmware uefi")
	default:
		return grubPlatform{}, fmt.Errorf("no boot loader for architecture %q: amd64 and arm64 are known", arch)
	}
}

// folder returns where the host has the modules.
func (p grubPlatform) folder() (string, error) {
	path := filepath.Join(grubModules, p.format)
	_, err := os.Stat(filepath.Join(path, "modinfo.sh"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the host has no GRUB modules for %s: install %s", p.format, p.pkg)
	}
	return path, err
}

// efiName is the file a firmware of arch starts when nothing else is set up.
func efiName(arch string) string {
	if arch == "arm64" {
		return "BOOTAA64.EFI"
	}
	return "BOOTX64.EFI"
}

// grubImage makes a GRUB with its modules and menu inside, so that it needs nothing
// but the root file system.
func (l Layout) grubImage(ctx context.Context, firmware, scratch string, b boot, log io.Writer) ([]byte, error) {
	p, err := platform(l.Arch, firmware)
	if err != nil {
		return nil, err
	}
	modules, err := p.folder()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(scratch, "grub-")
	if err != nil {
		return nil, fmt.Errorf("temporary folder: %w", err)
	}
	image, err := l.mkimage(ctx, p, modules, dir, b, log)
	return image, errors.Join(err, os.RemoveAll(dir))
}

func (l Layout) mkimage(ctx context.Context, p grubPlatform, modules, dir string, b boot, log io.Writer) ([]byte, error) {
	memdisk, err := l.memdisk(b.menu())
	if err != nil {
		return nil, fmt.Errorf("pack the boot menu: %w", err)
	}
	in, out := filepath.Join(dir, "menu.tar"), filepath.Join(dir, "image")
	if err := os.WriteFile(in, memdisk, 0o600); err != nil {
		return nil, err
	}
	args := []string{"--directory", modules, "--format", p.format, "--prefix", "(memdisk)/boot/grub", "--memdisk", in, "--output", out}
	args = append(append(args, commonModules...), p.modules...)
	cmd := exec.CommandContext(ctx, "grub-mkimage", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("make the boot loader: %w: install grub-common", err)
		}
		return nil, fmt.Errorf("make the boot loader: grub-mkimage for %s: %w", p.format, err)
	}
	return os.ReadFile(out)
}

// memdisk packs the menu into the file system GRUB reads it from.
func (l Layout) memdisk(menu string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{
		Name: "boot/grub/grub.cfg", Mode: 0o644, Size: int64(len(menu)), ModTime: l.Clock, Format: tar.FormatUSTAR,
	})
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, menu); err != nil {
		return nil, err
	}
	return buf.Bytes(), w.Close()
}

// menu is GRUB's configuration. It looks for the kernel when it runs, because a
// running image may have got a newer one: Debian keeps symbolic links to the newest
// kernel; without them the latest file counts.
func (b boot) menu() string {
	quoted := make([]string, len(b.args))
	for i, a := range b.args {
		// splitArgs refuses single quotes.
		quoted[i] = "'" + a + "'"
	}
	return strings.NewReplacer(
		"@UUID@", b.root.String(), "@KERNEL@", b.kernel, "@INITRD@", b.initrd, "@ARGS@", strings.Join(quoted, " "),
	).Replace(menuTemplate)
}

const menuTemplate = `if serial --unit=0 --speed=115200; then
	terminal_input console serial
	terminal_output console serial
fi
search --no-floppy --fs-uuid --set=root @UUID@
set timeout=0
set default=0
set fallback=1
if [ -f /vmlinuz -a -f /initrd.img ]; then
	set kernel=/vmlinuz
	set initrd=/initrd.img
elif [ -f /boot/vmlinuz -a -f /boot/initrd.img ]; then
	set kernel=/boot/vmlinuz
	set initrd=/boot/initrd.img
else
	set kernel=
	if [ -f '@KERNEL@' -a -f '@INITRD@' ]; then
		set kernel='@KERNEL@'
		set initrd='@INITRD@'
	fi
	for file in /boot/vmlinuz-*; do
		if regexp --set=1:version '^/boot/vmlinuz-(.*)$' "$file"; then
			if [ -f "/boot/initrd.img-$version" ]; then
				if [ -z "$kernel" -o "$file" -nt "$kernel" ]; then
					set kernel="$file"
					set initrd="/boot/initrd.img-$version"
				fi
			fi
		fi
	done
fi
menuentry Linux {
	linux "$kernel" @ARGS@
	initrd "$initrd"
}
if [ -f /vmlinuz.old -a -f /initrd.img.old ]; then
	menuentry "Linux, previous kernel" {
		linux /vmlinuz.old @ARGS@
		initrd /initrd.img.old
	}
elif [ -f /boot/vmlinuz.old -a -f /boot/initrd.img.old ]; then
	menuentry "Linux, previous kernel" {
		linux /boot/vmlinuz.old @ARGS@
		initrd /boot/initrd.img.old
	}
fi
`

const (
	// In boot.img: where the sector of the core image and the jump that a hard disk
	// doesn't want are. From GRUB's include/grub/i386/pc/boot.h.
	grubKernelSector = 0x5c
	grubDriveCheck   = 0x66
	// In the core image's first sector: where the list of the remaining blocks is.
	grubBlockList = sectorSize - 12
	// Segment at which the rest of the core image is loaded.
	grubCoreSegment = 0x820
)

// biosBoot makes the boot code of the MBR and the core image for a BIOS boot
// partition at sector lba, as grub-bios-setup does on a real disk.
func biosBoot(core []byte, lba uint64) (mbr, patched []byte, err error) {
	mbr, err = os.ReadFile(filepath.Join(grubModules, "i386-pc", "boot.img"))
	if err != nil {
		return nil, nil, fmt.Errorf("read GRUB's boot sector (package grub-pc-bin): %w", err)
	}
	if len(mbr) != sectorSize || len(core) < sectorSize || len(core) > biosBootSize {
		return nil, nil, fmt.Errorf("GRUB's boot sector has %d bytes and its core image %d: 512 and at most %d fit", len(mbr), len(core), biosBootSize)
	}
	le := binary.LittleEndian
	le.PutUint64(mbr[grubKernelSector:], lba)
	// Some BIOSes pass a wrong drive number: take the drive booted from, without a check.
	mbr[grubDriveCheck], mbr[grubDriveCheck+1] = 0x90, 0x90
	sectors := (len(core) + sectorSize - 1) / sectorSize
	patched = make([]byte, sectors*sectorSize)
	copy(patched, core)
	le.PutUint64(patched[grubBlockList:], lba+1)
	le.PutUint16(patched[grubBlockList+8:], uint16(sectors-1))
	le.PutUint16(patched[grubBlockList+10:], grubCoreSegment)
	return mbr[:440], patched, nil
}
