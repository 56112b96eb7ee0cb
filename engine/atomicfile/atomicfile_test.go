package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/engine/atomicfile"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	dir, scratch := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"first", "second, longer", ""} {
		if err := atomicfile.Write(path, scratch, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != text {
			t.Errorf("the file holds %q, %v; want %q", got, err, text)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestWriteFails(t *testing.T) {
	t.Parallel()
	dir, scratch := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "taken"), scratch, []byte("x"), 0o644); err == nil {
		t.Error("a folder was replaced by a file")
	}
	left, err := os.ReadDir(scratch)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
