package local

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// An image is a folder images/<key> with disk.raw, disk.qcow2 and image.json.
const (
	rawName   = "disk.raw"
	qcow2Name = "disk.qcow2"
	metaName  = "image.json"
)

// imageMeta is what image.json holds.
type imageMeta struct {
	Size   int64
	Clock  time.Time
	Layers []string
	// Lock is what the distribution at the bottom was locked to.
	Lock map[string]string `json:",omitempty"`
	// Files are those whose digest is known.
	Files []step.ImageFile
}

func readMeta(dir string) (imageMeta, bool, error) {
	var m imageMeta
	data, err := os.ReadFile(filepath.Join(dir, metaName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, false, fmt.Errorf("read %s: %w", filepath.Join(dir, metaName), err)
	}
	return m, true, nil
}

func (s store) writeMeta(dir string, m imageMeta) error {
	return s.writeJSON(filepath.Join(dir, metaName), m)
}

// FindImage returns a stored image with the files that are there.
func (b *Builder) FindImage(_ context.Context, _ *spec.Pipeline, key string) (step.ImageInfo, bool, error) {
	return b.findImage(key)
}

func (b *Builder) findImage(key string) (step.ImageInfo, bool, error) {
	dir := b.store.image(key)
	m, ok, err := readMeta(dir)
	if err != nil || !ok {
		return step.ImageInfo{}, false, err
	}
	info := step.ImageInfo{Key: key, Size: m.Size}
	for _, f := range m.Files {
		f.Path = filepath.Join(dir, f.Path)
		st, err := os.Stat(f.Path)
		if err != nil || st.Size() != f.Size {
			continue // lost or cut short: as good as absent, it will be made again
		}
		info.Files = append(info.Files, f)
	}
	// Without the whole raw disk nothing else can be made or tested.
	st, err := os.Stat(filepath.Join(dir, rawName))
	if errors.Is(err, fs.ErrNotExist) {
		return info, false, nil
	}
	return info, err == nil && st.Size() == m.Size, err
}

// ImageBase returns a stored image as a base.
func (b *Builder) ImageBase(_ context.Context, _ *spec.Pipeline, key string) (builder.Base, bool, error) {
	m, ok, err := readMeta(b.store.image(key))
	if err != nil || !ok {
		return builder.Base{}, false, err
	}
	for _, layer := range m.Layers {
		if ok, err := exists(b.store.layer(layer)); err != nil || !ok {
			return builder.Base{}, false, err
		}
	}
	return builder.Base{ID: "image:" + key, Image: key, Clock: m.Clock, Layers: m.Layers, Lock: m.Lock}, true, nil
}

// assembleJob are the arguments of the job that writes a disk.
type assembleJob struct {
	Out, Scratch string
	// Owner is the id under which the job sees the caller, who gets the disk.
	Owner  int
	Layout disk.Layout
}

const assembleName = "local.assemble"

func init() {
	sandbox.Register(assembleName, func(ctx context.Context, root string, raw json.RawMessage, _ io.Writer) error {
		var j assembleJob
		if err := json.Unmarshal(raw, &j); err != nil {
			return err
		}
		if err := disk.Assemble(ctx, root, j.Out, j.Scratch, j.Layout, os.Stderr); err != nil {
			return err
		}
		return os.Lchown(j.Out, j.Owner, j.Owner)
	})
}

// ImageVersion identifies the disk writer and the host's GRUB.
func (b *Builder) ImageVersion(p *spec.Pipeline) (string, error) {
	return disk.Fingerprint(disk.Layout{Arch: p.Arch, Firmware: p.Local.Firmware})
}

// MakeImage writes the raw disk of a stack of layers.
func (b *Builder) MakeImage(ctx context.Context, l builder.Ledger, req builder.ImageRequest) (step.ImageInfo, error) {
	ids, err := b.findIDs()
	if err != nil {
		return step.ImageInfo{}, err
	}
	layers, err := b.store.hold(req.Layers)
	if err != nil {
		return step.ImageInfo{}, err
	}
	defer layers.close()
	if err := b.checkSiblings(ctx, ids, req.Layers); err != nil {
		return step.ImageInfo{}, err
	}
	tmp, err := b.store.temp(ctx, l, "disk", "the disk of "+req.Name)
	if err != nil {
		return step.ImageInfo{}, err
	}
	if err := b.assemble(ctx, ids, tmp, req); err != nil {
		return step.ImageInfo{}, errors.Join(err, tmp.remove(context.WithoutCancel(ctx), ids))
	}
	if err := b.storeImage(ctx, ids, tmp, req.Key); err != nil {
		return step.ImageInfo{}, err
	}
	info, _, err := b.findImage(req.Key)
	return info, err
}

// storeImage gives a new disk its name. Of an image that is there already only the raw
// disk is replaced: its other files are of the same bytes, and may be published.
func (b *Builder) storeImage(ctx context.Context, ids sandbox.IDs, tmp *tempDir, key string) error {
	dir := b.store.image(key)
	old, ok, err := readMeta(dir)
	if err != nil {
		return err
	}
	if !ok {
		return b.store.commit(ctx, ids, tmp, dir)
	}
	made, _, err := readMeta(tmp.path)
	if err != nil {
		return err
	}
	made.Files = old.Files
	raw := filepath.Join(tmp.path, rawName)
	err = errors.Join(syncFile(raw), os.Rename(raw, filepath.Join(dir, rawName)), b.store.writeMeta(dir, made))
	return errors.Join(err, tmp.remove(ctx, ids))
}

func (b *Builder) assemble(ctx context.Context, ids sandbox.IDs, tmp *tempDir, req builder.ImageRequest) error {
	scratch := filepath.Join(tmp.path, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	p := req.Pipeline
	job := assembleJob{
		Out: filepath.Join(tmp.path, rawName), Scratch: scratch, Owner: ids.Size,
		Layout: disk.Layout{Size: p.Local.DiskSize, Arch: p.Arch, Firmware: p.Local.Firmware, Seed: req.Name, Clock: req.Clock},
	}
	if _, err := sandbox.RunJob(ctx, sandbox.JobConfig{Lower: b.store.lower(req.Layers), IDs: ids, Writable: []string{tmp.path}}, assembleName, job, req.Log); err != nil {
		return explainFull(err, b.store.dir)
	}
	if err := sandbox.Remove(ctx, ids, scratch); err != nil {
		return err
	}
	return b.store.writeMeta(tmp.path, imageMeta{Size: p.Local.DiskSize, Clock: req.Clock, Layers: req.Layers, Lock: req.Base.Lock})
}

// Finish makes the formats and the digests. The raw disk stays: tests and children use it.
func (b *Builder) Finish(ctx context.Context, l builder.Ledger, req builder.FinishRequest) (step.ImageInfo, error) {
	key, formats := req.Key, req.Pipeline.Local.Formats
	dir := b.store.image(key)
	m, ok, err := readMeta(dir)
	if err != nil {
		return step.ImageInfo{}, err
	}
	if !ok {
		return step.ImageInfo{}, fmt.Errorf("disk %.12s is not in the store any more; build again", key)
	}
	raw := filepath.Join(dir, rawName)
	// What another build of the same disk asked for stays: an image may be published with it.
	m.Files = slices.DeleteFunc(m.Files, func(f step.ImageFile) bool { return slices.Contains(formats, f.Format) })
	for _, format := range formats {
		path := raw
		if format == "qcow2" {
			if path, err = b.convert(ctx, l, raw, dir); err != nil {
				return step.ImageInfo{}, err
			}
		}
		f, err := describeFile(ctx, format, path, req.Progress)
		if err != nil {
			return step.ImageInfo{}, err
		}
		m.Files = append(m.Files, f)
	}
	if err := b.store.writeMeta(dir, m); err != nil {
		return step.ImageInfo{}, err
	}
	info, _, err := b.findImage(key)
	return info, err
}

// convert makes disk.qcow2 beside the raw disk.
func (b *Builder) convert(ctx context.Context, l builder.Ledger, raw, dir string) (string, error) {
	tmp, err := b.store.temp(ctx, l, "qcow2", "the qcow2 disk")
	if err != nil {
		return "", err
	}
	made := filepath.Join(tmp.path, qcow2Name)
	final := filepath.Join(dir, qcow2Name)
	if err = disk.ConvertQCOW2(ctx, raw, made, func(int64, int64) {}); err == nil {
		err = errors.Join(syncFile(made), os.Rename(made, final), atomicfile.SyncDir(dir))
	}
	// The folder holds nothing of the steps' users, so it is removed as what it is.
	return final, errors.Join(explainFull(err, b.store.dir), os.RemoveAll(tmp.path), tmp.lock.Close(), tmp.claim.Settle(context.WithoutCancel(ctx)))
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// describeFile digests one file of an image. Its path is kept relative to the image.
func describeFile(ctx context.Context, format, path string, progress func(done, total int64)) (step.ImageFile, error) {
	sum, allocated, err := disk.Digest(ctx, path, progress)
	if err != nil {
		return step.ImageFile{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return step.ImageFile{}, err
	}
	return step.ImageFile{Format: format, Path: filepath.Base(path), Size: st.Size(), Allocated: allocated, SHA256: sum}, nil
}

// kindGuest is the resource kind of booted guests; the id is the token in their arguments.
const kindGuest = "guest"

// Boot boots a throw-away copy of a raw disk.
func (b *Builder) Boot(ctx context.Context, l builder.Ledger, req builder.BootRequest) (builder.Guest, error) {
	tmp, err := b.store.temp(ctx, l, "guest", "the throw-away disk of a test")
	if err != nil {
		return nil, err
	}
	token := rand.Text()[:16]
	claim, err := l.Intent(ctx, builder.Resource{Kind: kindGuest, ID: token, Note: "a guest booted for tests"})
	if err != nil {
		return nil, err
	}
	g := &bootedGuest{tmp: tmp, claim: claim}
	g.Guest, err = guest.Start(ctx, guest.Config{
		Disk: filepath.Join(b.store.image(req.Image.Key), rawName),
		Arch: req.Pipeline.Arch, Firmware: req.Firmware, MemoryMiB: req.MemoryMiB,
		Dir: tmp.path, Token: token, Log: req.Log, CacheDir: b.store.dir,
	})
	if err != nil {
		return nil, errors.Join(explainFull(err, b.store.dir), g.Close())
	}
	return g, nil
}

// bootedGuest removes the guest's folder when it is closed.
type bootedGuest struct {
	*guest.Guest
	tmp   *tempDir
	claim builder.Claim
	done  bool
}

// Close ends the guest and removes its disk.
func (g *bootedGuest) Close() error {
	if g.done {
		return nil
	}
	g.done = true
	ctx := context.Background()
	if g.Guest != nil {
		if err := g.Guest.Close(); err != nil {
			return err
		}
	}
	if err := g.claim.Settle(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(g.tmp.path); err != nil {
		return err
	}
	return errors.Join(g.tmp.lock.Close(), g.tmp.claim.Settle(ctx))
}

// PublishImage does nothing: the catalog says what is published.
func (b *Builder) PublishImage(context.Context, builder.Ledger, builder.PublishRequest) error {
	return nil
}

// RemoveImage removes an image's files here and in every region, known or not.
func (b *Builder) RemoveImage(_ context.Context, key string, _ []builder.Place) error {
	dirs := []string{b.store.image(key)}
	regions, err := os.ReadDir(b.store.regions())
	if err != nil {
		return err
	}
	for _, r := range regions {
		dirs = append(dirs, filepath.Join(b.store.regions(), r.Name(), key))
	}
	// Copies first: while the original is there, a cut removal is seen and done again.
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove image %.12s: %w", key, err)
		}
	}
	return nil
}
