package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rootInode    = 2
	resizeInode  = 7
	journalInode = 8
	firstInode   = 11

	// holeSize is the unit in which zeros become holes. It is aligned to itself, and
	// so depends on a file's content only, never on the holes it has on the host.
	holeSize = 64 << 10

	maxLinks = 65000
)

// node is one inode to be.
type node struct {
	// path is where the host has it, "" for what isn't from the tree.
	path     string
	ino      uint32
	mode     uint32
	uid, gid uint32
	links    uint32
	size     int64
	rdev     uint64
	mtime    time.Time
	// target of a symbolic link.
	target   string
	xattrs   []xattr
	parent   *node
	children []entry
	// data lists the runs of a regular file, in blocks, that aren't holes.
	data []span
	// extents map data to blocks, once placed.
	extents []extent
}

// entry is a name in a folder.
type entry struct {
	name string
	node *node
}

func (n *node) kind() uint32 { return n.mode & unix.S_IFMT }
func (n *node) isDir() bool  { return n.kind() == unix.S_IFDIR }

// tree is a scanned folder.
type tree struct {
	root *node
	// nodes are in the order of their inode numbers.
	nodes []*node
}

// identity is what two names of one file share.
type identity struct{ dev, ino uint64 }

type scanner struct {
	ctx   context.Context
	clock time.Time
	dev   uint64
	seen  map[identity]*node
	next  uint32
	tree  tree
	chunk []byte
}

// scan reads everything but file contents. Folders are read in the order of their
// names, so that nothing depends on how the host keeps them.
func scan(ctx context.Context, root string, clock time.Time) (*tree, error) {
	s := scanner{ctx: ctx, clock: clock, seen: map[identity]*node{}, next: firstInode, chunk: make([]byte, holeSize)}
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("%s is not a folder", root)
	}
	s.dev = st.Dev
	n := &node{path: root, ino: rootInode, mode: unix.S_IFDIR | 0o755, links: 2, mtime: clock}
	n.parent = n
	s.tree.root = n
	s.tree.nodes = append(s.tree.nodes, n)
	return &s.tree, s.folder(n)
}

// folder numbers all of a folder's files before it goes into its subfolders, which
// keeps what is used together close together.
func (s *scanner) folder(dir *node) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	names, err := readNames(dir.path)
	if err != nil {
		return err
	}
	if dir.ino == rootInode && !slices.Contains(names, "lost+found") {
		s.lostFound(dir)
	}
	for _, name := range names {
		n, err := s.file(filepath.Join(dir.path, name))
		if err != nil {
			return err
		}
		n.links++
		dir.children = append(dir.children, entry{name, n})
	}
	slices.SortFunc(dir.children, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, c := range dir.children {
		if !c.node.isDir() {
			continue
		}
		c.node.links++
		dir.links++
		c.node.parent = dir
		if c.node.path == "" {
			continue
		}
		if err := s.folder(c.node); err != nil {
			return err
		}
	}
	return nil
}

// lostFound adds the folder that e2fsck wants.
func (s *scanner) lostFound(root *node) {
	n := s.add(&node{mode: unix.S_IFDIR | 0o700, links: 1, mtime: s.clock})
	root.children = append(root.children, entry{"lost+found", n})
}

func (s *scanner) add(n *node) *node {
	n.ino = s.next
	s.next++
	s.tree.nodes = append(s.tree.nodes, n)
	return n
}

func readNames(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// file reads one name; a further name of a file already seen gives the same node.
func (s *scanner) file(path string) (*node, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	n := &node{
		path: path, mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size, rdev: st.Rdev,
		mtime: time.Unix(st.Mtim.Unix()),
	}
	if n.mtime.After(s.clock) {
		n.mtime = s.clock
	}
	if n.isDir() {
		// Only folders can tell: an overlay shows its files with the devices below it.
		if st.Dev != s.dev {
			return nil, fmt.Errorf("%s is a mount point: the tree must be without mounts", path)
		}
	} else if st.Nlink > 1 {
		id := identity{st.Dev, st.Ino}
		if first := s.seen[id]; first != nil {
			if first.links == maxLinks {
				return nil, fmt.Errorf("%s is a hard link too many: a file has at most %d", path, maxLinks)
			}
			return first, nil
		}
		s.seen[id] = n
	}
	return s.add(n), s.fill(n)
}

// fill reads what only some kinds of files have.
func (s *scanner) fill(n *node) (err error) {
	switch n.kind() {
	case unix.S_IFLNK:
		n.target, err = os.Readlink(n.path)
		if err == nil && len(n.target) >= blockSize {
			err = fmt.Errorf("%s: the target of the symbolic link has %d bytes, at most %d fit", n.path, len(n.target), blockSize-1)
		}
		n.size = int64(len(n.target))
	case unix.S_IFREG:
		n.data, err = s.dataOf(n)
	default:
		n.size = 0
	}
	if err != nil {
		return err
	}
	n.xattrs, err = readXattrs(n.path)
	return err
}

// dataOf finds the runs of blocks of a file that aren't zero.
func (s *scanner) dataOf(n *node) ([]span, error) {
	if n.size > math.MaxUint32*blockSize {
		return nil, fmt.Errorf("%s has %d bytes: a file has at most 16 TiB", n.path, n.size)
	}
	blocks := ceil(uint64(n.size), blockSize)
	if n.size == 0 {
		return nil, nil
	}
	if n.size < holeSize {
		return []span{{0, blocks}}, nil
	}
	f, err := os.OpenFile(n.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []span
	for at := int64(0); at < n.size; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return nil, err
		}
		at = data / holeSize * holeSize
		zero, err := s.isZero(f, at, min(holeSize, n.size-at))
		if err != nil {
			return nil, err
		}
		if !zero {
			first := uint64(at / blockSize)
			out = appendSpan(out, span{first, min(holeSize/blockSize, blocks-first)})
		}
		at += holeSize
	}
	return out, nil
}

// isZero looks at the start of a chunk first, which nearly always decides it.
func (s *scanner) isZero(f *os.File, at, n int64) (bool, error) {
	for _, part := range [][]byte{s.chunk[:min(n, 512)], s.chunk[:n]} {
		if _, err := f.ReadAt(part, at); err != nil {
			if errors.Is(err, io.EOF) {
				return false, fmt.Errorf("%s got shorter while it was read", f.Name())
			}
			return false, err
		}
		for _, b := range part {
			if b != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

// appendSpan adds b to a list, joined to the last span where they touch.
func appendSpan(list []span, b span) []span {
	if len(list) > 0 {
		if last := &list[len(list)-1]; last.start+last.n == b.start {
			last.n += b.n
			return list
		}
	}
	return append(list, b)
}
