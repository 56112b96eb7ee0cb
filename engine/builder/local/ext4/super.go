package ext4

import (
	"encoding/binary"
	"fmt"
)

// The features, by the word of the superblock they are in.
const (
	// has_journal, ext_attr, resize_inode, dir_index
	featureCompat = 0x4 | 0x8 | 0x10 | 0x20
	// filetype, extents, 64bit, flex_bg
	featureIncompat = 0x2 | 0x40 | 0x80 | 0x200
	// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
	featureROCompat = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400
)

const (
	superOffset = 1024
	superSize   = 1024

	groupInodeUninit = 0x1
	groupInodeZeroed = 0x4
)

// writeMetadata writes everything but the contents of files.
func (w *writer) writeMetadata() error {
	for _, p := range w.pieces {
		if err := w.writeAt(p.data, p.block); err != nil {
			return err
		}
	}
	descs := make([]byte, w.descBlocks*blockSize)
	var freeBlocks, freeInodes uint64
	for i := range w.groups {
		b, n, err := w.writeGroup(uint64(i), descs[i*descSize:][:descSize])
		if err != nil {
			return err
		}
		freeBlocks, freeInodes = freeBlocks+b, freeInodes+n
	}
	for g := range uint64(len(w.groups)) {
		if hasBackup(g) {
			if err := w.writeSuper(g, freeBlocks, freeInodes, descs); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeGroup writes a group's bitmaps and inodes and encodes its descriptor.
func (w *writer) writeGroup(g uint64, desc []byte) (freeBlocks, freeInodes uint64, err error) {
	grp := w.groups[g]
	blockBitmap, freeBlocks := w.blockBitmap(g)
	inodeBitmap, freeInodes := w.inodeBitmap(g)
	used := w.inodesPerGroup - freeInodes
	from := min(g*w.inodesPerGroup*inodeSize, uint64(len(w.inodes)))
	for _, p := range []piece{
		{grp.blockBitmap, blockBitmap}, {grp.inodeBitmap, inodeBitmap}, {grp.table, w.inodes[from : from+used*inodeSize]},
	} {
		if err := w.writeAt(p.data, p.block); err != nil {
			return 0, 0, fmt.Errorf("group %d: %w", g, err)
		}
	}
	le := binary.LittleEndian
	put16 := func(low, high int, v uint64) {
		le.PutUint16(desc[low:], uint16(v))
		le.PutUint16(desc[high:], uint16(v>>16))
	}
	for i, block := range []uint64{grp.blockBitmap, grp.inodeBitmap, grp.table} {
		le.PutUint32(desc[4*i:], uint32(block))
		le.PutUint32(desc[0x20+4*i:], uint32(block>>32))
	}
	put16(0x0c, 0x2c, freeBlocks)
	put16(0x0e, 0x2e, freeInodes)
	put16(0x10, 0x30, uint64(grp.dirs))
	put16(0x18, 0x38, uint64(crc32c(w.seed, blockBitmap)))
	put16(0x1a, 0x3a, uint64(crc32c(w.seed, inodeBitmap[:w.inodesPerGroup/8])))
	put16(0x1c, 0x32, freeInodes)
	// The tables lie in zeros: the kernel needs not zero them at the first mount.
	flags := uint16(groupInodeZeroed)
	if used == 0 {
		flags |= groupInodeUninit
	}
	le.PutUint16(desc[0x12:], flags)
	sum := crc32c(crc32c(w.seed, le.AppendUint32(nil, uint32(g))), desc)
	le.PutUint16(desc[0x1e:], uint16(sum))
	return freeBlocks, freeInodes, nil
}

// blockBitmap has a one for each block that is used, or lies beyond the end.
func (w *writer) blockBitmap(g uint64) (bitmap []byte, free uint64) {
	bitmap = make([]byte, blockSize)
	for i := range bitmap {
		bitmap[i] = 0xff
	}
	first := g * blocksPerGroup
	end := first + w.groupBlocks(g)
	for _, f := range w.space.free {
		for b := max(f.start, first); b < min(f.start+f.n, end); b++ {
			bitmap[(b-first)/8] &^= 1 << ((b - first) % 8)
			free++
		}
	}
	return bitmap, free
}

// inodeBitmap has a one for each inode that is used, or can't be.
func (w *writer) inodeBitmap(g uint64) (bitmap []byte, free uint64) {
	all := uint64(len(w.inodes) / inodeSize)
	used := min(max(all, g*w.inodesPerGroup)-g*w.inodesPerGroup, w.inodesPerGroup)
	bitmap = make([]byte, blockSize)
	for i := range uint64(8 * blockSize) {
		if i < used || i >= w.inodesPerGroup {
			bitmap[i/8] |= 1 << (i % 8)
		}
	}
	return bitmap, w.inodesPerGroup - used
}

// writeSuper writes a group's copy of the superblock and the descriptors.
func (w *writer) writeSuper(g, freeBlocks, freeInodes uint64, descs []byte) error {
	sb := w.super(g, freeBlocks, freeInodes)
	block := g * blocksPerGroup
	if g == 0 {
		sb = append(make([]byte, superOffset), sb...)
	}
	if err := w.writeAt(sb, block); err != nil {
		return err
	}
	return w.writeAt(descs, block+1)
}

func (w *writer) super(g, freeBlocks, freeInodes uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, superSize)
	reserved := w.blocks / 20
	now := uint32(w.Clock.Unix())
	for at, v := range map[int]uint32{
		0x00: uint32(uint64(len(w.groups)) * w.inodesPerGroup),
		0x04: uint32(w.blocks), 0x150: uint32(w.blocks >> 32),
		0x08: uint32(reserved), 0x154: uint32(reserved >> 32),
		0x0c: uint32(freeBlocks), 0x158: uint32(freeBlocks >> 32),
		0x10: uint32(freeInodes),
		// Blocks and clusters are 1024<<2 bytes.
		0x18: 2, 0x1c: 2,
		0x20: blocksPerGroup, 0x24: blocksPerGroup, 0x28: uint32(w.inodesPerGroup),
		// Last written, last checked, made.
		0x30: now, 0x40: now, 0x108: now,
		// Revision 1, the first inode that isn't reserved, the journal's inode.
		0x4c: 1, 0x54: firstInode, 0xe0: journalInode,
		0x5c: featureCompat, 0x60: featureIncompat, 0x64: featureROCompat,
		// Mount options: user_xattr, acl. Flags: the directory hash takes characters as signed.
		0x100: 0x0c, 0x160: 1,
	} {
		le.PutUint32(b[at:], v)
	}
	for at, v := range map[int]uint16{
		// No check after a number of mounts, clean, carry on after errors.
		0x36: 0xffff, 0x38: 0xef53, 0x3a: 1, 0x3c: 1,
		0x58: inodeSize, 0x5a: uint16(g), 0xce: uint16(w.reservedDescs), 0xfe: descSize, 0x15c: extraSize, 0x15e: extraSize,
	} {
		le.PutUint16(b[at:], v)
	}
	copy(b[0x68:], w.UUID[:])
	copy(b[0x78:0x88], w.Label)
	copy(b[0xec:], w.HashSeed[:])
	// The directory hash (half MD4), the kind of the journal's backup, 16 groups per flex group, CRC32C.
	b[0xfc], b[0xfd], b[0x174], b[0x175] = 1, 1, 4, 1
	journal := w.inodes[(journalInode-1)*inodeSize:]
	copy(b[0x10c:0x148], journal[0x28:0x64])
	copy(b[0x148:], journal[0x6c:0x70])
	copy(b[0x14c:], journal[0x04:0x08])
	le.PutUint32(b[0x3fc:], crc32c(^uint32(0), b[:0x3fc]))
	return b
}
