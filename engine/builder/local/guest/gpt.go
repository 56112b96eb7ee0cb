package guest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	sectorSize = 512
	// A table of more entries than this is nothing a tool writes.
	maxEntries   = 1024
	maxEntrySize = 4096
)

// rootTypes are the types of a root partition in the Discoverable Partitions
// Specification, by Go's name of the architecture.
var rootTypes = map[string]string{
	"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
	"arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}

// linuxType is what most tools give any partition with a Linux file system.
const linuxType = "0fc63daf-8483-4772-8e79-3d69d8477de4"

// findRoot returns the offset in bytes of the root partition of a disk with a GPT: the
// first of the architecture's root type, else the only ext4 among the Linux ones.
func findRoot(disk io.ReaderAt, arch string) (int64, error) {
	entries, err := readGPT(disk)
	if err != nil {
		return 0, err
	}
	var linux []int64
	for _, e := range entries {
		switch {
		case e.kind == rootTypes[arch]:
			return e.offset, nil
		case e.kind == linuxType && isExt4(disk, e.offset):
			linux = append(linux, e.offset)
		}
	}
	if len(linux) != 1 {
		return 0, fmt.Errorf("no partition has the type %s (root, %s), and %d have the type %s with an ext4 file system: one was expected",
			rootTypes[arch], arch, len(linux), linuxType)
	}
	return linux[0], nil
}

type gptEntry struct {
	kind   string // type GUID, lower case
	offset int64  // in bytes
}

// readGPT reads the used entries of a disk's primary table.
func readGPT(disk io.ReaderAt) ([]gptEntry, error) {
	head := make([]byte, sectorSize)
	if _, err := disk.ReadAt(head, sectorSize); err != nil {
		return nil, fmt.Errorf("read the partition table: %w", err)
	}
	if !bytes.HasPrefix(head, []byte("EFI PART")) {
		return nil, errors.New("the disk has no GUID partition table")
	}
	at := binary.LittleEndian.Uint64(head[72:])
	count := binary.LittleEndian.Uint32(head[80:])
	size := binary.LittleEndian.Uint32(head[84:])
	if at > 1<<32 || count > maxEntries || size < 128 || size > maxEntrySize {
		return nil, fmt.Errorf("the partition table claims %d entries of %d bytes at sector %d", count, size, at)
	}
	array := make([]byte, count*size)
	if _, err := disk.ReadAt(array, int64(at)*sectorSize); err != nil {
		return nil, fmt.Errorf("read the partition table's entries: %w", err)
	}
	var entries []gptEntry
	for ; len(array) > 0; array = array[size:] {
		first := binary.LittleEndian.Uint64(array[32:])
		if kind := guid(array); strings.Trim(kind, "0-") != "" && first < 1<<54 {
			entries = append(entries, gptEntry{kind, int64(first) * sectorSize})
		}
	}
	return entries, nil
}

// guid prints a GUID, whose first three fields are little-endian.
func guid(b []byte) string {
	s := hex.EncodeToString([]byte{
		b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
	})
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// isExt4 looks for the magic number of ext2, 3 and 4 in the superblock.
func isExt4(disk io.ReaderAt, offset int64) bool {
	magic := make([]byte, 2)
	_, err := disk.ReadAt(magic, offset+1024+56)
	return err == nil && binary.LittleEndian.Uint16(magic) == 0xef53
}
