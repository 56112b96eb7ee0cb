package ext4

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// batchBlocks is how many blocks are written at once. Small files share a write.
const batchBlocks = 512

// batch is a run of blocks and what goes into it.
type batch struct {
	block, n uint64
	parts    []part
}

// part is a run of one file's bytes; in the batch it starts at block pos.
type part struct {
	node *node
	// at and size are bytes of the file.
	at, size int64
	pos      uint64
}

// copyFiles writes the contents of all files, several batches at a time.
func (w *writer) copyFiles(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan batch)
	group.Go(func() error {
		defer close(batches)
		return w.eachBatch(func(b batch) error {
			select {
			case batches <- b:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for range min(runtime.GOMAXPROCS(0), 4) {
		group.Go(func() error {
			buf := make([]byte, batchBlocks*blockSize)
			for b := range batches {
				if err := w.copyBatch(b, buf); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// eachBatch cuts the files, in the order of their blocks, into batches.
func (w *writer) eachBatch(do func(batch) error) error {
	var b batch
	for _, n := range w.files {
		for _, e := range n.extents {
			for done := uint64(0); done < uint64(e.n); {
				block := e.physical + done
				if b.n > 0 && (b.n == batchBlocks || b.block+b.n != block) {
					if err := do(b); err != nil {
						return err
					}
					b = batch{}
				}
				if b.n == 0 {
					b.block = block
				}
				k := min(uint64(e.n)-done, batchBlocks-b.n)
				at := int64(uint64(e.logical)+done) * blockSize
				b.parts = append(b.parts, part{n, at, min(int64(k)*blockSize, n.size-at), b.n})
				b.n += k
				done += k
			}
		}
	}
	if b.n == 0 {
		return nil
	}
	return do(b)
}

func (w *writer) copyBatch(b batch, buf []byte) error {
	for _, p := range b.parts {
		start := int64(p.pos) * blockSize
		if err := p.read(buf[start : start+p.size]); err != nil {
			return err
		}
		end := start + p.size
		clear(buf[end : (end+blockSize-1)/blockSize*blockSize])
	}
	return w.writeAt(buf[:b.n*blockSize], b.block)
}

func (p part) read(buf []byte) error {
	f, err := os.OpenFile(p.node.path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != p.node.size {
		return fmt.Errorf("%s changed its size from %d to %d bytes while it was read", p.node.path, p.node.size, info.Size())
	}
	if _, err := f.ReadAt(buf, p.at); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s got shorter while it was read", p.node.path)
		}
		return err
	}
	return nil
}
