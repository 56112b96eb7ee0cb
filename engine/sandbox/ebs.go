package sandbox

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/sandbox/wire"
)

const (
	// blockSize is how many bytes a block of EBS direct has.
	blockSize = 512 << 10
	// uploadTimeout is for how many minutes a snapshot waits for the next block, unless the
	// caller says so.
	uploadTimeout = 60
	// listTime is how long block tokens are said to be valid.
	listTime = 7 * 24 * time.Hour
)

// upload is a snapshot that EBS direct writes. The checksums of the blocks written so far
// are in a file of its own, at 32 times their index.
type upload struct {
	// Parent is the snapshot whose bytes are still to be copied, or empty.
	Parent  string
	Minutes int64
}

func ebsOperations() map[string]operation {
	slow := func(run func(*call) (answer, error)) operation {
		return operation{run: run, slow: true, access: snapshotAccess}
	}
	return map[string]operation{
		"StartSnapshot":      slow(startSnapshot),
		"PutSnapshotBlock":   slow(putSnapshotBlock),
		"CompleteSnapshot":   slow(completeSnapshot),
		"GetSnapshotBlock":   slow(getSnapshotBlock),
		"ListSnapshotBlocks": slow(listSnapshotBlocks),
		"ListChangedBlocks":  slow(listChangedBlocks),
	}
}

// snapshotAccess is the permission for a call, on the snapshot that it names or makes.
func snapshotAccess(c *call) []access {
	id := c.p.or("SnapshotId", c.p.or("SecondSnapshotId", "*"))
	keys := c.tagKeys(kindSnapshot.typ, id)
	if c.r.Action == "StartSnapshot" {
		keys = merge(requestTags(c.p.subs("Tags")), map[string][]string{"ebs:VolumeSize": {number(c.p.num("VolumeSize"))}})
	}
	return []access{{"ebs:" + c.r.Action, c.ec2ARN(kindSnapshot.typ, id), keys}}
}

func ebsInvalid(reason, format string, args ...any) *wire.Error {
	e := fail("ValidationException", format, args...)
	e.Detail = map[string]any{"Reason": reason}
	return e
}

// direct finds a snapshot for EBS direct, which words what is wrong in its own way. It
// needs the lock.
func (c *call) direct(id string, own bool) (*snapshot, error) {
	find := c.snapshot
	if own {
		find = c.ownSnapshot
	}
	sn, err := find(id)
	var known *wire.Error
	switch {
	case err == nil:
		return sn, nil
	case !errors.As(err, &known):
		return nil, err
	case known.Code == kindSnapshot.bad:
		return nil, ebsInvalid("INVALID_SNAPSHOT_ID", "The snapshot ID '%s' is malformed.", id)
	case known.Code == kindSnapshot.missing:
		return nil, &wire.Error{Code: "ResourceNotFoundException", Message: fmt.Sprintf("The snapshot '%s' does not exist.", id),
			Detail: map[string]any{"Reason": "SNAPSHOT_NOT_FOUND"}}
	}
	return nil, &wire.Error{Code: "AccessDeniedException", Message: known.Message, Detail: map[string]any{"Reason": "UNAUTHORIZED_ACCOUNT"}}
}

func startSnapshot(c *call) (out answer, err error) {
	var made *snapshot
	err = c.s.update(func() error {
		made, err = c.startSnapshot()
		if err != nil {
			return err
		}
		out = c.startAnswer(made)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, c.inherit(made.ID)
}

func (c *call) startAnswer(sn *snapshot) answer {
	out := answer{"SnapshotId": sn.ID, "OwnerId": sn.Account, "Status": sn.State, "StartTime": sn.Started,
		"VolumeSize": sn.SizeGiB, "BlockSize": blockSize, "SseType": "none"}
	set(out, "Description", sn.Description)
	set(out, "ParentSnapshotId", c.p.str("ParentSnapshotId"))
	if sn.Encrypted {
		out["SseType"], out["KmsKeyArn"] = "sse-kms", sn.KMSKey
	}
	if tags := c.tagsOf(sn.ID); len(tags) > 0 {
		out["Tags"] = tagList(tags)
	}
	return out
}

// startSnapshot makes the snapshot, or finds the one that this client token made.
func (c *call) startSnapshot() (*snapshot, error) {
	token := c.p.str("ClientToken")
	if t := c.s.tokens.get(c.tokenID(token)); token != "" && t != nil {
		digest, err := c.paramsDigest()
		if err != nil {
			return nil, err
		}
		if t.Params != digest {
			return nil, fail("ConflictException", "The client token was used before with other parameters.")
		}
		if sn := c.s.snapshots.get(t.IDs[0]); sn != nil {
			return sn, nil
		}
	}
	sn := snapshot{SizeGiB: c.p.num("VolumeSize"), Description: c.p.str("Description"), Direct: true}
	if sn.SizeGiB > 65_536 {
		return nil, ebsInvalid("INVALID_VOLUME_SIZE", "The volume size %d GiB is more than 65536 GiB.", sn.SizeGiB)
	}
	if err := c.startEncryption(&sn); err != nil {
		return nil, err
	}
	tags, err := checkTags(c.p.subs("Tags"))
	if err != nil {
		return nil, ebsInvalid("INVALID_TAG", "%v", err)
	}
	up := &upload{Parent: c.p.str("ParentSnapshotId"), Minutes: uploadTimeout}
	if c.p.has("Timeout") {
		up.Minutes = c.p.num("Timeout")
	}
	made := c.newSnapshot(sn, tags)
	c.s.uploads.put(made.ID, up)
	c.s.awaitBlock(made, up)
	c.keepToken(token, made.ID)
	return made, nil
}

// startEncryption decides the encryption of a new snapshot, and checks its parent.
func (c *call) startEncryption(sn *snapshot) error {
	key := c.p.str("KmsKeyArn")
	if key != "" && !c.p.yes("Encrypted") {
		return ebsInvalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted to be true.")
	}
	if id := c.p.str("ParentSnapshotId"); id != "" {
		parent, err := c.direct(id, false)
		switch {
		case err != nil:
			return err
		case c.p.has("Encrypted"):
			return ebsInvalid("INVALID_PARAMETER_VALUE", "Encrypted can't be given together with ParentSnapshotId.")
		case parent.State != "completed":
			return ebsInvalid("INVALID_SNAPSHOT_ID", "The parent snapshot '%s' is not completed.", id)
		case parent.SizeGiB > sn.SizeGiB:
			return ebsInvalid("INVALID_VOLUME_SIZE", "The volume size %d GiB is less than the %d GiB of the parent.", sn.SizeGiB, parent.SizeGiB)
		}
		sn.Encrypted, sn.KMSKey = parent.Encrypted, parent.KMSKey
		return nil
	}
	if !c.p.yes("Encrypted") {
		return nil
	}
	arn, err := c.kmsKey(key)
	if err != nil {
		return ebsInvalid("INVALID_CUSTOMER_KEY", "The key '%s' does not exist, is not enabled, or you are not allowed to use it.", key)
	}
	sn.Encrypted, sn.KMSKey = true, arn
	return nil
}

// awaitBlock sets when the snapshot fails unless another block comes. It needs the lock.
func (s *Server) awaitBlock(sn *snapshot, up *upload) {
	s.moving[sn.ID] = true
	sn.Expires = s.now().Add(time.Duration(up.Minutes) * time.Minute)
}

// inherit gives a new snapshot the bytes of its parent, if it has one and nobody did it yet.
func (c *call) inherit(id string) error {
	c.s.writing.Lock()
	defer c.s.writing.Unlock()
	c.s.mu.Lock()
	parent := ""
	if up := c.s.uploads.get(id); up != nil {
		parent = up.Parent
	}
	c.s.mu.Unlock()
	if parent == "" {
		return nil
	}
	if err := c.s.copyParent(c, parent, id); err != nil {
		return err
	}
	return c.s.update(func() error {
		if up := c.s.uploads.get(id); up != nil {
			up.Parent = ""
			c.s.uploads.put(id, up)
		}
		return nil
	})
}

func (s *Server) copyParent(c *call, parent, id string) error {
	from, err := s.snapshotFile(parent)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.scratch(), "inherit-*")
	if err != nil {
		return fmt.Errorf("copy the parent of %s: %w", id, err)
	}
	at := filepath.Join(dir, "disk")
	if err = disk.CopySparse(c.ctx, from, at); err == nil {
		err = growTo(at, c.p.num("VolumeSize")*gib)
	}
	if err == nil {
		err = os.Rename(at, s.snapshotPath(id))
	}
	if err = errors.Join(err, os.RemoveAll(dir), atomicfile.SyncDir(filepath.Dir(s.snapshotPath(id)))); err != nil {
		return fmt.Errorf("copy the parent of %s: %w", id, err)
	}
	return nil
}

func (s *Server) sumsPath(id string) string { return filepath.Join(s.cfg.Dir, "snapshots", id+".sums") }

// writable finds a snapshot that the caller may write blocks to.
func (c *call) writable(id string) (size int64, err error) {
	err = c.s.update(func() error {
		sn, err := c.direct(id, true)
		if err != nil {
			return err
		}
		up := c.s.uploads.get(id)
		if sn.State != "pending" || !sn.Direct || up == nil || up.Parent != "" {
			return ebsInvalid("INVALID_SNAPSHOT_ID", "The snapshot '%s' is not pending, or wasn't started with StartSnapshot.", id)
		}
		c.s.awaitBlock(sn, up)
		size = sn.SizeGiB
		return nil
	})
	return size, err
}

// index checks a block's index.
func (c *call) index(name string, sizeGiB int64) (int64, error) {
	i := c.p.num(name)
	if i >= sizeGiB*gib/blockSize {
		return 0, ebsInvalid("INVALID_PARAMETER_VALUE", "The block index %d is outside a volume of %d GiB.", i, sizeGiB)
	}
	return i, nil
}

// blockToken makes the token that reads one block. It says itself what it is for.
func blockToken(id string, index int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s/%d", id, index))
}

func pageToken(action, id string, next int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s/%s/%d", action, id, next))
}

// blockPage reads where a list of blocks is to go on, and how long it may be.
func (c *call) blockPage(id string) (from int64, limit int, err error) {
	from, limit = c.p.num("StartingBlockIndex"), 10_000
	if c.p.has("MaxResults") {
		limit = int(c.p.num("MaxResults"))
	}
	token := c.p.str("NextToken")
	if token == "" {
		return from, limit, nil
	}
	text, err := base64.StdEncoding.DecodeString(token)
	prefix := c.r.Action + "/" + id + "/"
	rest, ok := strings.CutPrefix(string(text), prefix)
	var next int64
	if _, scanErr := fmt.Sscanf(rest, "%d", &next); err != nil || !ok || scanErr != nil || next < 0 || next > math.MaxInt32 {
		return 0, 0, ebsInvalid("INVALID_PAGE_TOKEN", "The page token is invalid.")
	}
	return next, limit, nil
}

// readable finds a snapshot that the caller may read, and its file.
func (c *call) readable(id string) (path string, sn snapshot, err error) {
	err = c.s.update(func() error {
		found, err := c.direct(id, false)
		if err != nil {
			return err
		}
		if found.State != "completed" {
			return ebsInvalid("INVALID_SNAPSHOT_ID", "The snapshot '%s' is not completed.", id)
		}
		sn = *found
		return nil
	})
	if err != nil {
		return "", sn, err
	}
	path, err = c.s.snapshotFile(id)
	return path, sn, err
}

// forgetUpload removes what was only needed while a snapshot was written.
func (s *Server) forgetUpload(id string) {
	s.uploads.remove(id)
	if err := os.Remove(s.sumsPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.workFailed("remove the checksums of a snapshot", id, err)
	}
}

// recoverUploads goes on waiting for the blocks of the snapshots that a dead sandbox left, and
// removes the checksums of those that are gone.
func (s *Server) recoverUploads() {
	for id := range s.uploads.all {
		if s.snapshots.get(id) == nil {
			s.uploads.remove(id)
			continue
		}
		s.moving[id] = true
	}
	left, err := filepath.Glob(filepath.Join(s.cfg.Dir, "snapshots", "*.sums"))
	s.workFailed("look for checksums left behind", s.cfg.Dir, err)
	for _, path := range left {
		if id := strings.TrimSuffix(filepath.Base(path), ".sums"); s.uploads.get(id) == nil {
			s.removeFile(path)
		}
	}
}
