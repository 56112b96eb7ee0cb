package packages

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/schemas"
	"github.com/gildhq/gild/steps/internal/help"
)

//go:embed doc.go
var doc string

// Step is the step's declaration.
var Step = step.Define(step.Step{
	Name:      "packages",
	Version:   "1",
	Summary:   "install, remove, upgrade and hold packages with apt",
	Doc:       help.Text(doc),
	Schema:    schemas.Step("packages"),
	Sections:  []step.Section{step.Customize},
	Effect:    step.Machine,
	Cacheable: true,
}, run)

// Config is the step's `with`.
type Config struct {
	// Install are names, optionally with =version, :arch or /suite.
	Install []string `json:"install"`
	Remove  []string `json:"remove"`
	// Purge removes configuration files of what Remove names.
	Purge bool `json:"purge"`
	// Upgrade moves every installed package to the newest known version.
	Upgrade bool `json:"upgrade"`
	// Recommends installs recommended packages too.
	Recommends bool     `json:"recommends"`
	Hold       []string `json:"hold"`
}

func run(ctx context.Context, t *step.Target, c Config) (_ struct{}, err error) {
	facts, err := t.Machine.Facts(ctx)
	if err != nil {
		return struct{}{}, fmt.Errorf("ask what the machine is: %w", err)
	}
	if facts.PackageManager != "apt" {
		return struct{}{}, &step.Permanent{Err: fmt.Errorf("%s %s has no apt, the one package manager this step knows", facts.OS, facts.Version)}
	}
	a := &apt{target: t, recommends: c.Recommends}
	allow, err := a.forbidServices(ctx)
	if err != nil {
		return struct{}{}, fmt.Errorf("keep services from starting: %w", err)
	}
	defer func() {
		// The policy must go even when the step was cancelled.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if undo := allow(ctx); undo != nil {
			err = errors.Join(err, fmt.Errorf("let services start again: %w", undo))
		}
	}()
	return struct{}{}, a.apply(ctx, c)
}

// apply does what the config asks for, in the order in which its parts depend on each other.
func (a *apt) apply(ctx context.Context, c Config) error {
	if len(c.Remove) > 0 {
		verb := "remove"
		if c.Purge {
			verb = "purge"
		}
		if err := a.remove(ctx, verb, c.Remove); err != nil {
			return err
		}
	}
	if c.Upgrade || len(c.Install) > 0 {
		if err := a.needLists(ctx); err != nil {
			return fmt.Errorf("fetch the package lists: %w", err)
		}
	}
	if c.Upgrade {
		if err := a.twoPhases(ctx, "upgrade", "--with-new-pkgs"); err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
	}
	if len(c.Install) > 0 {
		if err := a.install(ctx, c.Install); err != nil {
			return fmt.Errorf("install %s: %w", strings.Join(c.Install, ", "), err)
		}
	}
	if len(c.Hold) > 0 {
		argv := append([]string{"apt-mark", "hold", "--"}, c.Hold...)
		if err := a.exec(ctx, step.Cmd{Argv: argv}); err != nil {
			return fmt.Errorf("hold %s: %w", strings.Join(c.Hold, ", "), err)
		}
	}
	if err := a.exec(ctx, step.Cmd{Argv: []string{"apt-get", "clean"}}); err != nil {
		return fmt.Errorf("remove downloaded packages: %w", err)
	}
	return nil
}

// install takes versions that the config names even if they are older than what is there.
func (a *apt) install(ctx context.Context, names []string) error {
	args := []string{"install"}
	if slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "=") }) {
		args = append(args, "--allow-downgrades")
	}
	return a.twoPhases(ctx, append(append(args, "--"), names...)...)
}

// environment is the step's own, and what keeps maintainer scripts from asking.
func (a *apt) environment() map[string]string {
	env := map[string]string{
		"DEBIAN_FRONTEND":             "noninteractive",
		"DEBCONF_NONINTERACTIVE_SEEN": "true",
		"LC_ALL":                      "C.UTF-8",
	}
	maps.Copy(env, a.target.Env)
	return env
}
