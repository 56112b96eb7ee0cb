package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/google/uuid"
)

// Partition types, from the UEFI specification, GRUB and the Discoverable Partitions
// Specification.
var (
	typeBIOSBoot  = uuid.UUID{0x21, 0x68, 0x61, 0x48, 0x64, 0x49, 0x6e, 0x6f, 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49}
	typeESP       = uuid.UUID{0xc1, 0x2a, 0x73, 0x28, 0xf8, 0x1f, 0x11, 0xd2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	typeRootAMD64 = uuid.UUID{0x4f, 0x68, 0xbc, 0xe3, 0xe8, 0xcd, 0x4d, 0xb1, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09}
	typeRootARM64 = uuid.UUID{0xb9, 0x21, 0xb0, 0x45, 0x1d, 0xf0, 0x41, 0xc3, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae}
)

// attributeGrow asks systemd to grow the file system to its partition at boot.
const attributeGrow = 1 << 59

const (
	gptEntrySize   = 128
	gptEntries     = 128
	gptHeaderSize  = 92
	gptArraySize   = gptEntries * gptEntrySize
	gptArrayBlocks = gptArraySize / sectorSize
)

func rootType(arch string) uuid.UUID {
	if arch == "arm64" {
		return typeRootARM64
	}
	return typeRootAMD64
}

// table is a GUID partition table of a disk with sectors of 512 bytes.
type table struct {
	Disk uuid.UUID
	// Sectors on the whole disk.
	Sectors    uint64
	Partitions []partition
}

// partition is one entry of a table.
type partition struct {
	Type, ID uuid.UUID
	// Name has at most 36 UTF-16 code units.
	Name       string
	Attributes uint64
	// First and Last are sectors, both inclusive.
	First, Last uint64
}

// writeTo writes the protective MBR with boot code (at most 440 bytes), the primary
// table at the start and its backup at the end of the disk.
func (t table) writeTo(w io.WriterAt, bootCode []byte) error {
	array, err := t.array()
	if err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	last := t.Sectors - 1
	start := append(t.protectiveMBR(bootCode), t.header(1, last, 2, array)...)
	start = append(start, array...)
	end := append(array, t.header(last, 1, last-gptArrayBlocks, array)...)
	if _, err := w.WriteAt(start, 0); err != nil {
		return fmt.Errorf("write partition table: %w", err)
	}
	if _, err := w.WriteAt(end, int64(last-gptArrayBlocks)*sectorSize); err != nil {
		return fmt.Errorf("write backup partition table: %w", err)
	}
	return nil
}

func (t table) firstUsable() uint64 { return 2 + gptArrayBlocks }
func (t table) lastUsable() uint64  { return t.Sectors - 2 - gptArrayBlocks }

// array encodes the entries, and refuses those that overlap or lie outside the disk.
func (t table) array() ([]byte, error) {
	if len(t.Partitions) > gptEntries {
		return nil, fmt.Errorf("%d partitions: at most %d fit", len(t.Partitions), gptEntries)
	}
	out := make([]byte, gptArraySize)
	next := t.firstUsable()
	for i, p := range t.Partitions {
		if p.First < next || p.Last < p.First || p.Last > t.lastUsable() {
			return nil, fmt.Errorf("partition %q: sectors %d to %d are not within the free %d to %d", p.Name, p.First, p.Last, next, t.lastUsable())
		}
		next = p.Last + 1
		name := utf16.Encode([]rune(p.Name))
		if len(name) > 36 {
			return nil, fmt.Errorf("partition %q: a name has at most 36 characters", p.Name)
		}
		e := out[i*gptEntrySize:]
		putGUID(e[0:], p.Type)
		putGUID(e[16:], p.ID)
		binary.LittleEndian.PutUint64(e[32:], p.First)
		binary.LittleEndian.PutUint64(e[40:], p.Last)
		binary.LittleEndian.PutUint64(e[48:], p.Attributes)
		for j, unit := range name {
			binary.LittleEndian.PutUint16(e[56+2*j:], unit)
		}
	}
	return out, nil
}

func (t table) header(self, other, arrayAt uint64, array []byte) []byte {
	h := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(h, "EFI PART")
	le.PutUint32(h[8:], 0x00010000)
	le.PutUint32(h[12:], gptHeaderSize)
	le.PutUint64(h[24:], self)
	le.PutUint64(h[32:], other)
	le.PutUint64(h[40:], t.firstUsable())
	le.PutUint64(h[48:], t.lastUsable())
	putGUID(h[56:], t.Disk)
	le.PutUint64(h[72:], arrayAt)
	le.PutUint32(h[80:], gptEntries)
	le.PutUint32(h[84:], gptEntrySize)
	le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeaderSize]))
	return h
}

// protectiveMBR has one entry over the whole disk, so that tools that know no GPT
// leave it alone.
func (t table) protectiveMBR(bootCode []byte) []byte {
	m := make([]byte, sectorSize)
	copy(m[:440], bootCode)
	e := m[446:]
	copy(e[1:4], []byte{0x00, 0x02, 0x00})
	e[4] = 0xee
	copy(e[5:8], []byte{0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(t.Sectors-1, 0xffffffff)))
	m[510], m[511] = 0x55, 0xaa
	return m
}

// putGUID writes the first three fields of id little-endian, as GPT wants them.
func putGUID(b []byte, id uuid.UUID) {
	copy(b, []byte{id[3], id[2], id[1], id[0], id[5], id[4], id[7], id[6]})
	copy(b[8:], id[8:])
}
