package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 64 << 20

// CopySparse copies a regular file to a new one, holes included, and writes it to the
// disk. File systems that can share the blocks of the two do.
func CopySparse(ctx context.Context, from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		// The file system can't share blocks, or not between these two.
		err = copyExtents(ctx, dst, src, info.Size())
	}
	if err := errors.Join(err, dst.Sync(), dst.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}

// copyExtents copies the data of src and leaves out its holes.
func copyExtents(ctx context.Context, dst, src *os.File, size int64) error {
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := seek(src, at, unix.SEEK_DATA, size)
		if err != nil {
			return err
		}
		hole, err := seek(src, data, unix.SEEK_HOLE, size)
		if err != nil {
			return err
		}
		for at = data; at < hole; {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			n := min(hole-at, copyChunk)
			if err := copyRange(dst, src, at, n); err != nil {
				return err
			}
			at += n
		}
		at = max(at, hole)
	}
	return nil
}

func copyRange(dst, src *os.File, at, n int64) error {
	if _, err := dst.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := src.Seek(at, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(dst, src, n)
	return err
}
