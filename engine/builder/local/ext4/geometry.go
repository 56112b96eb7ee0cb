package ext4

const (
	blockSize      = 4096
	blocksPerGroup = 8 * blockSize
	inodeSize      = 256
	inodesPerBlock = blockSize / inodeSize
	descSize       = 64
	descsPerBlock  = blockSize / descSize
	groupsPerFlex  = 16
	addrsPerBlock  = blockSize / 4

	// bytesPerInode is mke2fs's choice of one inode per 16 KiB.
	bytesPerInode = 16384
)

// geometry is how a file system is divided. All counts are of blocks unless named otherwise.
type geometry struct {
	blocks         uint64
	groupCount     uint64
	inodesPerGroup uint64
	// tableBlocks is the length of one group's inode table.
	tableBlocks uint64
	// descBlocks hold the group descriptors, reservedDescs are kept for growing.
	descBlocks, reservedDescs uint64
}

// newGeometry divides size bytes so that there is room for the inodes of a tree.
func newGeometry(size int64, nodes int) (geometry, error) {
	g := geometry{blocks: uint64(size / blockSize)}
	inodes := max(uint64(size/bytesPerInode), uint64(nodes+nodes/4+1024))
	if err := g.divide(inodes); err != nil {
		return g, err
	}
	// A last group with hardly any room after its own tables isn't worth having.
	if rest := g.blocks % blocksPerGroup; g.groupCount > 1 && rest != 0 && rest < g.backup(g.groupCount-1)+2+g.tableBlocks+50 {
		g.blocks -= rest
		return g, g.divide(inodes)
	}
	return g, nil
}

func (g *geometry) divide(inodes uint64) error {
	g.groupCount = ceil(g.blocks, blocksPerGroup)
	g.tableBlocks = ceil(ceil(inodes, g.groupCount), inodesPerBlock)
	g.inodesPerGroup = g.tableBlocks * inodesPerBlock
	if g.inodesPerGroup > 8*blockSize {
		return &NoSpaceError{Need: int64(ceil(inodes, 8*blockSize) * blocksPerGroup * blockSize), Have: int64(g.blocks * blockSize)}
	}
	g.descBlocks = ceil(g.groupCount, descsPerBlock)
	// Room to grow to 1,024 times the size, as mke2fs leaves it.
	grown := min(g.blocks*1024, 1<<32-1)
	g.reservedDescs = min(ceil(ceil(grown, blocksPerGroup), descsPerBlock)-g.descBlocks, addrsPerBlock)
	return nil
}

// backup returns how many blocks a group has at its start for the superblock and the descriptors.
func (g *geometry) backup(group uint64) uint64 {
	if !hasBackup(group) {
		return 0
	}
	return 1 + g.descBlocks + g.reservedDescs
}

// groupBlocks returns the number of blocks in a group.
func (g *geometry) groupBlocks(group uint64) uint64 {
	return min(g.blocks-group*blocksPerGroup, blocksPerGroup)
}

// overhead returns how many blocks there are besides those of the tree.
func (g *geometry) overhead() uint64 {
	// One block names those kept for growing.
	n := 1 + journalBlocks(g.blocks) + g.groupCount*(2+g.tableBlocks)
	for group := range g.groupCount {
		n += g.backup(group)
	}
	return n
}

// journalBlocks returns the size mke2fs gives a journal.
func journalBlocks(blocks uint64) uint64 {
	switch {
	case blocks < 32768:
		return 1024
	case blocks < 256<<10:
		return 4096
	case blocks < 512<<10:
		return 8192
	case blocks < 4096<<10:
		return 16384
	case blocks < 8192<<10:
		return 32768
	case blocks < 16384<<10:
		return 65536
	case blocks < 32768<<10:
		return 131072
	default:
		return 262144
	}
}

// hasBackup reports whether a group holds a copy of the superblock: 0, 1 and the powers of 3, 5 and 7.
func hasBackup(group uint64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		power := base
		for power < group {
			power *= base
		}
		if power == group {
			return true
		}
	}
	return false
}

func ceil(a, b uint64) uint64 { return (a + b - 1) / b }

// span is a run of blocks.
type span struct{ start, n uint64 }

// space is what is free: ascending, disjoint spans, of which the last has no end, so
// that a tree too large can still be measured.
type space struct{ free []span }

func newSpace() *space { return &space{free: []span{{0, 1 << 60}}} }

// carve takes n blocks in a row, the first such at or after from.
func (s *space) carve(from, n uint64) uint64 {
	for i, f := range s.free {
		start := max(f.start, from)
		end := f.start + f.n
		if start+n > end {
			continue
		}
		parts := make([]span, 0, 2)
		if start > f.start {
			parts = append(parts, span{f.start, start - f.start})
		}
		if start+n < end {
			parts = append(parts, span{start + n, end - start - n})
		}
		s.free = append(s.free[:i:i], append(parts, s.free[i+1:]...)...)
		return start
	}
	panic("ext4: space without end has ended")
}

// take takes n blocks from the front, in as few runs as there are.
func (s *space) take(n uint64) []span {
	var out []span
	for n > 0 {
		f := &s.free[0]
		k := min(n, f.n)
		out = append(out, span{f.start, k})
		f.start, f.n, n = f.start+k, f.n-k, n-k
		if f.n == 0 {
			s.free = s.free[1:]
		}
	}
	return out
}

// one takes a single block.
func (s *space) one() uint64 { return s.take(1)[0].start }

// end is the block after the last one taken.
func (s *space) end() uint64 { return s.free[len(s.free)-1].start }
