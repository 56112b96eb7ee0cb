package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestCopySparse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 5 << 20, 64<<20 - 3} {
		if _, err := f.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(100<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := CopySparse(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	want, _, err := Digest(t.Context(), from, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, allocated, err := Digest(t.Context(), to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Error("the copy differs")
	}
	if allocated > 1<<20 {
		t.Errorf("the copy of 12 bytes in a file of 100 MiB takes %d bytes", allocated)
	}
	if err := CopySparse(t.Context(), from, to); !errors.Is(err, os.ErrExist) {
		t.Errorf("copying over a file gave %v", err)
	}
}
