package retain

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

// Step is the step's declaration. It is never cached: what is old changes with time.
var Step = step.Define(step.Step{
	Name:     "retain",
	Version:  "1",
	Summary:  "retire older builds of the image",
	Doc:      help.Text(doc),
	Schema:   schemas.Step("retain"),
	Outputs:  map[string]string{"retired": "list"},
	Internal: true,
	Sections: []step.Section{step.Retain},
	Effect:   step.Image,
}, run)

// Config is the step's `with`.
type Config struct {
	// Keep is how many of the newest builds stay; 0 means no limit.
	Keep int `json:"keep"`
	// MaxAge lets older builds go whatever Keep says; zero means no limit.
	MaxAge step.Duration `json:"max-age"`
	// MinAge keeps younger builds whatever the other two say.
	MinAge step.Duration `json:"min-age"`
}

// Outputs are the step's results.
type Outputs struct {
	// Retired has one line for each build that was removed.
	Retired []string `json:"retired"`
}

func run(ctx context.Context, t *step.Target, c Config) (Outputs, error) {
	gone, err := t.Registry.Retain(ctx, step.RetainRule{
		Keep: c.Keep, MaxAge: c.MaxAge.Duration, MinAge: c.MinAge.Duration,
	})
	out := Outputs{Retired: []string{}}
	for _, r := range gone {
		line := fmt.Sprintf("%s build %d (%s): %s", r.Name, r.Build, r.ID, r.Reason)
		fmt.Fprintln(t.Log, "retired", line)
		out.Retired = append(out.Retired, line)
	}
	if err != nil {
		return Outputs{}, fmt.Errorf("retire older builds: %w", err)
	}
	return out, nil
}
