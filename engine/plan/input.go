package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gildhq/gild/engine/step"
)

// maxInputFiles bounds how many files one input folder may hold.
const maxInputFiles = 100_000

// Project is the folder that a pipeline file and everything it names must lie in.
// Links that lead out of it are refused.
type Project struct {
	root *os.Root
	dir  string // of the pipeline file, relative to root, with forward slashes
}

// OpenProject opens the project of a pipeline file: the nearest folder at or above
// it that holds .git, else the file's own folder. The caller closes it.
func OpenProject(file string) (*Project, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find the project of %s: %w", file, err)
	}
	folder := filepath.Dir(abs)
	top := folder
	for d := folder; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(filepath.Join(d, ".git")); err == nil {
			top = d
			break
		}
		if d == filepath.Dir(d) {
			break
		}
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, fmt.Errorf("open the project of %s: %w", file, err)
	}
	rel, err := filepath.Rel(top, folder)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &Project{root: root, dir: filepath.ToSlash(rel)}, nil
}

// Close releases the project's folder. Inputs can't be opened afterwards.
func (p *Project) Close() error { return p.root.Close() }

// Input is a file or folder of the project, hashed. It implements step.Input.
type Input struct {
	project *Project
	base    string // relative to the project's root
	dir     bool
	files   []step.InputFile
	sums    map[string]string
	// Digest covers names, modes, links and content.
	Digest string
}

var _ step.Input = (*Input)(nil)

// Input hashes what name (relative to the pipeline file) names.
// The error wraps fs.ErrNotExist when there is nothing.
func (p *Project) Input(name string) (*Input, error) {
	rel, err := p.inside(name)
	if err != nil {
		return nil, err
	}
	in := &Input{project: p, base: rel, sums: map[string]string{}}
	h := sha256.New()
	err = fs.WalkDir(p.root.FS(), rel, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if len(in.files) == maxInputFiles {
			return fmt.Errorf("%q holds more than %d files", name, maxInputFiles)
		}
		return in.add(h, at)
	})
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	in.Digest = hex.EncodeToString(h.Sum(nil))
	return in, nil
}

// inside returns the path, below the project's root, of what name names.
func (p *Project) inside(name string) (string, error) {
	rel := path.Join(p.dir, filepath.ToSlash(name))
	if path.IsAbs(name) || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("%q lies outside the project", name)
	}
	return rel, nil
}

func (in *Input) add(h hash.Hash, at string) error {
	info, err := in.project.root.Lstat(at)
	if err != nil {
		return err
	}
	if at == in.base && info.Mode()&fs.ModeSymlink != 0 {
		// The named path itself may be a link inside the project.
		if info, err = in.project.root.Stat(at); err != nil {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("%s is a link to a folder; name the folder itself", at)
		}
	}
	f := step.InputFile{Path: relTo(in.base, at), Mode: keyMode(info.Mode())}
	sum := ""
	switch {
	case info.IsDir():
		in.dir = in.dir || at == in.base
	case info.Mode()&fs.ModeSymlink != 0:
		if f.Link, err = in.project.root.Readlink(at); err != nil {
			return err
		}
		sum = f.Link
	case info.Mode().IsRegular():
		f.Size = info.Size()
		if sum, err = in.hashFile(at); err != nil {
			return err
		}
		in.sums[f.Path] = sum
	default:
		return fmt.Errorf("%s is neither file, folder nor link", at)
	}
	in.files = append(in.files, f)
	writeField(h, f.Path)
	writeField(h, f.Mode.String())
	writeField(h, sum)
	return nil
}

// keyMode keeps what version control keeps: the type and whether a file can be
// executed. The other bits depend on the umask of whoever checked the project out.
func keyMode(m fs.FileMode) fs.FileMode {
	if m.IsDir() || m&0o100 != 0 {
		return m.Type() | 0o755
	}
	return m.Type() | 0o644
}

func (in *Input) hashFile(at string) (string, error) {
	f, err := in.project.root.Open(at)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func relTo(base, at string) string {
	if at == base {
		return "."
	}
	if base == "." {
		return at
	}
	return strings.TrimPrefix(at, base+"/")
}

// IsDir tells a folder from a file.
func (in *Input) IsDir() bool { return in.dir }

// Files lists the entries, sorted by path.
func (in *Input) Files() []step.InputFile { return in.files }

// Open opens one regular file. Reading to the end fails with a *step.Permanent when
// the content isn't what was hashed for the plan.
func (in *Input) Open(rel string) (io.ReadCloser, error) {
	want, ok := in.sums[rel]
	if !ok {
		return nil, fmt.Errorf("open %q of the input: %w", rel, fs.ErrNotExist)
	}
	f, err := in.project.root.Open(path.Join(in.base, rel))
	if err != nil {
		return nil, err
	}
	return &verifiedFile{File: f, h: sha256.New(), want: want, name: path.Join(in.base, rel)}, nil
}

type verifiedFile struct {
	*os.File
	h    hash.Hash
	want string
	name string
}

func (v *verifiedFile) Read(p []byte) (int, error) {
	n, err := v.File.Read(p)
	v.h.Write(p[:n])
	if errors.Is(err, io.EOF) && hex.EncodeToString(v.h.Sum(nil)) != v.want {
		return n, &step.Permanent{Err: fmt.Errorf("%s was changed while the build ran; build again", v.name)}
	}
	return n, err
}

// WriteTo hides the file's own, which would pass by the check in Read.
func (v *verifiedFile) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{v})
}
