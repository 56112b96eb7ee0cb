package sandboxtest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// header is the first block of a disk.
const header = "gild sandboxtest: a tar of a machine's tree follows. No disk that boots.\n"

// blockSize is how long the header is, in bytes, filled up with NUL.
const blockSize = 512

// packDisk writes a tree to a disk, in place. The disk keeps its size; what the tree doesn't
// need of it becomes a hole.
func packDisk(tree, disk string) (err error) {
	info, err := os.Stat(disk)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(disk, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := writeDisk(f, tree); err != nil {
		return fmt.Errorf("write the disk %s: %w", disk, err)
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if end > info.Size() {
		return fmt.Errorf("write the disk %s: %d bytes don't fit on %d: %w", disk, end, info.Size(), syscall.ENOSPC)
	}
	return f.Truncate(info.Size())
}

func writeDisk(w io.Writer, tree string) error {
	out := bufio.NewWriterSize(w, 1<<20)
	block := make([]byte, blockSize)
	copy(block, header)
	if _, err := out.Write(block); err != nil {
		return err
	}
	t := tar.NewWriter(out)
	links := map[uint64]string{}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode().Type() == fs.ModeSocket {
			return err // a socket is of no use without who listens
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		return addEntry(t, path, name, info, links)
	})
	return errors.Join(err, t.Close(), out.Flush())
}

// A folder with this mark hides what the folder below has; a character device 0, 0 in place
// of a file hides that.
const (
	opaqueMark = "trusted.overlay.opaque"
	paxMark    = "SCHILY.xattr." + opaqueMark
)

// addEntry adds a file as it is. links are the names of files with several, by inode.
func addEntry(t *tar.Writer, path, name string, info fs.FileInfo, links map[uint64]string) error {
	target := ""
	if info.Mode().Type() == fs.ModeSymlink {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname, h.Format = name, "", "", tar.FormatPAX
	if info.IsDir() {
		h.Name += "/"
		if opaque, err := unix.Lgetxattr(path, opaqueMark, make([]byte, 8)); err == nil && opaque > 0 {
			h.PAXRecords = map[string]string{paxMark: "y"}
		}
	}
	stat := info.Sys().(*syscall.Stat_t)
	if first, ok := links[stat.Ino]; ok && info.Mode().IsRegular() {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	} else if stat.Nlink > 1 {
		links[stat.Ino] = name
	}
	if err := t.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t, f)
	return err
}

// unpackDisk makes the tree of a disk in an empty folder. It trusts the disk: only this
// package writes one.
func unpackDisk(disk, tree string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := readDisk(bufio.NewReaderSize(f, 1<<20), tree); err != nil {
		return fmt.Errorf("read the disk %s: %w", disk, err)
	}
	return nil
}

func readDisk(r io.Reader, tree string) error {
	block := make([]byte, blockSize)
	if _, err := io.ReadFull(r, block); err != nil {
		return err
	}
	if !bytes.HasPrefix(block, []byte(header)) {
		return errors.New("it was not made by sandboxtest")
	}
	type stamp struct {
		path string
		time time.Time
	}
	var folders []stamp // their times change while they are filled
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(h.Name) {
			return fmt.Errorf("the name %q leads out of it", h.Name)
		}
		path := filepath.Join(tree, h.Name)
		if err := makeEntry(t, h, tree, path); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			folders = append(folders, stamp{path, h.ModTime})
		case tar.TypeReg, tar.TypeFifo:
			if err := os.Chtimes(path, h.ModTime, h.ModTime); err != nil {
				return err
			}
		}
	}
	for _, f := range folders {
		if err := os.Chtimes(f.path, f.time, f.time); err != nil {
			return err
		}
	}
	return nil
}

func makeEntry(content io.Reader, h *tar.Header, tree, path string) error {
	switch h.Typeflag {
	case tar.TypeLink:
		return os.Link(filepath.Join(tree, h.Linkname), path)
	case tar.TypeSymlink:
		return errors.Join(os.Symlink(h.Linkname, path), os.Lchown(path, h.Uid, h.Gid))
	}
	var err error
	switch h.Typeflag {
	case tar.TypeDir:
		err = os.Mkdir(path, 0o700)
		if h.PAXRecords[paxMark] != "" {
			err = errors.Join(err, unix.Lsetxattr(path, opaqueMark, []byte("y"), 0))
		}
	case tar.TypeFifo:
		err = syscall.Mkfifo(path, 0o600)
	case tar.TypeReg:
		err = makeFile(path, content)
	case tar.TypeChar:
		err = unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
	default:
		err = fmt.Errorf("%s is a device, which the tree of a quick machine can't have", h.Name)
	}
	if err != nil {
		return err
	}
	// The set-id bits go when the owner changes.
	return errors.Join(os.Lchown(path, h.Uid, h.Gid), os.Chmod(path, h.FileInfo().Mode()))
}

func makeFile(path string, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
