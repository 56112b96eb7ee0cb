// Package disk makes a bootable disk from a folder: a pure function from a root
// tree and a [Layout] to bytes.
//
// A tree and a layout go in; a sparse GPT disk comes out, with a BIOS boot
// partition, an EFI system partition and an ext4 root, each where the layout's
// firmware needs it. The same tree and layout, with the same GRUB on the host, give
// the same bytes: identifiers are derived, times are clamped to the layout's clock,
// and the order of the host's folders doesn't matter.
//
// The package uses no loop device, mount, udev or device-mapper and needs no root
// beyond what reading the tree needs. It never changes the tree and never puts a name,
// path or time of the host into the disk.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	sectorSize = 512
	mib        = 1 << 20

	biosBootSize = 1 * mib
	// espSize is the smallest round size at which FAT32 with one sector per cluster
	// has well over the 65,525 clusters without which a firmware takes it for FAT16.
	espSize = 64 * mib
	// minRootSize keeps the root file system large enough for a journal.
	minRootSize = 64 * mib
)

// The kinds of firmware a disk can be booted by.
const (
	BIOS = "bios"
	UEFI = "uefi"
)

// Layout says what disk to make. The zero value is not valid.
type Layout struct {
	// Size of the disk in bytes, a multiple of 1 MiB.
	Size int64
	// Arch in Go's names: "amd64", or "arm64" with UEFI only.
	Arch string
	// Firmware lists what must be able to boot the disk: [BIOS], [UEFI] or both.
	Firmware []string
	// Seed and Clock together give every identifier on the disk.
	Seed string
	// Clock is the newest time on the disk: later modification times are set back to
	// it, and all other times are it. Precision is one second.
	Clock time.Time
}

// Assemble makes the disk of the tree at root in the new file out, which must not
// exist. The tree is taken as this process sees it, owners included, except for the
// root folder itself, which is always 0755 root:root. scratch is a folder for
// temporary files, log takes what the host's tools say.
//
// On error out is removed. The file isn't synced: the caller makes it durable.
// Different outs may be assembled at the same time.
func Assemble(ctx context.Context, root, out, scratch string, l Layout, log io.Writer) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("disk layout: %w", err)
	}
	l.Clock = l.Clock.UTC().Truncate(time.Second)
	b, err := findBoot(root, l.id("root file system"))
	if err != nil {
		return fmt.Errorf("read how %s boots: %w", root, err)
	}
	f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("create disk: %w", err)
	}
	err = l.write(ctx, f, root, scratch, b, log)
	if err = errors.Join(err, f.Close()); err != nil {
		if rmErr := os.Remove(out); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
		return err
	}
	return nil
}

func (l Layout) check() error {
	switch {
	case l.Size <= 0 || l.Size%mib != 0:
		return fmt.Errorf("size is %d bytes: it must be a positive multiple of 1 MiB", l.Size)
	case len(l.Firmware) == 0:
		return errors.New("no firmware named: give bios, uefi or both")
	case l.Clock.Unix() < 0 || l.Clock.Unix() >= 1<<32:
		return fmt.Errorf("clock %s is outside 1970 to 2106", l.Clock.UTC().Format(time.RFC3339))
	}
	for _, fw := range l.Firmware {
		if _, err := platform(l.Arch, fw); err != nil {
			return err
		}
	}
	if rest := l.Size - l.rootStart() - mib; rest < minRootSize {
		return fmt.Errorf("size is %d MiB, which leaves %d MiB for the root file system: it needs at least %d MiB; set builders.local.disk.size",
			l.Size/mib, max(rest, 0)/mib, minRootSize/mib)
	}
	return nil
}

func (l Layout) has(firmware string) bool { return slices.Contains(l.Firmware, firmware) }

// rootStart is the offset of the root partition in bytes.
func (l Layout) rootStart() int64 {
	at := int64(mib)
	if l.has(BIOS) {
		at += biosBootSize
	}
	if l.has(UEFI) {
		at += espSize
	}
	return at
}

// id derives the identifier of one part of the disk.
func (l Layout) id(part string) uuid.UUID {
	name := fmt.Sprintf("gild disk\x00%s\x00%d\x00%s", l.Seed, l.Clock.Unix(), part)
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(name))
}

// table lays the partitions out. The root comes last, so that it can grow.
func (l Layout) table() table {
	t := table{Disk: l.id("disk"), Sectors: uint64(l.Size / sectorSize)}
	at := int64(mib)
	add := func(kind uuid.UUID, name string, attributes uint64, size int64) {
		t.Partitions = append(t.Partitions, partition{
			Type: kind, ID: l.id("partition " + name), Name: name, Attributes: attributes,
			First: uint64(at / sectorSize), Last: uint64((at+size)/sectorSize) - 1,
		})
		at += size
	}
	if l.has(BIOS) {
		add(typeBIOSBoot, "gild-bios", 0, biosBootSize)
	}
	if l.has(UEFI) {
		add(typeESP, "gild-esp", 0, espSize)
	}
	// The last MiB holds the backup of the table.
	add(rootType(l.Arch), "gild-root", attributeGrow, l.Size-mib-at)
	return t
}

func (l Layout) write(ctx context.Context, f *os.File, root, scratch string, b boot, log io.Writer) error {
	if err := f.Truncate(l.Size); err != nil {
		return fmt.Errorf("make a disk of %d MiB: %w", l.Size/mib, err)
	}
	t := l.table()
	var mbr []byte
	for _, p := range t.Partitions {
		offset, size := int64(p.First)*sectorSize, int64(p.Last-p.First+1)*sectorSize
		var err error
		switch p.Type {
		case typeBIOSBoot:
			mbr, err = l.writeBIOS(ctx, f, int64(p.First), scratch, b, log)
		case typeESP:
			err = l.writeESP(ctx, f, p, scratch, b, log)
		default:
			err = l.writeRoot(ctx, f, root, offset, size)
		}
		if err != nil {
			return fmt.Errorf("partition %s: %w", strings.TrimPrefix(p.Name, "gild-"), err)
		}
	}
	return t.writeTo(f, mbr)
}

func (l Layout) writeBIOS(ctx context.Context, f *os.File, lba int64, scratch string, b boot, log io.Writer) (mbr []byte, err error) {
	core, err := l.grubImage(ctx, BIOS, scratch, b, log)
	if err != nil {
		return nil, err
	}
	mbr, core, err = biosBoot(core, uint64(lba))
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(core, lba*sectorSize)
	return mbr, err
}

func (l Layout) writeESP(ctx context.Context, f *os.File, p partition, scratch string, b boot, log io.Writer) error {
	image, err := l.grubImage(ctx, UEFI, scratch, b, log)
	if err != nil {
		return err
	}
	id := l.id("esp file system")
	esp := fatVolume{
		Size: espSize, Hidden: uint32(p.First), Label: "GILD-ESP", Clock: l.Clock,
		Serial: uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3]),
		Root:   fatDir("", fatDir("EFI", fatDir("BOOT", fatNode{Name: efiName(l.Arch), Data: image}))),
	}
	return esp.writeTo(f, int64(p.First)*sectorSize)
}
