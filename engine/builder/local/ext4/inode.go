package ext4

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// extraSize is how much of the inode's second half is used by its own fields.
	extraSize = 32

	flagExtents = 0x80000

	maxExtent        = 1 << 15
	extentMagic      = 0xf30a
	extentsInInode   = 4
	extentsInBlock   = (blockSize - 12 - 4) / 12
	fastSymlinkLimit = 60
)

// extent maps n blocks of a file from logical on to blocks from physical on.
type extent struct {
	logical  uint32
	n        uint16
	physical uint64
}

// piece is a block, or several in a row, made in memory.
type piece struct {
	block uint64
	data  []byte
}

// crc32c is the checksum as ext4 chains it, without the final inversion.
func crc32c(seed uint32, data []byte) uint32 {
	return ^crc32.Update(^seed, crc32.MakeTable(crc32.Castagnoli), data)
}

// inodeSeed starts the checksums of everything that belongs to an inode of generation 0.
func inodeSeed(seed, ino uint32) uint32 {
	return crc32c(seed, binary.LittleEndian.AppendUint64(nil, uint64(ino)))
}

// mapBlocks splits runs of a file over the blocks taken for them.
func mapBlocks(data, blocks []span) []extent {
	var out []extent
	i, used := 0, uint64(0)
	for _, d := range data {
		for d.n > 0 {
			n := min(d.n, blocks[i].n-used, maxExtent)
			out = append(out, extent{uint32(d.start), uint16(n), blocks[i].start + used})
			d.start, d.n, used = d.start+n, d.n-n, used+n
			if used == blocks[i].n {
				i, used = i+1, 0
			}
		}
	}
	return out
}

// extentTree writes the root of a file's extent tree into the inode's 60 bytes and
// returns the blocks of the rest.
func extentTree(root []byte, list []extent, seed uint32, sp *space) []piece {
	var pieces []piece
	level := make([][]byte, len(list))
	starts := make([]uint32, len(list))
	for i, e := range list {
		level[i], starts[i] = e.leaf(), e.logical
	}
	depth := uint16(0)
	for ; len(level) > extentsInInode; depth++ {
		var up [][]byte
		var upStarts []uint32
		for len(level) > 0 {
			n := min(len(level), extentsInBlock)
			block := sp.one()
			pieces = append(pieces, piece{block, extentBlock(level[:n], depth, seed)})
			up, upStarts = append(up, indexEntry(starts[0], block)), append(upStarts, starts[0])
			level, starts = level[n:], starts[n:]
		}
		level, starts = up, upStarts
	}
	putExtents(root, level, extentsInInode, depth)
	return pieces
}

func (e extent) leaf() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, e.logical)
	b = le.AppendUint16(b, e.n)
	b = le.AppendUint16(b, uint16(e.physical>>32))
	return le.AppendUint32(b, uint32(e.physical))
}

func indexEntry(logical uint32, block uint64) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, logical)
	b = le.AppendUint32(b, uint32(block))
	return le.AppendUint32(b, uint32(block>>32))
}

func extentBlock(entries [][]byte, depth uint16, seed uint32) []byte {
	b := make([]byte, blockSize)
	putExtents(b, entries, extentsInBlock, depth)
	tail := 12 + 12*extentsInBlock
	binary.LittleEndian.PutUint32(b[tail:], crc32c(seed, b[:tail]))
	return b
}

func putExtents(b []byte, entries [][]byte, room int, depth uint16) {
	le := binary.LittleEndian
	le.PutUint16(b, extentMagic)
	le.PutUint16(b[2:], uint16(len(entries)))
	le.PutUint16(b[4:], uint16(room))
	le.PutUint16(b[6:], depth)
	for i, e := range entries {
		copy(b[12+12*i:], e)
	}
}

// encode writes the fields of an inode but for block map, flags, block count and checksum.
func (n *node) encode(b []byte, clock time.Time) {
	le := binary.LittleEndian
	le.PutUint16(b[0x00:], uint16(n.mode))
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(n.size))
	le.PutUint16(b[0x18:], uint16(n.gid))
	links := n.links
	if n.isDir() && links > maxLinks {
		// One stands for "many" (feature dir_nlink).
		links = 1
	}
	le.PutUint16(b[0x1a:], uint16(links))
	le.PutUint32(b[0x6c:], uint32(n.size>>32))
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	le.PutUint16(b[0x80:], extraSize)
	putTime(b, 0x08, 0x8c, clock)
	putTime(b, 0x0c, 0x84, clock)
	putTime(b, 0x10, 0x88, n.mtime)
	putTime(b, 0x90, 0x94, clock)
}

// putTime writes seconds, and two further bits of them with the nanoseconds.
func putTime(b []byte, at, extra int, t time.Time) {
	sec := t.Unix()
	// What 34 bits can hold: 1901 to 2446.
	sec = min(max(sec, math.MinInt32), math.MaxInt32+3<<32)
	low := int32(sec)
	binary.LittleEndian.PutUint32(b[at:], uint32(low))
	epoch := uint32((sec-int64(low))>>32) & 3
	binary.LittleEndian.PutUint32(b[extra:], epoch|uint32(t.Nanosecond())<<2)
}

// putDevice writes a device number the way the kernel reads it.
func putDevice(b []byte, rdev uint64) {
	major, minor := unix.Major(rdev), unix.Minor(rdev)
	if major < 256 && minor < 256 {
		binary.LittleEndian.PutUint32(b, major<<8|minor)
		return
	}
	binary.LittleEndian.PutUint32(b[4:], minor&0xff|major<<8|minor&^0xff<<12)
}

// putChecksum closes an inode.
func putChecksum(b []byte, seed, ino uint32) {
	sum := crc32c(inodeSeed(seed, ino), b)
	binary.LittleEndian.PutUint16(b[0x7c:], uint16(sum))
	binary.LittleEndian.PutUint16(b[0x82:], uint16(sum>>16))
}
