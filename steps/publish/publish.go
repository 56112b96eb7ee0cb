package publish

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

// Step is the step's declaration. It is never cached: asking the registry again is cheap,
// and only the registry knows whether the channel still points to the image.
var Step = step.Define(step.Step{
	Name:     "publish",
	Version:  "1",
	Summary:  "record the tested image in the catalog and move a channel to it",
	Doc:      help.Text(doc),
	Schema:   schemas.Step("publish"),
	Outputs:  map[string]string{"id": "string", "build": "integer"},
	Internal: true,
	Sections: []step.Section{step.Publish},
	Effect:   step.Image,
}, run)

// Config is the step's `with`.
type Config struct {
	// Name is the image's full name.
	Name string `json:"name"`
	// Channel is moved to the image; empty moves none.
	Channel string            `json:"channel"`
	Tags    map[string]string `json:"tags"`
	// DeprecateAfter counts from publication; zero means never.
	DeprecateAfter step.Duration `json:"deprecate-after"`
}

// Outputs are the step's results.
type Outputs struct {
	// ID is the image's id in the catalog.
	ID string `json:"id"`
	// Build counts from 1 within one name and release.
	Build int `json:"build"`
}

func run(ctx context.Context, t *step.Target, c Config) (Outputs, error) {
	result, err := t.Registry.Publish(ctx, step.PublishRequest{
		Name: c.Name, Channel: c.Channel, Tags: c.Tags, DeprecateAfter: c.DeprecateAfter.Duration,
	})
	if err != nil {
		return Outputs{}, fmt.Errorf("publish %q: %w", c.Name, err)
	}
	fmt.Fprintf(t.Log, "published %s, release %s, build %d\n", c.Name, t.Pipeline.Release, result.Build)
	return Outputs{ID: result.ID, Build: result.Build}, nil
}
