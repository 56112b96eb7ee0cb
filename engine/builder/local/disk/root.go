package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gildhq/gild/engine/builder/local/ext4"
)

// writeRoot makes the root file system in its partition.
func (l Layout) writeRoot(ctx context.Context, f *os.File, root string, offset, size int64) error {
	err := ext4.Write(ctx, f, offset, root, ext4.Options{
		Size: size, UUID: l.id("root file system"), HashSeed: l.id("directory hash"), Label: "gild-root", Clock: l.Clock,
	})
	if full := (*ext4.NoSpaceError)(nil); errors.As(err, &full) {
		// Inode tables and journal grow with the disk: an eighth covers them.
		want := l.Size + (full.Need-full.Have)*9/8
		const step = 64 * mib
		return fmt.Errorf("the disk of %d MiB is too small: %w; set builders.local.disk.size to %dMiB or more",
			l.Size/mib, err, (want+step-1)/step*step/mib)
	}
	return err
}
