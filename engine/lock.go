package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"gopkg.in/yaml.v3"
)

// lockFile is gild.lock: what was "the newest" when a folder's pipelines were last
// locked. It lies beside them and is meant to be committed.
type lockFile struct {
	// Version of the format.
	Version int `yaml:"gild"`
	// Bases holds what each base resolved to, by lockName.
	Bases map[string]map[string]string `yaml:"bases"`

	path string
	text []byte // as read
}

const lockHeader = "# Made by gild; commit it. `gild lock` brings it up to date.\n"

func lockName(p *spec.Pipeline) string {
	d := p.Base.Distro
	name := d.Distro + "/" + d.Suite + "/" + p.Arch
	if d.Snapshot != "" {
		name += "/" + d.Snapshot
	}
	if d.Mirror != "" {
		name += " from " + d.Mirror
	}
	return name
}

// lockFor reads, once, the lock file beside a pipeline file.
func (b *prepared) lockFor(p *spec.Pipeline) (*lockFile, error) {
	path := filepath.Join(filepath.Dir(b.abs[p.File]), "gild.lock")
	if l, ok := b.lockMap[path]; ok {
		return l, nil
	}
	text, kept := b.src.Locks[path]
	if !kept {
		var err error
		if text, err = os.ReadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	l, err := parseLock(path, text)
	if err == nil {
		b.lockMap[path] = l
	}
	return l, err
}

// lockTexts are the lock files in use, as resuming the run needs them.
func (b *prepared) lockTexts() map[string][]byte {
	texts := map[string][]byte{}
	for path, l := range b.lockMap {
		texts[path] = l.text
	}
	return texts
}

func parseLock(path string, text []byte) (*lockFile, error) {
	l := &lockFile{Version: 1, path: path, text: text}
	if len(text) > 0 {
		dec := yaml.NewDecoder(bytes.NewReader(text))
		dec.KnownFields(true)
		if err := dec.Decode(l); err != nil {
			return nil, fmt.Errorf("read %s: %w; mend it, or remove it to lock anew", path, err)
		}
		if l.Version != 1 {
			return nil, fmt.Errorf("read %s: its version is %d, and this gild knows 1", path, l.Version)
		}
	}
	if l.Bases == nil {
		l.Bases = map[string]map[string]string{}
	}
	return l, nil
}

// save writes the file if it says something new.
func (l *lockFile) save() (changed bool, err error) {
	var buf bytes.Buffer
	buf.WriteString(lockHeader)
	enc := yaml.NewEncoder(&buf)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(l), enc.Close()); err != nil {
		return false, err
	}
	if bytes.Equal(buf.Bytes(), l.text) {
		return false, nil
	}
	l.text = buf.Bytes()
	if err := atomicfile.Write(l.path, filepath.Dir(l.path), l.text, 0o644); err != nil {
		return false, fmt.Errorf("write %s: %w", l.path, err)
	}
	return true, nil
}

// saveLocks writes all lock files that changed.
func (b *prepared) saveLocks() ([]string, error) {
	var written []string
	for _, l := range b.lockMap {
		changed, err := l.save()
		if err != nil {
			return written, err
		}
		if changed {
			written = append(written, l.path)
		}
	}
	return written, nil
}

// Lock asks the archives what they hold now and writes it into gild.lock beside each
// pipeline. It returns the files it changed.
func (e *Engine) Lock(ctx context.Context, req Request) ([]string, diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil || diags.HasErrors() {
		return nil, diags, err
	}
	pipelines, diags := resolve(ctx, e.syntax, src, e.unsupported)
	if diags.HasErrors() {
		return nil, diags, nil
	}
	b := &prepared{Engine: e, src: src, abs: map[string]string{}, lockMap: map[string]*lockFile{}}
	for _, f := range src.Files {
		b.abs[f.Path] = f.Abs
	}
	for _, p := range pipelines {
		if p.Base.Distro == nil {
			continue
		}
		lock, err := b.lockFor(p)
		if err != nil {
			return nil, diags, err
		}
		base, err := b.builderOf(p).Resolve(ctx, *p.Base.Distro, p.Arch, nil)
		if err != nil {
			return nil, diags, err
		}
		lock.Bases[lockName(p)] = base.Lock
	}
	written, err := b.saveLocks()
	return written, diags, err
}
