package engine

import (
	"context"
	"strings"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/run"
)

// Where machine states don't stack, the steps of an image change one machine after
// another: its bench. It lives from the first step that opens it until nothing that could
// use it is left to run.

const benchPrefix = "bench "

func (x *execution) benchName(n *plan.Node) string { return benchPrefix + x.run + " " + n.Image.Name }

// machineLedger is where a step's machine is recorded: with the step, or with the bench.
func (x *execution) machineLedger(a *run.Attempt, n *plan.Node) builder.Ledger {
	if n.Image.Whole {
		return a.Shared(x.benchName(n))
	}
	return a
}

// release ends what several nodes shared: a guest or a bench.
func (x *execution) release(ctx context.Context, name string) error {
	if !strings.HasPrefix(name, benchPrefix) {
		return x.guests.release(ctx, name)
	}
	for _, img := range x.plan.Images {
		if benchPrefix+x.run+" "+img.Name == name {
			return x.builderOf(img.Pipeline).Release(ctx, name)
		}
	}
	return nil
}
