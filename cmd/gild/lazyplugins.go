package main

import (
	"context"
	"sync"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins"
)

// lazyPlugins opens the plugins of the state folder when the first is asked for: who uses
// none needs no state folder to validate. Safe for concurrent use.
type lazyPlugins struct {
	open func() (*plugins.Manager, error)

	mu       sync.Mutex
	manager  *plugins.Manager
	withheld []string // until there is a manager that can be told
}

var _ engine.Plugins = (*lazyPlugins)(nil)

func (a *app) lazyPlugins() *lazyPlugins {
	return &lazyPlugins{open: func() (*plugins.Manager, error) { return a.openPlugins(nil) }}
}

func (l *lazyPlugins) get() (*plugins.Manager, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.manager != nil {
		return l.manager, nil
	}
	m, err := l.open()
	if err != nil {
		return nil, err
	}
	m.Withhold(l.withheld)
	l.manager = m
	return m, nil
}

// Withhold names variables of the environment that no plugin that is started afterwards may see.
func (l *lazyPlugins) Withhold(names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.manager != nil {
		l.manager.Withhold(names)
		return
	}
	l.withheld = append(l.withheld, names...)
}

// Steps returns the steps of an installed plugin.
func (l *lazyPlugins) Steps(ctx context.Context, name string, p lock.Plugin) ([]step.Step, error) {
	m, err := l.get()
	if err != nil {
		return nil, err
	}
	return m.Steps(ctx, name, p)
}

// Cleanup has a plugin remove what one of its steps claimed.
func (l *lazyPlugins) Cleanup(ctx context.Context, plugin string, r step.Resource) error {
	m, err := l.get()
	if err != nil {
		return err
	}
	return m.Cleanup(ctx, plugin, r)
}

// Sweep removes what dead processes left of plugins.
func (l *lazyPlugins) Sweep(ctx context.Context, dry bool) ([]step.Resource, error) {
	m, err := l.get()
	if err != nil {
		return nil, err
	}
	return m.Sweep(ctx, dry)
}

// Close ends the processes of plugins.
func (l *lazyPlugins) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.manager == nil {
		return nil
	}
	return l.manager.Close()
}
