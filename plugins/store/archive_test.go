package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tarOf makes a tar stream of headers; files hold their own name.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write([]byte(h.Name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.tar.gz")
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close(), os.WriteFile(path, buf.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func file(name string) tar.Header { return tar.Header{Name: name, Mode: 0o755} }
func link(name, target string) tar.Header {
	return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
}

func TestArchiveRefuses(t *testing.T) {
	t.Parallel()
	whole := tarOf(t, file("a"))
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"absolute path":        {tarOf(t, file("/etc/passwd")), `"/etc/passwd" leads out`},
		"path above":           {tarOf(t, file("../x")), `"../x" leads out`},
		"path in and out":      {tarOf(t, file("a/../../x")), "leads out"},
		"link out":             {tarOf(t, file("a"), link("l", "../x")), `the link "l"`},
		"link out of its top":  {tarOf(t, file("top/a"), link("top/l", "../x")), `the link "l"`},
		"absolute link":        {tarOf(t, file("a"), link("l", "/etc")), `the link "l"`},
		"file through a link":  {tarOf(t, link("l", "."), file("l/a")), `"l", which is no folder`},
		"file through a file":  {tarOf(t, file("a"), file("a/b")), `"a", which is no folder`},
		"twice":                {tarOf(t, file("a"), file("a")), "there twice"},
		"link over a file":     {tarOf(t, file("a"), link("a", "b")), "there twice"},
		"folder over a link":   {tarOf(t, link("a", "b"), tar.Header{Name: "a/", Typeflag: tar.TypeDir}), "there twice"},
		"hard link":            {tarOf(t, file("a"), tar.Header{Name: "b", Linkname: "a", Typeflag: tar.TypeLink}), "hard link"},
		"device":               {tarOf(t, tar.Header{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), "neither file, folder"},
		"pipe":                 {tarOf(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}), "neither file, folder"},
		"long name":            {tarOf(t, file(strings.Repeat("a/", 600)+"x")), "longer than 1024"},
		"too many":             {tarOf(t, file("a"), file("b"), file("c"), file("d"), file("e")), "more than 4"},
		"too large":            {tarOf(t, file(strings.Repeat("a", 90)), file(strings.Repeat("b", 90))), "more than"},
		"cut short":            {tarOf(t, file("a"))[:400], "unexpected EOF"},
		"nothing":              {tarOf(t), "it is empty"},
		"padded without end":   {append(whole, make([]byte, 9000)...), "too large"},
		"another tar's header": {[]byte(strings.Repeat("x", 1024)), "invalid tar header"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			s.limits = limits{bytes: 150, entries: 4, headers: 8000}
			if _, err := s.Add(t.Context(), gzipped(t, test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v; want %q", err, test.want)
			}
		})
	}
}

func TestDamagedArchive(t *testing.T) {
	t.Parallel()
	path := gzipped(t, tarOf(t, file("a")))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-6]++ // in the checksum
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Digest(path); !errors.Is(err, gzip.ErrChecksum) {
		t.Errorf("got %v; want %v", err, gzip.ErrChecksum)
	}
}

func TestStaysInside(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, target string
		want         bool
	}{
		{"l", "a", true}, {"l", "a/b", true}, {"l", "./a", true}, {"a/l", "..", true}, {"a/b/l", "../../c", true},
		{"l", "", false}, {"l", "..", false}, {"l", "/a", false}, {"a/l", "../..", false}, {"a/l", "b/../c", false}, {"a/l", "./../..", false},
	} {
		if got := staysInside(test.name, test.target); got != test.want {
			t.Errorf("%s -> %s: got %v", test.name, test.target, got)
		}
	}
}

// Whatever an archive holds, what it unpacks to has the digest that was computed on the way,
// and nothing in it leads out.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, file("a"), file("b/c"), link("b/l", "../a")))
	f.Add(tarOf(f, file("top/a"), link("top/l", "a"), file("top/.git/x")))
	f.Add(tarOf(f, tar.Header{Name: "d/", Typeflag: tar.TypeDir}, link("d/up", ".."), link("e", "d/up/..")))
	f.Add(tarOf(f, file("../x"), file("/x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "out")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		s := &Store{limits: limits{bytes: 1 << 20, entries: 100, headers: 1 << 20}}
		digest, top, err := s.archive(context.Background(), gzipped(t, data), root, false)
		if around, dirErr := os.ReadDir(parent); dirErr != nil || len(around) != 1 {
			t.Fatalf("beside the folder: %v, %v", around, dirErr)
		}
		if err != nil {
			if digest != "" {
				t.Error("a digest and an error")
			}
			return
		}
		whole := filepath.Join(dir, top)
		if again, err := s.folder(context.Background(), whole, nil, false); err != nil || again != digest {
			t.Errorf("digest of what was unpacked: %s, %v; of the archive: %s", again, err, digest)
		}
		checkInside(t, whole)
	})
}

func checkInside(t *testing.T, dir string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at, err := filepath.EvalSymlinks(path)
		if err == nil && at != real && !strings.HasPrefix(at, real+"/") {
			t.Errorf("%s leads to %s", path, at)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
