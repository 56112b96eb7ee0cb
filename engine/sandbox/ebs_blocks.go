package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// putSnapshotBlock writes a block and keeps its checksum.
func putSnapshotBlock(c *call) (answer, error) {
	id := c.p.str("SnapshotId")
	c.s.writing.RLock()
	defer c.s.writing.RUnlock()
	size, err := c.writable(id)
	if err != nil {
		return nil, err
	}
	i, err := c.index("BlockIndex", size)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(c.r.Body, blockSize+1))
	if err != nil {
		return nil, fmt.Errorf("read a block: %w", err)
	}
	if len(data) != blockSize || c.p.num("DataLength") != blockSize {
		return nil, ebsInvalid("INVALID_BLOCK", "A block has %d bytes, not %d.", blockSize, len(data))
	}
	sum := sha256.Sum256(data)
	text := base64.StdEncoding.EncodeToString(sum[:])
	if c.p.str("Checksum") != text {
		return nil, ebsInvalid("INVALID_BLOCK", "The checksum of block %d doesn't match its data.", i)
	}
	if err := writeAt(c.s.snapshotPath(id), os.O_WRONLY, data, i*blockSize); err != nil {
		return nil, fmt.Errorf("write block %d of %s: %w", i, id, err)
	}
	if err := writeAt(c.s.sumsPath(id), os.O_WRONLY|os.O_CREATE, sum[:], i*sha256.Size); err != nil {
		return nil, fmt.Errorf("keep the checksum of block %d of %s: %w", i, id, err)
	}
	return answer{"Checksum": text, "ChecksumAlgorithm": "SHA256"}, nil
}

func writeAt(path string, how int, data []byte, at int64) error {
	f, err := os.OpenFile(path, how, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}

// completeSnapshot seals a snapshot when the caller has written what it thinks.
func completeSnapshot(c *call) (answer, error) {
	id := c.p.str("SnapshotId")
	c.s.writing.Lock()
	defer c.s.writing.Unlock()
	if _, err := c.writable(id); err != nil {
		return nil, err
	}
	count, linear, err := sumOfSums(c.s.sumsPath(id))
	if err != nil {
		return nil, fmt.Errorf("sum up %s: %w", id, err)
	}
	if want := c.p.num("ChangedBlocksCount"); want != count {
		return nil, ebsInvalid("INVALID_PARAMETER_VALUE", "%d blocks were written to the snapshot, not %d.", count, want)
	}
	given := c.p.has("Checksum")
	if given != c.p.has("ChecksumAlgorithm") || given != c.p.has("ChecksumAggregationMethod") {
		return nil, ebsInvalid("INVALID_PARAMETER_VALUE", "Checksum, ChecksumAlgorithm and ChecksumAggregationMethod must be given together.")
	}
	if given && c.p.str("Checksum") != linear {
		return nil, ebsInvalid("INVALID_PARAMETER_VALUE", "The aggregated checksum doesn't match the blocks that were written.")
	}
	if err := syncFile(c.s.snapshotPath(id)); err != nil {
		return nil, fmt.Errorf("keep the bytes of %s: %w", id, err)
	}
	return answer{"Status": "pending"}, c.s.update(func() error {
		if sn := c.s.snapshots.get(id); sn != nil && sn.Direct {
			c.s.snapshotWritten(id, nil)
		}
		c.s.forgetUpload(id)
		return nil
	})
}

// sumOfSums counts the blocks that were written, and sums their checksums up in the order of
// their indexes.
func sumOfSums(path string) (count int64, linear string, err error) {
	all, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, "", err
	}
	none := make([]byte, sha256.Size)
	h := sha256.New()
	for ; len(all) >= sha256.Size; all = all[sha256.Size:] {
		if sum := all[:sha256.Size]; !bytes.Equal(sum, none) {
			count++
			h.Write(sum)
		}
	}
	return count, base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func getSnapshotBlock(c *call) (answer, error) {
	id := c.p.str("SnapshotId")
	path, sn, err := c.readable(id)
	if err != nil {
		return nil, err
	}
	i, err := c.index("BlockIndex", sn.SizeGiB)
	if err != nil {
		return nil, err
	}
	if c.p.str("BlockToken") != blockToken(id, i) {
		return nil, ebsInvalid("INVALID_BLOCK_TOKEN", "The block token is not one of block %d of the snapshot.", i)
	}
	data, err := readBlock(path, i)
	if err != nil {
		return nil, fmt.Errorf("read block %d of %s: %w", i, id, err)
	}
	sum := sha256.Sum256(data)
	return answer{"BlockData": data, "DataLength": blockSize, "Checksum": base64.StdEncoding.EncodeToString(sum[:]), "ChecksumAlgorithm": "SHA256"}, nil
}

// readBlock reads a block. What is beyond the end of the file is zero.
func readBlock(path string, i int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data := make([]byte, blockSize)
	_, err = f.ReadAt(data, i*blockSize)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data, errors.Join(err, f.Close())
}

// blocks lists the blocks of a file that hold data, from one index on, at most limit of them.
func blocks(path string, from int64, limit int) (out []int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for at := from * blockSize; len(out) < limit; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return out, nil // nothing but a hole
		}
		if err != nil {
			return nil, err
		}
		i := data / blockSize
		out = append(out, i)
		at = (i + 1) * blockSize
	}
	return out, nil
}

func listSnapshotBlocks(c *call) (answer, error) {
	id := c.p.str("SnapshotId")
	path, sn, err := c.readable(id)
	if err != nil {
		return nil, err
	}
	from, limit, err := c.blockPage(id)
	if err != nil {
		return nil, err
	}
	found, err := blocks(path, from, limit+1)
	if err != nil {
		return nil, fmt.Errorf("list the blocks of %s: %w", id, err)
	}
	out := answer{"VolumeSize": sn.SizeGiB, "BlockSize": blockSize, "ExpiryTime": c.now.Add(listTime)}
	if len(found) > limit {
		out["NextToken"] = pageToken(c.r.Action, id, found[limit])
		found = found[:limit]
	}
	out["Blocks"] = list(found, func(i int64) any { return answer{"BlockIndex": i, "BlockToken": blockToken(id, i)} })
	return out, nil
}

// listChangedBlocks compares two snapshots by their bytes, so that it is right whatever
// way they were made.
func listChangedBlocks(c *call) (answer, error) {
	firstID, secondID := c.p.str("FirstSnapshotId"), c.p.str("SecondSnapshotId")
	second, sn, err := c.readable(secondID)
	if err != nil {
		return nil, err
	}
	var first string
	if firstID != "" {
		var older snapshot
		if first, older, err = c.readable(firstID); err != nil {
			return nil, err
		}
		if older.SizeGiB > sn.SizeGiB {
			return nil, ebsInvalid("UNRELATED_SNAPSHOTS", "The first snapshot is of a larger volume than the second.")
		}
	}
	from, limit, err := c.blockPage(firstID + ":" + secondID)
	if err != nil {
		return nil, err
	}
	found, next, err := changes(first, second, from, limit)
	if err != nil {
		return nil, fmt.Errorf("compare %s with %s: %w", firstID, secondID, err)
	}
	out := answer{"VolumeSize": sn.SizeGiB, "BlockSize": blockSize, "ExpiryTime": c.now.Add(listTime)}
	if next >= 0 {
		out["NextToken"] = pageToken(c.r.Action, firstID+":"+secondID, next)
	}
	out["ChangedBlocks"] = list(found, func(ch change) any {
		a := answer{"BlockIndex": ch.index}
		if ch.first {
			a["FirstBlockToken"] = blockToken(firstID, ch.index)
		}
		if ch.second {
			a["SecondBlockToken"] = blockToken(secondID, ch.index)
		}
		return a
	})
	return out, nil
}

// change is a block that differs; first and second say which snapshot has it.
type change struct {
	index         int64
	first, second bool
}

// changes lists the blocks that differ, from one index on, and the index of the next one
// beyond the limit, -1 at the end. Without a first file all blocks of the second differ.
func changes(first, second string, from int64, limit int) (out []change, next int64, err error) {
	for {
		var a, b []int64
		if first != "" {
			if a, err = blocks(first, from, limit); err != nil {
				return nil, 0, err
			}
		}
		if b, err = blocks(second, from, limit); err != nil {
			return nil, 0, err
		}
		if len(a)+len(b) == 0 {
			return out, -1, nil
		}
		// What is beyond the end of a full list isn't known yet.
		known := int64(-1)
		for _, half := range [][]int64{a, b} {
			if len(half) == limit && (known < 0 || half[limit-1] < known) {
				known = half[limit-1]
			}
		}
		for _, ch := range union(a, b) {
			if known >= 0 && ch.index > known {
				break
			}
			if from = ch.index; len(out) == limit {
				return out, from, nil
			}
			differs := !(ch.first && ch.second)
			if !differs {
				if differs, err = differ(first, second, ch.index); err != nil {
					return nil, 0, err
				}
			}
			if differs {
				out = append(out, ch)
			}
			from++
		}
		if known < 0 {
			return out, -1, nil
		}
	}
}

// union merges two ascending lists.
func union(a, b []int64) (out []change) {
	for len(a)+len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			out, a = append(out, change{index: a[0], first: true}), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			out, b = append(out, change{index: b[0], second: true}), b[1:]
		default:
			out, a, b = append(out, change{a[0], true, true}), a[1:], b[1:]
		}
	}
	return out
}

func differ(first, second string, i int64) (bool, error) {
	a, err := readBlock(first, i)
	if err != nil {
		return false, err
	}
	b, err := readBlock(second, i)
	return !bytes.Equal(a, b), err
}
