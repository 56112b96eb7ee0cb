package plugins

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins/store"
)

// Stored is the content of a plugin in the state folder.
type Stored struct {
	// Name and Version are empty when it says them only of itself, and was never asked.
	Name, Version string
	Digest        string
	// Bytes of its files.
	Bytes int64
	// Problem is why it can't be used.
	Problem error
}

// Stored lists the contents in the state folder, sorted by name, version and digest. Which of
// them lock files name can't be told: those may lie anywhere.
func (m *Manager) Stored() ([]Stored, error) {
	found, err := m.store.List()
	if err != nil {
		return nil, err
	}
	var all []Stored
	for _, c := range found {
		name, version, err := m.host.Known(c.Content)
		if err != nil {
			return nil, err
		}
		all = append(all, Stored{Name: name, Version: version, Digest: c.Digest, Bytes: c.Bytes, Problem: c.Problem})
	}
	slices.SortStableFunc(all, func(a, b Stored) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return all, nil
}

// Remove takes a plugin out of a lock file and saves it. purge removes its contents from the
// state folder too; see [Manager.Purge].
func (m *Manager) Remove(ctx context.Context, l *lock.File, name string, purge bool) error {
	p, ok := l.Plugins[name]
	if !ok {
		return unknown(l, name)
	}
	delete(l.Plugins, name)
	if _, err := l.Save(); err != nil {
		return err
	}
	if !purge {
		return nil
	}
	var errs []error
	for _, on := range p.Platforms {
		errs = append(errs, m.Purge(ctx, on.Digest))
	}
	return errors.Join(errs...)
}

// Purge removes a content from the state folder, where any lock file may name it; one that
// isn't there is no error. The caller sees to it that nothing is left which only this
// content can clean up.
func (m *Manager) Purge(ctx context.Context, digest string) error {
	return errors.Join(m.store.Remove(ctx, digest), m.host.Forget(store.Content{Digest: digest}))
}
