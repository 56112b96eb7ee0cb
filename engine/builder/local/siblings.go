package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sys/unix"
)

// Steps that run side by side are layers made on the same layers, none on another's.
// Stacked, one would silently hide what the other wrote to the same path; so before
// such siblings are stacked they are compared.

// layerMeta is kept beside a layer's tree.
type layerMeta struct {
	// Lower are the layers it was made on.
	Lower []string
}

const layerMetaName = "layer.json"

func (s store) layerMeta(key string) (layerMeta, error) {
	var m layerMeta
	data, err := os.ReadFile(filepath.Join(s.layer(key), layerMetaName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil // the bare system stands on nothing
	}
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// checkSiblings fails when two layers of a stack that don't know each other changed
// the same path.
func (b *Builder) checkSiblings(ctx context.Context, ids sandbox.IDs, stack []string) error {
	lowers := map[string][]string{}
	for _, key := range stack {
		m, err := b.store.layerMeta(key)
		if err != nil {
			return fmt.Errorf("read what layer %.12s was made on: %w", key, err)
		}
		lowers[key] = m.Lower
	}
	changes := map[string][]string{}
	for i, upper := range stack {
		for _, below := range stack[:i] {
			if lowers[upper] == nil || slices.Contains(lowers[upper], below) {
				continue
			}
			for _, key := range []string{below, upper} {
				if _, ok := changes[key]; ok {
					continue
				}
				var err error
				if changes[key], err = b.changes(ctx, ids, key); err != nil {
					return err
				}
			}
			if both := overlap(changes[below], changes[upper]); len(both) > 0 {
				return &step.Permanent{Err: fmt.Errorf(
					"steps that ran side by side both changed %s: let one of them need the other", listSome(both))}
			}
		}
	}
	return nil
}

func listSome(paths []string) string {
	const most = 5
	if len(paths) <= most {
		return strings.Join(paths, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(paths[:most], ", "), len(paths)-most)
}

// overlap returns the paths in both sorted lists, and those of one that lie under a
// path that the other replaced or removed.
func overlap(a, b []string) []string {
	var both []string
	for _, pair := range [][2][]string{{a, b}, {b, a}} {
		for _, path := range pair[0] {
			_, found := slices.BinarySearch(pair[1], path)
			i, _ := slices.BinarySearch(pair[1], path+"/")
			under := i < len(pair[1]) && strings.HasPrefix(pair[1][i], path+"/")
			if (found || under) && !slices.Contains(both, path) {
				both = append(both, path)
			}
		}
	}
	slices.Sort(both)
	return both
}

const changesName = "local.changes"

func init() { sandbox.Register(changesName, listChanges) }

// opaque tells a folder that hides all that lies below it: the step removed it and made
// it anew. See the kernel's documentation of overlayfs, "userxattr".
func opaque(path string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(path, "user.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// changes lists what a layer changed: all but folders that are only passed through.
func (b *Builder) changes(ctx context.Context, ids sandbox.IDs, key string) ([]string, error) {
	var said tail
	dir := filepath.Join(b.store.layer(key), "fs")
	out, err := sandbox.RunJob(ctx, sandbox.JobConfig{IDs: ids, Writable: []string{dir}}, changesName, dir, &said)
	if err != nil {
		return nil, fmt.Errorf("list the changes of layer %.12s: %w: %s", key, err, said.String())
	}
	var paths []string
	if err := json.Unmarshal(out, &paths); err != nil {
		return nil, err
	}
	slices.Sort(paths)
	return paths, nil
}

func listChanges(_ context.Context, _ string, raw json.RawMessage, out io.Writer) error {
	var dir string
	if err := json.Unmarshal(raw, &dir); err != nil {
		return err
	}
	paths := []string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && !opaque(path) {
			return err
		}
		paths = append(paths, strings.TrimPrefix(path, dir))
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(paths)
}
