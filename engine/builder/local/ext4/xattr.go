package ext4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	xattrMagic       = 0xea020000
	xattrHeaderSize  = 32
	xattrEntrySize   = 16
	xattrRoom        = blockSize - xattrHeaderSize
	inodeXattrOffset = 128 + extraSize
)

// xattr is an extended attribute as the disk has it: the name without the part that index stands for.
type xattr struct {
	index byte
	name  string
	value []byte
}

// readXattrs reads the attributes that are kept. What isn't supported by the host's
// file system isn't there.
func readXattrs(path string) ([]xattr, error) {
	size, err := unix.Llistxattr(path, nil)
	if size == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	list := make([]byte, size)
	if size, err = unix.Llistxattr(path, list); err != nil {
		return nil, &os.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	var out []xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		index, rest, ok := keptXattr(name)
		if !ok {
			continue
		}
		value, err := readXattr(path, name)
		if err != nil {
			return nil, err
		}
		if index == 2 || index == 3 {
			if value, err = encodeACL(value); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, name, err)
			}
		}
		out = append(out, xattr{index, rest, value})
	}
	// The order the kernel keeps in a block.
	slices.SortFunc(out, func(a, b xattr) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	return out, checkXattrs(path, out)
}

func checkXattrs(path string, list []xattr) error {
	if size := xattrSpace(list); size > xattrRoom {
		return fmt.Errorf("%s: its extended attributes take %d bytes, at most %d fit", path, size, xattrRoom)
	}
	return nil
}

// keptXattr splits the name of an attribute that is kept. Labels and signatures of
// the host's security modules, and an overlay's own marks, are not.
func keptXattr(name string) (index byte, rest string, ok bool) {
	switch {
	case name == "system.posix_acl_access":
		return 2, "", true
	case name == "system.posix_acl_default":
		return 3, "", true
	case name == "security.capability":
		return 6, "capability", true
	case strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay."):
		return 1, strings.TrimPrefix(name, "user."), true
	}
	return 0, "", false
}

func readXattr(path, name string) ([]byte, error) {
	size, err := unix.Lgetxattr(path, name, nil)
	if err == nil {
		value := make([]byte, size)
		if size, err = unix.Lgetxattr(path, name, value); err == nil {
			return value[:size], nil
		}
	}
	return nil, fmt.Errorf("%s: read attribute %s: %w", path, name, err)
}

// encodeACL turns an access control list from the kernel's form into the disk's, where
// only named users and groups have an id.
func encodeACL(in []byte) ([]byte, error) {
	le := binary.LittleEndian
	if len(in) < 4 || le.Uint32(in) != 2 || len(in)%8 != 4 {
		return nil, errors.New("unknown form of access control list")
	}
	out := le.AppendUint32(nil, 1)
	for e := in[4:]; len(e) > 0; e = e[8:] {
		out = append(out, e[:4]...)
		if tag := le.Uint16(e); tag == 0x02 || tag == 0x08 {
			out = append(out, e[4:8]...)
		}
	}
	return out, nil
}

// hash is the hash ext4 keeps of one attribute.
func (x xattr) hash() uint32 {
	var h uint32
	for i := range len(x.name) {
		h = h<<5 ^ h>>27 ^ uint32(x.name[i])
	}
	padded := make([]byte, round4(len(x.value)))
	copy(padded, x.value)
	for ; len(padded) > 0; padded = padded[4:] {
		h = h<<16 ^ h>>16 ^ binary.LittleEndian.Uint32(padded)
	}
	return h
}

func round4(n int) int { return (n + 3) &^ 3 }

// xattrSpace is what entries, their end mark and their values take.
func xattrSpace(list []xattr) int {
	n := 4
	for _, x := range list {
		n += round4(xattrEntrySize+len(x.name)) + round4(len(x.value))
	}
	return n
}

// putXattrs writes entries from start of buf on and values from its end backwards.
// Offsets of values count from base.
func putXattrs(buf []byte, start, base int, list []xattr) {
	le := binary.LittleEndian
	at, end := start, len(buf)
	for _, x := range list {
		end -= round4(len(x.value))
		copy(buf[end:], x.value)
		e := buf[at:]
		e[0], e[1] = byte(len(x.name)), x.index
		if len(x.value) > 0 {
			le.PutUint16(e[2:], uint16(end-base))
		}
		le.PutUint32(e[8:], uint32(len(x.value)))
		le.PutUint32(e[12:], x.hash())
		copy(e[xattrEntrySize:], x.name)
		at += round4(xattrEntrySize + len(x.name))
	}
}

// inodeXattrs puts attributes into the free end of an inode; ok is false if they don't fit.
func inodeXattrs(inode []byte, list []xattr) (ok bool) {
	tail := inode[inodeXattrOffset:]
	if xattrSpace(list) > len(tail)-4 {
		return false
	}
	binary.LittleEndian.PutUint32(tail, xattrMagic)
	putXattrs(tail, 4, 4, list)
	return true
}

// xattrBlock makes the block of attributes that don't fit into the inode.
func xattrBlock(list []xattr, block uint64, seed uint32) []byte {
	le := binary.LittleEndian
	buf := make([]byte, blockSize)
	le.PutUint32(buf, xattrMagic)
	le.PutUint32(buf[4:], 1)
	le.PutUint32(buf[8:], 1)
	putXattrs(buf, xattrHeaderSize, 0, list)
	var h uint32
	for _, x := range list {
		h = h<<16 ^ h>>16 ^ x.hash()
	}
	if slices.ContainsFunc(list, func(x xattr) bool { return x.hash() == 0 }) {
		h = 0
	}
	le.PutUint32(buf[12:], h)
	le.PutUint32(buf[16:], crc32c(crc32c(seed, le.AppendUint64(nil, block)), buf))
	return buf
}
