package builder

import (
	"context"

	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/spec"
)

// Finding is one thing a builder needs of the host, and whether it is there.
type Finding struct {
	// Name is what was looked for, such as "mmdebstrap".
	Name string
	OK   bool
	// Detail says what it is for, or what is wrong with it.
	Detail string
	// Packages are the Debian packages that would mend it; Fix is what else to do.
	Packages []string
	Fix      string
	// Optional says that only some pipelines need it, or that it only makes things faster.
	Optional bool
}

// Examiner is a builder that can look at the host it runs on.
type Examiner interface {
	// Examine looks for all that the builder needs. It changes nothing.
	Examine(ctx context.Context) []Finding
}

// Surveyor is a builder that can ask its cloud about a pipeline.
type Surveyor interface {
	// Survey asks whether a pipeline can be built with the credentials at hand. The
	// diagnostics are those findings that aren't well, each with its place in the file. It
	// changes nothing.
	Survey(ctx context.Context, p *spec.Pipeline) ([]Finding, diag.List)
}
