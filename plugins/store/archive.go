package store

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// archive hashes the folder in a .tar.gz, and unpacks it when out isn't nil. top is the one
// folder that all is in, or empty.
func (s *Store) archive(ctx context.Context, name string, out *os.Root, sync bool) (digest, top string, err error) {
	f, err := openSteady(name)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return "", "", fmt.Errorf("unpack: %w", err)
	}
	t := newTree(s.limits, out, sync)
	all := &bounded{r: gz, left: s.limits.bytes + s.limits.headers}
	if err := t.unpack(ctx, all); err != nil {
		return "", "", fmt.Errorf("unpack: %w", err)
	}
	// The checksum is at the end, behind what tar pads with.
	if _, err := io.Copy(io.Discard, &until{ctx, all}); err != nil {
		return "", "", fmt.Errorf("unpack: %w", err)
	}
	if top = t.top(); top != "" {
		t.strip(top)
	}
	digest, err = t.digest()
	return digest, top, err
}

// unpack takes the entries of a tar stream.
func (t *tree) unpack(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // the commit that git archive writes down
		}
		if path.IsAbs(h.Name) || slices.Contains(strings.Split(h.Name, "/"), "..") {
			return fmt.Errorf("%q leads out of the archive", h.Name)
		}
		if len(h.Name) > maxName {
			return fmt.Errorf("the name %.40q... is longer than %d bytes", h.Name, maxName)
		}
		if name := path.Clean(h.Name); name != "." && !skipped(name) {
			if err := t.member(ctx, name, h, tr); err != nil {
				return err
			}
		}
	}
}

func (t *tree) member(ctx context.Context, name string, h *tar.Header, r io.Reader) error {
	if err := t.parents(name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if t.entries[name].kind == kindDir {
			return nil // made for what is in it
		}
		return t.folder(name)
	case tar.TypeReg:
		return t.file(ctx, name, h.Mode&0o100 != 0, r)
	case tar.TypeSymlink:
		return t.link(name, h.Linkname)
	case tar.TypeLink:
		return fmt.Errorf("%q is a hard link to %q; make the archive with tar's --hard-dereference", name, h.Linkname)
	}
	return fmt.Errorf("%q is neither file, folder nor symbolic link (type %q)", name, h.Typeflag)
}

// parents makes the folders above a name that the archive doesn't list.
func (t *tree) parents(name string) error {
	dir := path.Dir(name)
	if _, ok := t.entries[dir]; ok || dir == "." {
		return nil
	}
	if err := t.parents(dir); err != nil {
		return err
	}
	return t.folder(dir)
}

// bounded ends with an error where a reader gives more than it may.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the archive is too large")
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	return n, err
}
