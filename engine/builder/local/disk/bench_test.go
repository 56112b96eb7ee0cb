package disk

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkAssemble reports, beside the time of a disk, how many times longer it takes
// than copying the tree's files, one after the other, into a single file.
func BenchmarkAssemble(b *testing.B) {
	root, dir := debianTree(b), b.TempDir()
	out, floor := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "floor")
	var copying time.Duration
	for b.Loop() {
		must(b, Assemble(b.Context(), root, out, dir, layout(), io.Discard))
		b.StopTimer()
		start := time.Now()
		must(b, copyAll(root, floor))
		copying += time.Since(start)
		must(b, os.Remove(out))
		must(b, os.Remove(floor))
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed())/float64(copying), "x-floor")
}

func copyAll(root, out string) error {
	dst, err := os.Create(out)
	if err != nil {
		return err
	}
	defer dst.Close()
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		_, err = io.Copy(dst, src)
		return err
	})
}

func BenchmarkDigest(b *testing.B) {
	raw := assemble(b, debianTree(b), layout())
	for b.Loop() {
		_, _, err := Digest(b.Context(), raw, nil)
		must(b, err)
	}
}

func BenchmarkConvertQCOW2(b *testing.B) {
	raw := assemble(b, debianTree(b), layout())
	out := filepath.Join(b.TempDir(), "disk.qcow2")
	for b.Loop() {
		must(b, ConvertQCOW2(b.Context(), raw, out, nil))
		must(b, os.Remove(out))
	}
}
