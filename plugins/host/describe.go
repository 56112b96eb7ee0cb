package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/engine/atomicfile"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
)

// describedDir is the folder, in that of the host, with the descriptions of plugins, each
// in a file named after the digest.
const describedDir = "described"

// Describe returns what a plugin says it has. It is asked once: the answer is kept by the
// plugin's digest. An answer that breaks the rules of the protocol is an error that says
// all that is wrong with it.
func (h *Host) Describe(ctx context.Context, c store.Content) (*pluginv1.DescribeResponse, error) {
	h.mu.Lock()
	d := h.described[c.Digest]
	h.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d, ok, err := h.kept(c)
	if err != nil {
		return nil, err
	}
	if !ok {
		if d, err = h.ask(ctx, c); err != nil {
			return nil, err
		}
		if err := h.keep(c, d); err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.described[c.Digest] = d
	return d, nil
}

// recall makes the plugin known by name if its description is kept. It starts nothing.
func (h *Host) recall(c store.Content) error {
	h.mu.Lock()
	known := h.described[c.Digest] != nil
	h.mu.Unlock()
	if known {
		return nil
	}
	d, ok, err := h.kept(c)
	if err != nil || !ok {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.described[c.Digest] = d
	return nil
}

// Known returns the name and version of a plugin without starting it: what it said of itself,
// else what its manifest says. Both are empty for one of which nothing is known.
func (h *Host) Known(c store.Content) (name, version string, err error) {
	data, err := os.ReadFile(h.describedPath(c))
	if errors.Is(err, fs.ErrNotExist) {
		return c.Manifest.Name, c.Manifest.Version, nil
	}
	d := &pluginv1.DescribeResponse{}
	if err == nil {
		err = proto.Unmarshal(data, d)
	}
	if err != nil {
		return "", "", fmt.Errorf("read what plugin %s said of itself: %s: %w", c.Digest, h.describedPath(c), err)
	}
	return d.GetName(), d.GetVersion(), nil
}

// Forget removes what a plugin said of itself. One that said nothing is no error.
func (h *Host) Forget(c store.Content) error {
	h.mu.Lock()
	delete(h.described, c.Digest)
	h.mu.Unlock()
	if err := os.Remove(h.describedPath(c)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what plugin %s said of itself: %w", c.Digest, err)
	}
	return nil
}

func (h *Host) ask(ctx context.Context, c store.Content) (*pluginv1.DescribeResponse, error) {
	const name = "describe"
	d, err := call(ctx, h, c, name, h.cfg.CallTimeout,
		func(p *process) asker[*pluginv1.DescribeRequest, *pluginv1.DescribeResponse] { return p.rpc.Describe },
		&pluginv1.DescribeRequest{GildVersion: h.cfg.Version})
	if err != nil {
		return nil, err
	}
	if err := checkDescription(c.Manifest, d); err != nil {
		return nil, h.named(c, name, err)
	}
	return d, nil
}

func (h *Host) describedPath(c store.Content) string {
	return filepath.Join(h.cfg.Dir, describedDir, strings.TrimPrefix(c.Digest, "sha256:"))
}

// kept reads a description. One that can't be read, or that this gild wouldn't take, is as
// good as none.
func (h *Host) kept(c store.Content) (*pluginv1.DescribeResponse, bool, error) {
	data, err := os.ReadFile(h.describedPath(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read what plugin %s said of itself: %w", h.name(c), err)
	}
	d := &pluginv1.DescribeResponse{}
	if proto.Unmarshal(data, d) != nil || checkDescription(c.Manifest, d) != nil {
		return nil, false, nil
	}
	return d, true, nil
}

func (h *Host) keep(c store.Content, d *pluginv1.DescribeResponse) error {
	path := h.describedPath(c)
	data, err := proto.Marshal(d)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(path, filepath.Dir(path), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep what plugin %s says of itself: %w", h.name(c), err)
	}
	return nil
}
