package engine

import (
	"context"
	"path/filepath"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/spec"
)

// lockName names a pipeline's base in gild.lock.
func lockName(p *spec.Pipeline) string {
	if p.Builder == "aws" {
		return "aws " + p.AWS.Region + " " + amiName(p.Base) + "/" + p.Arch
	}
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

// amiName says which AMI is meant, such as "debian/12" or "owner/name".
func amiName(b spec.Base) string {
	switch {
	case b.AMI != nil:
		return b.AMI.Owner + "/" + b.AMI.ID + b.AMI.Name
	case b.SSM != "":
		return "ssm:" + b.SSM
	case b.Known != nil:
		return b.Known.Name + "/" + b.Known.Version
	}
	return b.Distro.Distro + "/" + b.Distro.Suite
}

// lockFor reads, once, the lock file beside a pipeline file.
func (b *prepared) lockFor(p *spec.Pipeline) (*lock.File, error) {
	path := filepath.Join(filepath.Dir(b.abs[p.File]), lock.Name)
	if l, ok := b.lockMap[path]; ok {
		return l, nil
	}
	l, err := b.src.lock(path)
	if err == nil {
		b.lockMap[path] = l
	}
	return l, err
}

// lock reads a lock file, or what the run was started with.
func (s *sources) lock(path string) (*lock.File, error) {
	if text, kept := s.Locks[path]; kept {
		return lock.Parse(path, text)
	}
	return lock.Read(filepath.Dir(path))
}

// keepLocks keeps the lock files as this run uses them, whatever others write into them:
// resuming it needs them.
func (b *prepared) keepLocks() error {
	for path, l := range b.lockMap {
		text, err := l.Encode()
		if err != nil {
			return err
		}
		b.src.Locks[path] = text
	}
	return nil
}

// saveLocks writes all lock files that changed.
func (b *prepared) saveLocks() ([]string, error) {
	var written []string
	for _, l := range b.lockMap {
		changed, err := l.Save()
		if err != nil {
			return written, err
		}
		if changed {
			written = append(written, l.Path())
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
	pipelines, _, diags, err := e.language.resolve(ctx, &src)
	if err != nil || diags.HasErrors() {
		return nil, diags, err
	}
	b := &prepared{Engine: e, src: src, abs: map[string]string{}, lockMap: map[string]*lock.File{}}
	for _, f := range src.Files {
		b.abs[f.Path] = f.Abs
	}
	for _, p := range pipelines {
		if p.Base.Image != nil {
			continue
		}
		locked, err := b.lockFor(p)
		if err != nil {
			return nil, diags, err
		}
		base, err := b.builderOf(p).Resolve(ctx, p, nil)
		if err != nil {
			return nil, diags, err
		}
		locked.Bases[lockName(p)] = base.Lock
	}
	written, err := b.saveLocks()
	return written, diags, err
}
