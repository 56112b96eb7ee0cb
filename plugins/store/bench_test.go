package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/plugins/store"
)

// A start of a plugin copies and hashes its program; a common one has 19 MB.
func BenchmarkCopyTo(b *testing.B) {
	s, err := store.Open(filepath.Join(b.TempDir(), "plugins"))
	if err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(b.TempDir(), "program")
	data := make([]byte, 19<<20)
	copy(data, "\x7fELF")
	if err := os.WriteFile(program, data, 0o700); err != nil {
		b.Fatal(err)
	}
	c, err := s.Add(b.Context(), program)
	if err != nil {
		b.Fatal(err)
	}
	out := b.TempDir()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.CopyTo(b.Context(), c, out); err != nil {
			b.Fatal(err)
		}
		if err := os.Remove(filepath.Join(out, store.Program)); err != nil {
			b.Fatal(err)
		}
	}
}
