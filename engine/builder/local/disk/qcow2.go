package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ConvertQCOW2 makes the compressed QCOW2 out, which must not exist, of the disk raw.
// The same disk gives the same bytes with the same qemu-img. Before it returns, what
// it wrote is compared with raw. progress, which may be nil, is told of the bytes of
// raw done. On error out is removed. The file isn't synced.
func ConvertQCOW2(ctx context.Context, raw, out string, progress func(done, total int64)) error {
	// A relative name with a colon would be taken as a protocol.
	raw, errRaw := filepath.Abs(raw)
	out, errOut := filepath.Abs(out)
	if err := errors.Join(errRaw, errOut); err != nil {
		return err
	}
	info, err := os.Stat(raw)
	if err != nil {
		return fmt.Errorf("convert to qcow2: %w", err)
	}
	if f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
		return fmt.Errorf("convert to qcow2: %w", err)
	} else if err := f.Close(); err != nil {
		return fmt.Errorf("convert to qcow2: %w", err)
	}
	report := func(percent float64) {
		if progress != nil {
			progress(int64(percent/100*float64(info.Size())), info.Size())
		}
	}
	// No -W: blocks written in order are what makes the output deterministic.
	err = qemuImg(ctx, report, "convert", "-p", "-c", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1,compression_type=zstd", raw, out)
	if err == nil {
		err = qemuImg(ctx, nil, "compare", "-q", "-f", "raw", "-F", "qcow2", raw, out)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("convert to qcow2: %w", err), os.Remove(out))
	}
	report(100)
	return nil
}

// qemuImg runs qemu-img and hands what it prints as percentages to report.
func qemuImg(ctx context.Context, report func(percent float64), args ...string) error {
	cmd := exec.CommandContext(ctx, "qemu-img", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("%w: install qemu-utils", err)
		}
		return err
	}
	scanErr := scanPercents(stdout, report)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return scanErr
}

// scanPercents reads "    (12.50/100%)\r" until the end.
func scanPercents(r io.Reader, report func(percent float64)) error {
	br := bufio.NewReader(r)
	for {
		part, err := br.ReadString('%')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, part, _ = strings.Cut(part, "(")
		done, _, _ := strings.Cut(part, "/")
		if percent, err := strconv.ParseFloat(done, 64); err == nil && report != nil {
			report(percent)
		}
	}
}
