package sandbox_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/gildhq/gild/engine/sandbox"
)

const block = 512 << 10

// noise is a block of bytes that is always the same for a number.
func noise(n uint64) []byte {
	data := make([]byte, block)
	if n == 0 {
		return data
	}
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	if _, err := r.Read(data); err != nil {
		panic(err)
	}
	return data
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return base64.StdEncoding.EncodeToString(s[:])
}

func putBlock(ctx context.Context, c cloud, id *string, i int32, data []byte, change ...func(*ebs.PutSnapshotBlockInput)) error {
	in := &ebs.PutSnapshotBlockInput{SnapshotId: id, BlockIndex: &i, BlockData: bytes.NewReader(data), DataLength: aws.Int32(int32(len(data))),
		Checksum: aws.String(sum(data)), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256}
	for _, f := range change {
		f(in)
	}
	out, err := c.ebs.PutSnapshotBlock(ctx, in)
	if err == nil && *out.Checksum != *in.Checksum {
		return fmt.Errorf("block %d came back with the checksum %s", i, *out.Checksum)
	}
	return err
}

// linear is the checksum of checksums, in the order of the blocks given.
func linear(blocks ...[]byte) *string {
	h := sha256.New()
	for _, b := range blocks {
		s := sha256.Sum256(b)
		h.Write(s[:])
	}
	return aws.String(base64.StdEncoding.EncodeToString(h.Sum(nil)))
}

func complete(ctx context.Context, c cloud, id *string, count int32, checksum *string) error {
	in := &ebs.CompleteSnapshotInput{SnapshotId: id, ChangedBlocksCount: &count}
	if checksum != nil {
		in.Checksum, in.ChecksumAlgorithm = checksum, ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256
		in.ChecksumAggregationMethod = ebstypes.ChecksumAggregationMethodChecksumAggregationLinear
	}
	_, err := c.ebs.CompleteSnapshot(ctx, in)
	return err
}

func start(t testing.TB, c cloud, change ...func(*ebs.StartSnapshotInput)) *ebs.StartSnapshotOutput {
	t.Helper()
	in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}
	for _, f := range change {
		f(in)
	}
	out, err := c.ebs.StartSnapshot(t.Context(), in)
	must(t, err)
	return out
}

func snapshotState(t testing.TB, c cloud, id *string) types.Snapshot {
	t.Helper()
	out, err := c.ec2.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*id}})
	must(t, err)
	return out.Snapshots[0]
}

// listBlocks lists all blocks, in small pages, with their bytes.
func listBlocks(t testing.TB, c cloud, id *string) map[int32][]byte {
	t.Helper()
	got := map[int32][]byte{}
	last := int32(-1)
	for pages := ebs.NewListSnapshotBlocksPaginator(c.ebs, &ebs.ListSnapshotBlocksInput{SnapshotId: id, MaxResults: aws.Int32(100)}); pages.HasMorePages(); {
		page, err := pages.NextPage(t.Context())
		must(t, err)
		for _, b := range page.Blocks {
			if *b.BlockIndex <= last {
				t.Errorf("block %d is listed after block %d", *b.BlockIndex, last)
			}
			last = *b.BlockIndex
			got[last] = readBlock(t, c, id, b.BlockIndex, b.BlockToken)
		}
	}
	return got
}

func readBlock(t testing.TB, c cloud, id *string, i *int32, token *string) []byte {
	t.Helper()
	out, err := c.ebs.GetSnapshotBlock(t.Context(), &ebs.GetSnapshotBlockInput{SnapshotId: id, BlockIndex: i, BlockToken: token})
	must(t, err)
	defer out.BlockData.Close()
	data, err := io.ReadAll(out.BlockData)
	must(t, err)
	if sum(data) != *out.Checksum || *out.DataLength != block {
		t.Errorf("block %d comes with the checksum %s and the length %d", *i, *out.Checksum, *out.DataLength)
	}
	return data
}

// TestUpload writes a snapshot from many sides at once, out of order, registers an image of
// it, reads it back and exports it.
func TestUpload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := open(t, sandbox.Config{Dir: dir})
	c := w.cloud(t)
	ctx := t.Context()
	made := start(t, c, func(in *ebs.StartSnapshotInput) {
		in.Description, in.Tags = aws.String("d"), []ebstypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	})
	if *made.BlockSize != block || made.Status != ebstypes.StatusPending {
		t.Errorf("started: %+v", made)
	}
	id := made.SnapshotId
	want := map[int32][]byte{2047: noise(9)}
	var all [][]byte
	for i := int32(0); i < 240; i += 2 {
		want[i] = noise(uint64(i)) // block 0 is zeros that were written
		all = append(all, want[i])
	}
	var g errgroup.Group
	g.SetLimit(8)
	for i, data := range want {
		g.Go(func() error { return putBlock(ctx, c, id, i, data) })
	}
	must(t, g.Wait())
	must(t, putBlock(ctx, c, id, 4, noise(4))) // again: it isn't counted twice

	if s := snapshotState(t, c, id); s.State != types.SnapshotStatePending || *s.Description != "d" || *s.Tags[0].Value != "v" {
		t.Errorf("before it is complete: %+v", s)
	}
	_, err := c.ebs.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: id})
	wantCode(t, "ValidationException", err)
	register := func() (*ec2.RegisterImageOutput, error) {
		return c.ec2.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("uploaded"), RootDeviceName: aws.String("/dev/xvda"), Architecture: "x86_64",
			VirtualizationType: aws.String("hvm"), BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: id}}}})
	}
	if _, err := register(); err == nil {
		t.Error("an image was registered of a snapshot that isn't complete")
	}
	wantCode(t, "ValidationException", complete(ctx, c, id, int32(len(want))+1, nil))
	wantCode(t, "ValidationException", complete(ctx, c, id, int32(len(want)), linear(all...)))
	must(t, complete(ctx, c, id, int32(len(want)), linear(append(all, want[2047])...)))
	wantCode(t, "ValidationException", putBlock(ctx, c, id, 1, noise(1)))
	if s := snapshotState(t, c, id); s.State != types.SnapshotStateCompleted {
		t.Errorf("after it is complete: %s", s.State)
	}
	if !maps.EqualFunc(want, listBlocks(t, c, id), bytes.Equal) {
		t.Error("the blocks that came back differ")
	}
	image, err := register()
	must(t, err)
	path := filepath.Join(t.TempDir(), "disk.raw")
	must(t, w.Export(ctx, sandbox.DefaultRegion, *image.ImageId, path))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	data := make([]byte, block)
	for _, i := range []int32{0, 1, 2, 238, 2047} {
		if _, err := f.ReadAt(data, int64(i)*block); err != nil || !bytes.Equal(data, wantOrZero(want, i)) {
			t.Errorf("block %d of the exported disk differs (%v)", i, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.sums")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func wantOrZero(want map[int32][]byte, i int32) []byte {
	if data, ok := want[i]; ok {
		return data
	}
	return noise(0)
}

func TestUploadRefused(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	id := start(t, c).SnapshotId
	reason := func(err error) string {
		var invalid *ebstypes.ValidationException
		if errors.As(err, &invalid) {
			return string(invalid.Reason)
		}
		return code(err)
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"short":     {putBlock(ctx, c, id, 0, noise(1)[:100]), "INVALID_BLOCK"},
		"length":    {putBlock(ctx, c, id, 0, noise(1), func(in *ebs.PutSnapshotBlockInput) { in.DataLength = aws.Int32(100) }), "INVALID_BLOCK"},
		"checksum":  {putBlock(ctx, c, id, 0, noise(1), func(in *ebs.PutSnapshotBlockInput) { in.Checksum = aws.String(sum(nil)) }), "INVALID_BLOCK"},
		"index":     {putBlock(ctx, c, id, 2048, noise(1)), "INVALID_PARAMETER_VALUE"},
		"snapshot":  {putBlock(ctx, c, aws.String("snap-00000000000000000"), 0, noise(1)), "ResourceNotFoundException"},
		"malformed": {putBlock(ctx, c, aws.String("snap-12"), 0, noise(1)), "INVALID_SNAPSHOT_ID"},
	} {
		if got := reason(test.err); got != test.want {
			t.Errorf("%s: got %v, want %s", name, test.err, test.want)
		}
	}
	_, err := c.ebs.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(65537)})
	if got := reason(err); got != "INVALID_VOLUME_SIZE" {
		t.Errorf("too large: %v", err)
	}
	_, err = c.ebs.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), KmsKeyArn: aws.String("arn:aws:kms:us-east-1:111122223333:key/x")})
	if got := reason(err); got != "INVALID_PARAMETER_VALUE" {
		t.Errorf("a key without encryption: %v", err)
	}
	must(t, complete(ctx, c, id, 0, nil))
	_, err = c.ebs.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: id, BlockIndex: aws.Int32(0), BlockToken: aws.String("AAAA")})
	if got := reason(err); got != "INVALID_BLOCK_TOKEN" {
		t.Errorf("a wrong token: %v", err)
	}
	other := clouds(t, w.URL, sandbox.DefaultRegion, otherKey, "sandbox", "")
	_, err = other.ebs.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: id})
	wantCode(t, "ResourceNotFoundException", err)
}

// TestUploadToken shows that a token makes one snapshot, also when it is used again.
func TestUploadToken(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	token := func(in *ebs.StartSnapshotInput) { in.ClientToken = aws.String("t") }
	if one, two := start(t, c, token), start(t, c, token); *one.SnapshotId != *two.SnapshotId {
		t.Error("the same token made two snapshots")
	}
	_, err := c.ebs.StartSnapshot(t.Context(), &ebs.StartSnapshotInput{VolumeSize: aws.Int64(2), ClientToken: aws.String("t")})
	wantCode(t, "ConflictException", err)
	out, err := c.ec2.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	must(t, err)
	if len(out.Snapshots) != 1 {
		t.Errorf("%d snapshots were made", len(out.Snapshots))
	}
}

// TestUploadTimeout shows that a snapshot nobody writes to any more fails, and that each
// block puts that off.
func TestUploadTimeout(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	id := start(t, c, func(in *ebs.StartSnapshotInput) { in.Timeout = aws.Int32(10) }).SnapshotId
	must(t, w.Advance(9*time.Minute))
	must(t, putBlock(t.Context(), c, id, 0, noise(1)))
	must(t, w.Advance(9*time.Minute))
	must(t, putBlock(t.Context(), c, id, 1, noise(2)))
	must(t, w.Advance(10*time.Minute))
	if s := snapshotState(t, c, id); s.State != types.SnapshotStateError {
		t.Errorf("the snapshot is %s", s.State)
	}
	wantCode(t, "ValidationException", complete(t.Context(), c, id, 2, nil))
	_, err := c.ec2.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: id})
	must(t, err)
}

// TestUploadSurvives goes on writing a snapshot after the sandbox was opened again.
func TestUploadSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := t.Context()
	var id *string
	t.Run("before", func(t *testing.T) {
		w := open(t, sandbox.Config{Dir: dir})
		c := w.cloud(t)
		id = start(t, c).SnapshotId
		must(t, putBlock(ctx, c, id, 3, noise(3)))
	})
	c := open(t, sandbox.Config{Dir: dir}).cloud(t)
	must(t, putBlock(ctx, c, id, 1, noise(1)))
	must(t, complete(ctx, c, id, 2, linear(noise(1), noise(3))))
	if !maps.EqualFunc(map[int32][]byte{1: noise(1), 3: noise(3)}, listBlocks(t, c, id), bytes.Equal) {
		t.Error("the blocks that came back differ")
	}
}

// TestIncrement writes a snapshot on top of another, and lists what differs.
func TestIncrement(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	parent := start(t, c, func(in *ebs.StartSnapshotInput) { in.Encrypted = aws.Bool(true) })
	for i := range int32(6) {
		must(t, putBlock(ctx, c, parent.SnapshotId, i, noise(uint64(i+1))))
	}
	must(t, complete(ctx, c, parent.SnapshotId, 6, nil))
	child := start(t, c, func(in *ebs.StartSnapshotInput) {
		in.VolumeSize, in.ParentSnapshotId = aws.Int64(2), parent.SnapshotId
	})
	if *child.KmsKeyArn != *parent.KmsKeyArn || child.SseType != ebstypes.SSETypeSseKms {
		t.Errorf("the child isn't encrypted as its parent: %+v", child)
	}
	for i, data := range map[int32][]byte{2: noise(77), 3: noise(4), 4000: noise(78)} {
		must(t, putBlock(ctx, c, child.SnapshotId, i, data))
	}
	must(t, complete(ctx, c, child.SnapshotId, 3, nil))
	got := listBlocks(t, c, child.SnapshotId)
	if len(got) != 7 || !bytes.Equal(got[0], noise(1)) || !bytes.Equal(got[2], noise(77)) {
		t.Errorf("the child has %d blocks", len(got))
	}
	changed := func(first, second *string) (out []string) {
		in := &ebs.ListChangedBlocksInput{FirstSnapshotId: first, SecondSnapshotId: second, MaxResults: aws.Int32(100)}
		for pages := ebs.NewListChangedBlocksPaginator(c.ebs, in); pages.HasMorePages(); {
			page, err := pages.NextPage(ctx)
			must(t, err)
			for _, b := range page.ChangedBlocks {
				out = append(out, fmt.Sprint(*b.BlockIndex, b.FirstBlockToken != nil, b.SecondBlockToken != nil))
				if b.SecondBlockToken != nil && !bytes.Equal(readBlock(t, c, second, b.BlockIndex, b.SecondBlockToken), got[*b.BlockIndex]) {
					t.Errorf("changed block %d reads otherwise", *b.BlockIndex)
				}
			}
		}
		return out
	}
	// Block 3 was written again with the same bytes: it is no change.
	if diff := cmp.Diff([]string{"2 true true", "4000 false true"}, changed(parent.SnapshotId, child.SnapshotId)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
	if got := changed(nil, child.SnapshotId); len(got) != 7 {
		t.Errorf("compared with nothing: %v", got)
	}
	_, err := c.ebs.ListChangedBlocks(ctx, &ebs.ListChangedBlocksInput{FirstSnapshotId: child.SnapshotId, SecondSnapshotId: parent.SnapshotId})
	wantCode(t, "ValidationException", err)
}

// TestChangedPages compares snapshots that differ in more blocks than a page has.
func TestChangedPages(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	c := w.cloud(t)
	ctx := t.Context()
	fill := func(first, last, step int32) *string {
		id := start(t, c).SnapshotId
		count := int32(0)
		for i := first; i < last; i += step {
			must(t, putBlock(ctx, c, id, i, noise(1)))
			count++
		}
		must(t, complete(ctx, c, id, count, nil))
		return id
	}
	one, two := fill(0, 220, 2), fill(0, 220, 55)
	want := map[int32]bool{}
	for i := range int32(220) {
		if (i%2 == 0) != (i%55 == 0) {
			want[i] = true
		}
	}
	got := map[int32]bool{}
	last, pages := int32(-1), 0
	for p := ebs.NewListChangedBlocksPaginator(c.ebs, &ebs.ListChangedBlocksInput{FirstSnapshotId: one, SecondSnapshotId: two, MaxResults: aws.Int32(100)}); p.HasMorePages(); pages++ {
		page, err := p.NextPage(ctx)
		must(t, err)
		if len(page.ChangedBlocks) > 100 {
			t.Errorf("a page has %d blocks", len(page.ChangedBlocks))
		}
		for _, b := range page.ChangedBlocks {
			if *b.BlockIndex <= last {
				t.Errorf("block %d after block %d", *b.BlockIndex, last)
			}
			last = *b.BlockIndex
			got[last] = true
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 2 {
		t.Errorf("%d pages, changed (-want +got):\n%s", pages, diff)
	}
}

func BenchmarkPutSnapshotBlock(b *testing.B) {
	w := open(b, sandbox.Config{})
	c := w.cloud(b)
	id := start(b, c, func(in *ebs.StartSnapshotInput) { in.VolumeSize = aws.Int64(64) }).SnapshotId
	data := noise(1)
	b.SetBytes(block)
	i := int32(0)
	for b.Loop() {
		must(b, putBlock(b.Context(), c, id, i%(64*2048), data))
		i++
	}
}
