package ext4

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	// dirRoom is a block of a folder without the checksum at its end.
	dirRoom = blockSize - 12
	// lostFoundBlocks are made beforehand, so that e2fsck has room without allocating.
	lostFoundBlocks = 4
)

// dirBlocks encodes a folder as a list, the entries in the order of their names.
func dirBlocks(dir *node, seed uint32) []byte {
	seed = inodeSeed(seed, dir.ino)
	d := dirWriter{last: -1}
	d.add(".", dir)
	d.add("..", dir.parent)
	for _, c := range dir.children {
		d.add(c.name, c.node)
	}
	if dir.ino != rootInode && dir.path == "" {
		for range lostFoundBlocks - 1 {
			d.next()
		}
	}
	d.close()
	for at := 0; at < len(d.buf); at += blockSize {
		putDirTail(d.buf[at:at+blockSize], seed)
	}
	return d.buf
}

// dirWriter fills blocks with entries.
type dirWriter struct {
	buf []byte
	// used is how much of the current block is taken, last where its last entry starts,
	// -1 when there is none.
	used, last int
}

func (d *dirWriter) add(name string, n *node) {
	need := round4(8 + len(name))
	if len(d.buf) == 0 || d.used+need > dirRoom {
		d.next()
	}
	le := binary.LittleEndian
	b := d.buf[len(d.buf)-blockSize:]
	d.last = d.used
	e := b[d.used:]
	le.PutUint32(e, n.ino)
	le.PutUint16(e[4:], uint16(need))
	e[6], e[7] = byte(len(name)), fileType(n.mode)
	copy(e[8:], name)
	d.used += need
}

// next starts a new block.
func (d *dirWriter) next() {
	if len(d.buf) > 0 {
		d.close()
	}
	d.buf = append(d.buf, make([]byte, blockSize)...)
	d.used, d.last = 0, -1
}

// close gives the rest of the block to its last entry, or to an empty one.
func (d *dirWriter) close() {
	b := d.buf[len(d.buf)-blockSize:]
	at := max(d.last, 0)
	binary.LittleEndian.PutUint16(b[at+4:], uint16(dirRoom-at))
}

// putDirTail closes a block with its checksum, disguised as an unused entry.
func putDirTail(b []byte, seed uint32) {
	le := binary.LittleEndian
	tail := b[dirRoom:]
	le.PutUint16(tail[4:], 12)
	tail[7] = 0xde
	le.PutUint32(tail[8:], crc32c(seed, b[:dirRoom]))
}

func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	default:
		return 7
	}
}
