package engine

import (
	"context"
	"strings"
)

// OpenClaims counts the resources in the state folder that steps of a plugin claimed and
// that nobody has removed yet, those of runs in progress too. plugin is
// [step.Step.Plugin], such as "acme/agent@sha256:...": only its content can remove them.
func (e *Engine) OpenClaims(ctx context.Context, plugin string) (int, error) {
	intents, err := e.journal.OpenIntents(ctx, "")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, in := range intents {
		if rest, ok := strings.CutPrefix(in.Resource.Kind, claimPrefix); ok && strings.HasPrefix(rest, plugin+" ") {
			n++
		}
	}
	return n, nil
}
