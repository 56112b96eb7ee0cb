package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// hashChunk is how much is hashed between two looks at the context.
const hashChunk = 1 << 20

// Digest returns the SHA-256 of a whole file, in hexadecimal, and the bytes the file
// takes on its file system. Holes aren't read. progress, which may be nil, is told
// of the bytes hashed.
func Digest(ctx context.Context, path string, progress func(done, total int64)) (sha256hex string, allocated int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, fmt.Errorf("hash: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, fmt.Errorf("hash: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("hash %s: not a regular file", path)
	}
	h := sparseHash{f: f, size: info.Size(), sum: sha256.New(), buf: make([]byte, hashChunk), zero: make([]byte, hashChunk), progress: progress}
	if err := h.run(ctx); err != nil {
		return "", 0, fmt.Errorf("hash %s: %w", path, err)
	}
	return hex.EncodeToString(h.sum.Sum(nil)), st.Blocks * 512, nil
}

// sparseHash hashes a file, data and holes in turn.
type sparseHash struct {
	f         *os.File
	size, at  int64
	sum       hash.Hash
	buf, zero []byte
	progress  func(done, total int64)
}

func (h *sparseHash) run(ctx context.Context) error {
	for h.at < h.size {
		data, err := seek(h.f, h.at, unix.SEEK_DATA, h.size)
		if err != nil {
			return err
		}
		if err := h.feed(ctx, data, h.hole); err != nil {
			return err
		}
		hole, err := seek(h.f, h.at, unix.SEEK_HOLE, h.size)
		if err != nil {
			return err
		}
		if err := h.feed(ctx, hole, h.data); err != nil {
			return err
		}
	}
	return nil
}

// feed hashes up to offset end, a chunk at a time.
func (h *sparseHash) feed(ctx context.Context, end int64, chunk func(n int64) error) error {
	for h.at < end {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(end-h.at, hashChunk)
		if err := chunk(n); err != nil {
			return err
		}
		h.at += n
		if h.progress != nil {
			h.progress(h.at, h.size)
		}
	}
	return nil
}

func (h *sparseHash) hole(n int64) error {
	_, err := h.sum.Write(h.zero[:n])
	return err
}

func (h *sparseHash) data(n int64) error {
	if _, err := h.f.ReadAt(h.buf[:n], h.at); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("the file got shorter while it was read")
		}
		return err
	}
	_, err := h.sum.Write(h.buf[:n])
	return err
}

// seek finds the next data or hole, at most size.
func seek(f *os.File, from int64, whence int, size int64) (int64, error) {
	at, err := f.Seek(from, whence)
	if errors.Is(err, unix.ENXIO) {
		return size, nil
	}
	return min(at, size), err
}
