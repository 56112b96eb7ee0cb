package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gildhq/gild/cmd/gild/ui"
	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/plugins"
	"github.com/gildhq/gild/steps"
)

type jsonStoredPlugin struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Bytes   int64  `json:"bytes"`
	Locked  bool   `json:"locked"`
	Problem string `json:"problem,omitempty"`
}

// pluginsStored lists the contents in the state folder.
func (a *app) pluginsStored(m *plugins.Manager, l *lock.File, asJSON bool) error {
	all, err := m.Stored()
	if err != nil {
		return err
	}
	out := []jsonStoredPlugin{}
	var rows [][]string
	for _, c := range all {
		one := jsonStoredPlugin{Name: c.Name, Version: c.Version, Digest: c.Digest, Bytes: c.Bytes, Locked: lockedAs(l, c.Digest) != ""}
		locked := "no"
		if one.Locked {
			locked = "yes"
		}
		if c.Problem != nil {
			one.Problem = c.Problem.Error()
			a.say("%v", c.Problem)
		}
		out = append(out, one)
		rows = append(rows, []string{dash(c.Name), dash(c.Version), ui.Size(c.Bytes), locked, c.Digest})
	}
	if asJSON {
		return a.printJSON(out)
	}
	return a.printTable("no plugins are stored", []string{"NAME", "VERSION", "SIZE", "LOCKED HERE", "DIGEST"}, rows)
}

// lockedAs is the name of the plugin that a lock file names the digest for, or empty.
func lockedAs(l *lock.File, digest string) string {
	for name, p := range l.Plugins {
		if slices.Contains(digests(p), digest) {
			return name
		}
	}
	return ""
}

// digests are those of a plugin for all platforms.
func digests(p lock.Plugin) []string {
	var all []string
	for _, platform := range slices.Sorted(maps.Keys(p.Platforms)) {
		all = append(all, p.Platforms[platform].Digest)
	}
	return all
}

// pluginPurge removes a content that the lock file doesn't name.
func (a *app) pluginPurge(ctx context.Context, m *plugins.Manager, l *lock.File, digest string, asJSON bool) error {
	if name := lockedAs(l, digest); name != "" {
		return invalid("%s names %s for %s; take that out first, with \"gild plugin remove --purge %s\"", l.Path(), digest, name, name)
	}
	all, err := m.Stored()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c plugins.Stored) bool { return c.Digest == digest })
	if i < 0 {
		return invalid("no plugin %s is stored; \"gild plugin list --stored\" shows those that are", digest)
	}
	// One whose name isn't known was never asked for its steps, and so has claimed nothing.
	if name := all[i].Name; name != "" {
		if err := a.unclaimed(ctx, name, []string{digest}); err != nil {
			return err
		}
	}
	if err := m.Purge(ctx, digest); err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(map[string]string{"purged": digest})
	}
	a.say("removed %s from the state folder", digest)
	return nil
}

// unclaimed refuses to take away contents of a plugin that are needed to remove what its
// steps claimed.
func (a *app) unclaimed(ctx context.Context, name string, digests []string) (err error) {
	state, err := engine.StateFolder(a.state)
	if err != nil {
		return err
	}
	e, err := engine.Open(ctx, engine.Config{State: state, Steps: steps.All(), Version: buildVersion().Version})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	for _, digest := range digests {
		n, err := e.OpenClaims(ctx, name+"@"+digest)
		if err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("purge plugin %s: its content %s is needed to clean up after builds (open claims: %d); run \"gild gc\" first, or leave it in the state folder",
				name, digest, n)
		}
	}
	return nil
}
