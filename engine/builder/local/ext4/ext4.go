// Package ext4 writes a folder of the host as an ext4 file system, in one go and with
// no help of the kernel's own ext4, of a mount or of e2fsprogs.
//
// A folder and [Options] go in; the bytes of a file system come out, written into a
// file that reads as zeros. They depend on nothing but names, contents, owners, modes,
// modification times up to the clock, hard links and the extended attributes that make
// sense elsewhere: not on the order of the host's folders, its inode numbers, its
// other times or where its files have holes. The file system has what mke2fs gives one
// by default (journal, extents, 64bit, flex_bg, metadata checksums, room to grow), so
// that GRUB reads it and resize2fs grows it.
//
// The package never reads an existing file system and never follows a symbolic link.
package ext4

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Options say what file system to write.
type Options struct {
	// Size in bytes, a multiple of 4096, from 8 MiB to under 16 TiB.
	Size int64
	// UUID of the file system.
	UUID [16]byte
	// HashSeed is the secret of hashed directories.
	HashSeed [16]byte
	// Label has at most 16 bytes.
	Label string
	// Clock is the time of every inode and of the file system. Modification times
	// before it are kept; what is later becomes Clock. Precision is one nanosecond.
	Clock time.Time
}

// NoSpaceError says that a tree doesn't fit.
type NoSpaceError struct {
	// Need is the size in bytes that the tree and the file system's own blocks take,
	// Have the size there is.
	Need, Have int64
}

// Error gives both sizes, rounded to whole MiB so that they differ.
func (e *NoSpaceError) Error() string {
	const mib = 1 << 20
	return fmt.Sprintf("the tree needs a file system of %d MiB, there are %d MiB", (e.Need+mib-1)/mib, e.Have/mib)
}

// Write writes the tree at root as a file system at offset into out, which must read as
// zeros there. Blocks that stay zero aren't written. The root folder itself is always
// 0755 root:root.
//
// Extended attributes other than file capabilities, access control lists and user
// attributes are left out: they belong to the host. A mount inside the tree, a file that
// changes its size meanwhile and an attribute over one block are errors; a tree
// that doesn't fit is a [*NoSpaceError], before any byte is written.
func Write(ctx context.Context, out *os.File, offset int64, root string, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	t, err := scan(ctx, root, o.Clock)
	if err != nil {
		return fmt.Errorf("read the tree: %w", err)
	}
	g, err := newGeometry(o.Size, len(t.nodes))
	if err != nil {
		return err
	}
	w := newWriter(o, g, out, offset)
	if err := w.place(t); err != nil {
		return err
	}
	if err := w.copyFiles(ctx); err != nil {
		return fmt.Errorf("copy files: %w", err)
	}
	return w.writeMetadata()
}

func (o Options) check() error {
	switch {
	case o.Size%blockSize != 0 || o.Size < 8<<20 || o.Size >= 1<<44:
		return fmt.Errorf("file system size %d: must be a multiple of %d from 8 MiB to under 16 TiB", o.Size, blockSize)
	case len(o.Label) > 16:
		return fmt.Errorf("label %q has %d bytes, at most 16 fit", o.Label, len(o.Label))
	case o.Clock.Unix() < 0 || o.Clock.Unix() >= 1<<32:
		return errors.New("the clock is outside 1970 to 2106")
	}
	return nil
}
