package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws"
	"github.com/gildhq/gild/engine/builder/local"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/steps"
)

// makeBuilders makes the builders of this gild.
func makeBuilders(state string, cloud aws.Config) ([]builder.Builder, error) {
	onHost, err := local.New(state)
	if err != nil {
		return nil, fmt.Errorf("%w; name another state folder with --state", err)
	}
	cloud.Timing = awsTiming()
	onAWS, err := aws.New(cloud)
	if err != nil {
		return nil, err
	}
	return []builder.Builder{onHost, onAWS}, nil
}

// builders makes the builders, and says which state folder they keep.
func (a *app) builders() (_ []builder.Builder, state string, err error) {
	if state, err = engine.StateFolder(a.state); err != nil {
		return nil, "", err
	}
	makers, err := a.makeBuilders(state, a.cloud)
	return makers, state, err
}

// withLanguage has what pipeline files are read with, and needs no state folder unless a
// plugin is used.
func (a *app) withLanguage(fn func(*engine.Language) error) (err error) {
	installed := a.lazyPlugins()
	defer func() { err = errors.Join(err, installed.Close()) }()
	l, err := engine.NewLanguage(steps.All(), installed, unsupported)
	if err != nil {
		return err
	}
	return fn(l)
}

// withEngine opens the state folder for the length of fn.
func (a *app) withEngine(ctx context.Context, fn func(*engine.Engine) error) (err error) {
	makers, state, err := a.builders()
	if err != nil {
		return err
	}
	installed := a.lazyPlugins()
	defer func() { err = errors.Join(err, installed.Close()) }()
	e, err := engine.Open(ctx, engine.Config{
		State: state, Steps: steps.All(), Plugins: installed, Builders: makers, Version: buildVersion().Version,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return fn(e)
}

// unsupported asks the builder that a pipeline chooses, without a state folder.
func unsupported(p *spec.Pipeline) diag.List {
	known := map[string]builder.Builder{local.Kind: new(local.Builder), aws.Kind: new(aws.Builder)}
	if b, ok := known[p.Builder]; ok {
		return b.Unsupported(p)
	}
	return engine.UnknownBuilder(p, known)
}
