package copy

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration. It is never cached: the registry looks whether the
// region still has the copy, which no key can tell.
var Step = step.Define(step.Step{
	Name:     "copy",
	Version:  "1",
	Summary:  "copy the published image to a region",
	Doc:      help.Text(doc),
	Schema:   schemas.Step("copy"),
	Outputs:  map[string]string{"location": "string"},
	Internal: true,
	Sections: []step.Section{step.Copy},
	Effect:   step.Image,
}, run)

// Config is the step's `with`.
type Config struct {
	Region string `json:"region"`
}

// Outputs are the step's results.
type Outputs struct {
	// Location is where the copy is, such as a folder.
	Location string `json:"location"`
}

func run(ctx context.Context, t *step.Target, c Config) (Outputs, error) {
	progress := func(done, total int64) { t.Progress(done, total, "bytes") }
	result, err := t.Registry.Copy(ctx, c.Region, progress)
	if err != nil {
		return Outputs{}, fmt.Errorf("copy to %s: %w", c.Region, err)
	}
	fmt.Fprintf(t.Log, "copied to %s: %s\n", result.Region, result.Location)
	return Outputs{Location: result.Location}, nil
}
