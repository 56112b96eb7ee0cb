// Package local builds real, bootable disk images on one Linux machine, and boots them.
//
// Steps work on a stack of overlay layers, one per key, each in its own namespaces
// (package sandbox). The disk is made last from the merged tree (package disk), and is
// tested in QEMU on a throw-away copy (package guest). Nothing needs root, a loop
// device or a mount outside the namespaces. Regions are folders of the state folder.
package local

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// Kind is the builder's name in the language.
const Kind = "local"

// Builder is the local builder. Safe for concurrent use, also by several processes on
// one state folder.
type Builder struct {
	store store
	// findIDs is asked only when something must be made: a build that finds all its
	// results stored works on a host that can't make anything.
	findIDs func() (sandbox.IDs, error)
}

var _ builder.Builder = (*Builder)(nil)

// New returns a builder that keeps everything under a state folder, which it makes.
func New(state string) (*Builder, error) {
	abs, err := filepath.Abs(state)
	if err != nil {
		return nil, fmt.Errorf("find the state folder %s: %w", state, err)
	}
	s := store{dir: abs}
	for _, d := range []string{filepath.Join(abs, "locks"), s.layers(), s.images(), s.regions(), s.indexes(), s.temps()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make the state folder: %w", err)
		}
	}
	return &Builder{store: s, findIDs: s.ids}, nil
}

// Kind returns "local".
func (b *Builder) Kind() string { return Kind }

// Unsupported reports what a pipeline asks for that local images don't have.
func (b *Builder) Unsupported(p *spec.Pipeline) diag.List {
	var l diag.List
	const code = "unsupported"
	if p.Base.Distro == nil && p.Base.Image == nil {
		l.Addf(p.Base.Pos, code, "use debian, ubuntu or image", "the local builder can't start from a base of kind %q yet", p.Base.Form())
	}
	if d := p.Base.Distro; d != nil && d.Snapshot != "" && !hasSnapshotMark(d.Mirror) {
		l.Addf(p.Base.Pos, code, "set mirror to your snapshot service's address with {snapshot} in it",
			"a snapshot needs a mirror that serves snapshots")
	}
	if p.Arch != hostArch() {
		l.Addf(p.Base.Pos, code, "build it on a machine of that architecture",
			"the local builder can't make %s images on a %s machine yet", p.Arch, hostArch())
	}
	if h := p.Harden; h != nil {
		l.Addf(h.Pos, code, "remove the section, or harden with steps of customize", "the local builder can't harden yet")
	}
	if p.Publish != nil && p.Publish.Share != nil {
		l.Addf(p.Publish.Share.Pos, code, "remove share", "local images can't be shared with accounts")
	}
	if p.Copy != nil && p.Copy.EncryptPos.Line != 0 {
		l.Addf(p.Copy.EncryptPos, code, "remove encrypt", "local copies can't be encrypted")
	}
	for _, name := range sortedKeys(p.Secrets) {
		if s := p.Secrets[name]; !slices.Contains([]string{"env", "file", "exec"}, s.Source) {
			l.Addf(s.Pos, code, "use env, file or exec", "secrets from %s can't be read yet", s.Source)
		}
	}
	return l
}

// Stacks returns true: a state is an overlay layer.
func (b *Builder) Stacks() bool { return true }

// HasState reports whether a layer is stored.
func (b *Builder) HasState(_ context.Context, _ *spec.Pipeline, key string) (bool, error) {
	return exists(b.store.layer(key))
}

// Release does nothing: every step has a machine of its own.
func (b *Builder) Release(context.Context, string) error { return nil }

// Open opens a machine on a stack of layers, with a layer of its own on top.
func (b *Builder) Open(ctx context.Context, l builder.Ledger, req builder.OpenRequest) (builder.Machine, error) {
	ids, err := b.findIDs()
	if err != nil {
		return nil, err
	}
	layers, err := b.store.hold(req.Layers)
	if err != nil {
		return nil, err
	}
	if err := b.checkSiblings(ctx, ids, req.Layers); err != nil {
		return nil, errors.Join(err, layers.close())
	}
	tmp, err := b.store.temp(ctx, l, "layer", "the layer of a step")
	if err != nil {
		return nil, errors.Join(err, layers.close())
	}
	m := &machine{builder: b, ids: ids, tmp: tmp, key: req.Key, lower: req.Layers, held: layers}
	if err := sandbox.MakeDirs(ctx, ids, tmp.path, "fs", "work"); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.Session, err = sandbox.Open(ctx, sandbox.Config{
		Lower: b.store.lower(req.Layers), Upper: filepath.Join(tmp.path, "fs"), Work: filepath.Join(tmp.path, "work"),
		IDs: ids, Hostname: "gild", Clock: req.Clock,
	})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// machine is an open layer. Its folder is removed on Close, or renamed by Commit.
type machine struct {
	*sandbox.Session
	builder *Builder
	ids     sandbox.IDs
	tmp     *tempDir
	key     string
	lower   []string
	held    held
	closed  bool
}

var _ step.MachineHandle = (*machine)(nil)

// Exec runs a command. One that has the host's network also has the host's proxy.
func (m *machine) Exec(ctx context.Context, cmd step.Cmd) error {
	if cmd.Network {
		env := proxy(ctx)
		maps.Copy(env, cmd.Env)
		cmd.Env = env
	}
	return m.Session.Exec(ctx, cmd)
}

// Commit ends the machine and stores its layer.
func (m *machine) Commit(ctx context.Context) error {
	if err := m.Session.Close(); err != nil {
		return err
	}
	m.Session = nil
	if err := sandbox.Remove(ctx, m.ids, filepath.Join(m.tmp.path, "work")); err != nil {
		return err
	}
	if err := m.builder.store.writeJSON(filepath.Join(m.tmp.path, layerMetaName), layerMeta{Lower: m.lower}); err != nil {
		return err
	}
	if err := m.builder.store.commit(ctx, m.ids, m.tmp, m.builder.store.layer(m.key)); err != nil {
		return err
	}
	m.closed = true
	return m.held.close()
}

// Close drops the layer unless it was committed.
func (m *machine) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.Session != nil {
		err = m.Session.Close()
	}
	// What is removed now may belong to a cancelled step.
	return errors.Join(err, m.tmp.remove(context.Background(), m.ids), m.held.close())
}
