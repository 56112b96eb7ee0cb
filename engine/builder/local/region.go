package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/spec"
)

// CopyImage copies the finished files of an image to a region, and reads them back to
// compare digests before the copy is given its name.
func (b *Builder) CopyImage(ctx context.Context, l builder.Ledger, req builder.CopyRequest) (string, error) {
	key, region := req.Key, req.Region
	to, ok, err := b.HasCopy(ctx, req.Pipeline, key, region)
	if ok || err != nil {
		return to, err
	}
	m, ok, err := readMeta(b.store.image(key))
	if err != nil {
		return "", err
	}
	if !ok || len(m.Files) == 0 {
		return "", fmt.Errorf("image %.12s has no finished files to copy", key)
	}
	tmp, err := b.store.temp(ctx, l, "copy", "a copy on its way to "+region)
	if err != nil {
		return "", err
	}
	if err := b.copyFiles(ctx, tmp.path, key, m, req.Progress); err != nil {
		return "", errors.Join(explainFull(err, b.store.dir), os.RemoveAll(tmp.path), tmp.lock.Close(), tmp.claim.Settle(context.WithoutCancel(ctx)))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", err
	}
	ids, err := b.findIDs()
	if err != nil {
		return "", err
	}
	return to, b.store.commit(ctx, ids, tmp, to)
}

func (b *Builder) copyFiles(ctx context.Context, to, key string, m imageMeta, progress func(done, total int64)) error {
	for _, f := range m.Files {
		dst := filepath.Join(to, filepath.Base(f.Path))
		if err := disk.CopySparse(ctx, filepath.Join(b.store.image(key), f.Path), dst); err != nil {
			return err
		}
		sum, _, err := disk.Digest(ctx, dst, progress)
		if err != nil {
			return err
		}
		if sum != f.SHA256 {
			return fmt.Errorf("copy of %s has SHA-256 %s, not %s: the stored image or the copy is damaged", f.Path, sum, f.SHA256)
		}
	}
	return b.store.writeMeta(to, m)
}

// HasCopy returns where a region's copy is. What has the name was verified before it
// got it; a copy made before the image had all the files it has now doesn't count.
func (b *Builder) HasCopy(_ context.Context, _ *spec.Pipeline, key, region string) (string, bool, error) {
	to := filepath.Join(b.store.regions(), region, key)
	copied, ok, err := readMeta(to)
	if err != nil || !ok {
		return to, false, err
	}
	m, ok, err := readMeta(b.store.image(key))
	if err != nil || !ok {
		return to, ok, err
	}
	return to, slices.Equal(copied.Files, m.Files), nil
}
