package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// writeRoot makes the root file system with mke2fs.
func (l Layout) writeRoot(ctx context.Context, f *os.File, root string, offset, size int64, log io.Writer) error {
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", root, "-L", "gild-root", "-U", l.id("root file system").String(),
		"-E", fmt.Sprintf("offset=%d,hash_seed=%s,root_owner=0:0", offset, l.id("directory hash")), f.Name(), strconv.FormatInt(size/1024, 10)+"k")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "E2FSPROGS_FAKE_TIME=" + strconv.FormatInt(l.Clock.Unix(), 10)}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mke2fs: %w", err)
	}
	return nil
}
