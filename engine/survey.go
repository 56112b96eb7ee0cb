package engine

import (
	"context"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
)

// Pipelines reads pipeline files and resolves them, a pipeline for each cell of a matrix.
// They are nil when there are diagnostics with errors.
func (l *Language) Pipelines(ctx context.Context, req Request) ([]*spec.Pipeline, diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil || diags.HasErrors() {
		return nil, diags, err
	}
	pipelines, _, more, err := l.resolve(ctx, &src, plan.NewInputChecker().Check)
	diags = append(diags, more...)
	diags.Sort()
	if diags.HasErrors() {
		pipelines = nil
	}
	return pipelines, diags, err
}

// Survey validates pipeline files, and then asks the clouds they build on whether they can
// be built there with the credentials at hand. It changes nothing.
func (e *Engine) Survey(ctx context.Context, req Request) ([]builder.Finding, diag.List, error) {
	src, diags, err := readSources(req)
	if err != nil {
		return nil, diags, err
	}
	pipelines, _, more, err := e.language.resolve(ctx, &src, plan.NewInputChecker().Check)
	diags = append(diags, more...)
	if err != nil || diags.HasErrors() {
		diags.Sort()
		return nil, diags, err
	}
	var all []builder.Finding
	for _, p := range pipelines {
		s, ok := e.builders[p.Builder].(builder.Surveyor)
		if !ok {
			continue
		}
		findings, found := s.Survey(ctx, p)
		all = append(all, findings...)
		diags = append(diags, found...)
	}
	for _, f := range src.Files {
		fillFrom(diags, f)
	}
	diags.Sort()
	return all, diags, ctx.Err()
}
