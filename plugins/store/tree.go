package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// limits bound what a plugin may be.
type limits struct {
	bytes   int64 // of all files together
	entries int   // files, folders and links
	headers int64 // bytes of an archive that are no content of a file
}

var defaultLimits = limits{bytes: 2 << 30, entries: 50_000, headers: 256 << 20}

// maxName is the length of the longest relative name, in bytes.
const maxName = 1024

// tree takes the entries of a folder one by one, in any order, parents before what is in
// them: it checks, counts and hashes them, and copies them when it has where to.
type tree struct {
	limits limits
	out    *os.Root // nil: only hash
	sync   bool     // make the copies durable
	bytes  int64
	// entries are those taken, by name; link targets are kept until all is there.
	entries map[string]entry
	buf     []byte
}

type entry struct {
	kind byte   // as in the digest's lines
	sum  string // the second field of the digest's lines
	link string // target of a link
}

const (
	kindDir     = 'd'
	kindFile    = 'f'
	kindProgram = 'x' // a file that may be executed
	kindLink    = 'l'
)

func newTree(l limits, out *os.Root, sync bool) *tree {
	return &tree{limits: l, out: out, sync: sync, entries: map[string]entry{}, buf: make([]byte, 128<<10)}
}

// skipped tells what belongs to the tools that work in a folder, and changes without the
// plugin changing.
func skipped(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".git" || part == "__pycache__" {
			return true
		}
	}
	return false
}

func (t *tree) take(name string, e entry) error {
	switch parent, ok := t.entries[path.Dir(name)]; {
	case !fs.ValidPath(name) || name == "." || strings.ContainsFunc(name, control):
		return fmt.Errorf("%q is no name for a file of a plugin", name)
	case len(name) > maxName:
		return fmt.Errorf("the name %.40q... is longer than %d bytes", name, maxName)
	case len(t.entries) >= t.limits.entries:
		return fmt.Errorf("it has more than %d files and folders", t.limits.entries)
	case path.Dir(name) != "." && (!ok || parent.kind != kindDir):
		return fmt.Errorf("%q lies in %q, which is no folder", name, path.Dir(name))
	}
	if _, ok := t.entries[name]; ok {
		return fmt.Errorf("%q is there twice", name)
	}
	t.entries[name] = e
	return nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f }

func (t *tree) folder(name string) error {
	if err := t.take(name, entry{kind: kindDir, sum: "-"}); err != nil {
		return err
	}
	if t.out == nil {
		return nil
	}
	return t.out.Mkdir(name, 0o700)
}

func (t *tree) link(name, target string) error {
	if err := t.take(name, entry{kind: kindLink, sum: sum([]byte(target)), link: target}); err != nil {
		return err
	}
	if t.out == nil {
		return nil
	}
	return t.out.Symlink(target, name)
}

func (t *tree) file(ctx context.Context, name string, executable bool, r io.Reader) (err error) {
	e := entry{kind: kindFile}
	mode := fs.FileMode(0o400)
	if executable {
		e.kind, mode = kindProgram, 0o500
	}
	if err := t.take(name, e); err != nil {
		return err
	}
	hash := sha256.New()
	var w io.Writer = hash
	if t.out != nil {
		f, err := t.out.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		w = io.MultiWriter(hash, f)
		defer func() { err = errors.Join(err, t.finish(f, mode, err == nil)) }()
	}
	left := t.limits.bytes - t.bytes
	n, err := io.CopyBuffer(w, io.LimitReader(&until{ctx, r}, left+1), t.buf)
	if err != nil {
		return fmt.Errorf("copy %q: %w", name, err)
	}
	if n > left {
		return fmt.Errorf("it has more than %d MiB", t.limits.bytes>>20)
	}
	t.bytes += n
	e.sum = hex.EncodeToString(hash.Sum(nil))
	t.entries[name] = e
	return nil
}

func (t *tree) finish(f *os.File, mode fs.FileMode, whole bool) error {
	var err error
	if whole {
		err = f.Chmod(mode)
	}
	if whole && t.sync {
		err = errors.Join(err, f.Sync())
	}
	return errors.Join(err, f.Close())
}

// top is the only folder at the top that all else is in, or empty.
func (t *tree) top() string {
	found := ""
	for name, e := range t.entries {
		if strings.Contains(name, "/") {
			continue
		}
		if found != "" || e.kind != kindDir {
			return ""
		}
		found = name
	}
	return found
}

// strip makes a folder at the top the whole.
func (t *tree) strip(top string) {
	entries := map[string]entry{}
	for name, e := range t.entries {
		if rest, ok := strings.CutPrefix(name, top+"/"); ok {
			entries[rest] = e
		}
	}
	t.entries = entries
}

// digest is that of all entries; see [Digest].
func (t *tree) digest() (string, error) {
	if len(t.entries) == 0 {
		return "", errors.New("it is empty")
	}
	hash := sha256.New()
	fmt.Fprint(hash, folderHeader)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[name]
		if e.kind == kindLink && !staysInside(name, e.link) {
			return "", fmt.Errorf("the link %q leads to %q: a link must be relative, stay inside the plugin's folder and have .. only at its beginning", name, e.link)
		}
		fmt.Fprintf(hash, "%c %s %s\n", e.kind, e.sum, name)
	}
	return digestPrefix + hex.EncodeToString(hash.Sum(nil)), nil
}

// staysInside tells that a link can't lead out of the folder, whatever other links it
// passes: it climbs only from where it lies, which is a real folder, and no further than
// the top.
func staysInside(name, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	depth, climbing := strings.Count(name, "/"), true
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "" || part == ".":
		case part == ".." && (!climbing || depth == 0):
			return false
		case part == "..":
			depth--
		default:
			climbing = false
		}
	}
	return true
}

// until ends reading when the context ends.
type until struct {
	ctx context.Context
	r   io.Reader
}

func (u *until) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}
