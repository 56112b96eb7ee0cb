package ext4

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// group is where a block group has its own blocks.
type group struct {
	blockBitmap, inodeBitmap, table uint64
	// dirs counts the folders whose inodes are in the group.
	dirs uint32
}

// writer holds a file system while it is made. place decides where everything goes and
// makes all metadata in memory; only then is anything written.
type writer struct {
	Options
	geometry
	out    *os.File
	offset int64
	// seed starts every checksum.
	seed   uint32
	space  *space
	groups []group
	// inodes is the table of all inodes in use, from inode 1.
	inodes []byte
	pieces []piece
	files  []*node
}

func newWriter(o Options, g geometry, out *os.File, offset int64) *writer {
	return &writer{
		Options: o, geometry: g, out: out, offset: offset,
		seed: crc32c(^uint32(0), o.UUID[:]), space: newSpace(), groups: make([]group, g.groupCount),
	}
}

// place gives every inode its blocks.
func (w *writer) place(t *tree) error {
	w.reserve()
	last := t.nodes[len(t.nodes)-1].ino
	w.inodes = make([]byte, max(int(last), firstInode-1)*inodeSize)
	for _, n := range t.nodes {
		if n.isDir() {
			w.hold(n, dirBlocks(n, w.seed))
			w.groups[uint64(n.ino-1)/w.inodesPerGroup].dirs++
		}
	}
	w.placeResize()
	w.placeJournal()
	for _, n := range t.nodes {
		switch {
		case n.kind() == unix.S_IFREG:
			n.extents = mapBlocks(n.data, w.space.take(total(n.data)))
			w.files = append(w.files, n)
		case n.kind() == unix.S_IFLNK && len(n.target) >= fastSymlinkLimit:
			w.hold(n, pad([]byte(n.target)))
		}
		w.putInode(n)
	}
	if end := w.space.end(); end > w.blocks {
		return &NoSpaceError{Need: w.enough(end, len(t.nodes)), Have: w.Size}
	}
	return nil
}

// enough returns the size in bytes of a file system that the tree fits, where this one
// would need end blocks: tables, journal and what is kept for growing grow with the size.
func (w *writer) enough(end uint64, nodes int) int64 {
	// Runs are cut at other places, which can take a few more blocks for extents.
	const slack = 64
	content := end - w.overhead() + slack
	for blocks := end; ; {
		g, err := newGeometry(int64(blocks)*blockSize, nodes)
		if need := content + g.overhead(); err == nil && need > g.blocks {
			// What newGeometry left unused at the end is left unused again.
			blocks += need - g.blocks
			continue
		}
		return int64(blocks) * blockSize
	}
}

// reserve places what each group needs for itself. The bitmaps and inode tables of 16
// groups lie together (flex_bg), which leaves long runs for data.
func (w *writer) reserve() {
	count := uint64(len(w.groups))
	for g := range count {
		if n := w.backup(g); n > 0 {
			w.space.carve(g*blocksPerGroup, n)
		}
	}
	for flex := uint64(0); flex < count; flex += groupsPerFlex {
		members := w.groups[flex:min(flex+groupsPerFlex, count)]
		n := uint64(len(members))
		start := flex * blocksPerGroup
		blockBitmaps, inodeBitmaps := w.space.carve(start, n), w.space.carve(start, n)
		for i := range members {
			members[i].blockBitmap = blockBitmaps + uint64(i)
			members[i].inodeBitmap = inodeBitmaps + uint64(i)
			members[i].table = w.space.carve(start, w.tableBlocks)
		}
	}
}

// hold gives an inode content that is in memory, whole blocks of it.
func (w *writer) hold(n *node, content []byte) {
	blocks := uint64(len(content) / blockSize)
	if n.kind() != unix.S_IFLNK {
		n.size = int64(len(content))
	}
	n.data = []span{{0, blocks}}
	runs := w.space.take(blocks)
	n.extents = mapBlocks(n.data, runs)
	for _, r := range runs {
		size := r.n * blockSize
		w.pieces = append(w.pieces, piece{r.start, content[:size]})
		content = content[size:]
	}
}

// putInode encodes a placed inode into the table, with the blocks it needs beyond its data.
func (w *writer) putInode(n *node) {
	le := binary.LittleEndian
	b := w.inodes[(n.ino-1)*inodeSize:][:inodeSize]
	n.encode(b, w.Clock)
	blockMap := b[0x28:0x64]
	blocks := total(n.data)
	switch n.kind() {
	case unix.S_IFCHR, unix.S_IFBLK:
		putDevice(blockMap, n.rdev)
	case unix.S_IFLNK, unix.S_IFREG, unix.S_IFDIR:
		if n.kind() == unix.S_IFLNK && n.data == nil {
			copy(blockMap, n.target)
			break
		}
		le.PutUint32(b[0x20:], flagExtents)
		index := extentTree(blockMap, n.extents, inodeSeed(w.seed, n.ino), w.space)
		w.pieces = append(w.pieces, index...)
		blocks += uint64(len(index))
	}
	if len(n.xattrs) > 0 && !inodeXattrs(b, n.xattrs) {
		block := w.space.one()
		w.pieces = append(w.pieces, piece{block, xattrBlock(n.xattrs, block, w.seed)})
		le.PutUint32(b[0x68:], uint32(block))
		le.PutUint16(b[0x76:], uint16(block>>32))
		blocks++
	}
	putBlockCount(b, blocks)
	putChecksum(b, w.seed, n.ino)
}

// putBlockCount writes a number of blocks in the inode's unit of 512 bytes.
func putBlockCount(b []byte, blocks uint64) {
	sectors := blocks * (blockSize / 512)
	binary.LittleEndian.PutUint32(b[0x1c:], uint32(sectors))
	binary.LittleEndian.PutUint16(b[0x74:], uint16(sectors>>32))
}

// placeResize makes the inode that holds the blocks kept for more group descriptors.
// Its double indirect block names those of group 0, each of which names its backups.
func (w *writer) placeResize() {
	le := binary.LittleEndian
	n := &node{ino: resizeInode, mode: unix.S_IFREG | 0o600, links: 1, mtime: w.Clock}
	n.size = (addrsPerBlock*addrsPerBlock + addrsPerBlock + 12) * blockSize
	double := make([]byte, blockSize)
	at := w.space.one()
	blocks := uint64(1)
	for i := range w.reservedDescs {
		index := w.descBlocks + i
		first := 1 + index
		le.PutUint32(double[index%addrsPerBlock*4:], uint32(first))
		backups := make([]byte, 0, blockSize)
		for g := uint64(1); g < uint64(len(w.groups)); g++ {
			if hasBackup(g) {
				backups = le.AppendUint32(backups, uint32(g*blocksPerGroup+first))
			}
		}
		blocks += 1 + uint64(len(backups)/4)
		w.pieces = append(w.pieces, piece{first, backups})
	}
	w.pieces = append(w.pieces, piece{at, double})
	b := w.inodes[(n.ino-1)*inodeSize:][:inodeSize]
	n.encode(b, w.Clock)
	le.PutUint32(b[0x28+13*4:], uint32(at))
	putBlockCount(b, blocks)
	putChecksum(b, w.seed, n.ino)
}

// placeJournal makes an empty journal, of the size mke2fs gives one.
func (w *writer) placeJournal() {
	blocks := journalBlocks(w.blocks)
	runs := w.space.take(blocks)
	n := &node{ino: journalInode, mode: unix.S_IFREG | 0o600, links: 1, mtime: w.Clock, size: int64(blocks * blockSize)}
	n.data = []span{{0, blocks}}
	n.extents = mapBlocks(n.data, runs)
	be := binary.BigEndian
	sb := make([]byte, 1024)
	be.PutUint32(sb, 0xc03b3998)
	be.PutUint32(sb[4:], 4)
	be.PutUint32(sb[12:], blockSize)
	be.PutUint32(sb[16:], uint32(blocks))
	be.PutUint32(sb[20:], 1)
	be.PutUint32(sb[24:], 1)
	be.PutUint32(sb[64:], 1)
	w.pieces = append(w.pieces, piece{runs[0].start, sb})
	w.putInode(n)
}

func total(spans []span) uint64 {
	var n uint64
	for _, s := range spans {
		n += s.n
	}
	return n
}

// pad fills content up to a whole block.
func pad(content []byte) []byte {
	return append(content, make([]byte, ceil(uint64(len(content)), blockSize)*blockSize-uint64(len(content)))...)
}

func (w *writer) writeAt(data []byte, block uint64) error {
	if _, err := w.out.WriteAt(data, w.offset+int64(block)*blockSize); err != nil {
		return fmt.Errorf("write file system: %w", err)
	}
	return nil
}
