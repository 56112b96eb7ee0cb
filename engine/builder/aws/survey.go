package aws

import (
	"context"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/aws/access"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

var _ builder.Surveyor = (*Builder)(nil)

// Survey asks AWS for all that a pipeline needs there; see [access.Check].
func (b *Builder) Survey(ctx context.Context, p *spec.Pipeline) ([]builder.Finding, diag.List) {
	cloud := access.Cloud{Region: access.Regions(b.clients)}
	if p.Base.Image == nil {
		cloud.Base = func(ctx context.Context, p *spec.Pipeline) (builder.Base, error) { return b.Resolve(ctx, p, nil) }
	}
	found := access.Check(ctx, cloud, p)
	all := make([]builder.Finding, len(found))
	for i, f := range found {
		all[i] = f.Finding
	}
	return all, access.Diagnostics(found)
}
