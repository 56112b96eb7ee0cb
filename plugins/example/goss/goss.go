package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/gildhq/gild/plugins/sdk"
)

// Config is the step's `with`.
type Config struct {
	// The goss file; or a folder with goss.yaml and the files that it includes.
	File string `json:"file" jsonschema:"format=gild-path,minLength=1"`
	// A YAML or JSON file with the variables of the goss file's templates.
	Vars string `json:"vars,omitempty" jsonschema:"format=gild-path"`
	// How long to try again while something doesn't hold yet; once unless given.
	Within sdk.Duration `json:"within,omitzero"`
}

// Outputs are the step's outputs.
type Outputs struct {
	// Count is how many assertions held, Skipped how many goss skipped.
	Count   int `json:"count"`
	Skipped int `json:"skipped"`
}

// pause lies between two tries.
const pause = time.Second

// remoteDir is where everything is put in the guest; it is removed afterwards. /tmp and
// /run won't do: hardened systems run no programs there.
const remoteDir = "/var/lib/gild-goss"

// tool is the folder that holds goss, once for each architecture.
type tool string

// run puts goss and its files into the guest and validates until all holds or the time is up.
func (d tool) run(ctx context.Context, t *sdk.Target, c Config) (out Outputs, err error) {
	if t.Machine == nil {
		return Outputs{}, &sdk.Permanent{Err: errors.New("there is no guest; put the step into tests")}
	}
	cmd, err := d.install(ctx, t, c)
	if err != nil {
		return Outputs{}, err
	}
	defer func() { err = errors.Join(err, tidy(ctx, t)) }()
	for deadline := time.Now().Add(c.Within.Duration); ; {
		r, err := validate(ctx, t, cmd)
		if err != nil {
			return Outputs{}, err
		}
		failed := r.failed()
		if len(failed) > 0 && time.Now().Add(pause).Before(deadline) {
			if err := sleep(ctx, pause); err != nil {
				return Outputs{}, err
			}
			continue
		}
		r.log(t.Log)
		if len(failed) > 0 {
			return Outputs{}, &sdk.TestFailed{Checks: failed}
		}
		return Outputs{Count: r.count(held), Skipped: r.count(skipped)}, nil
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// install puts goss, the goss file and the variables into the guest and returns the command.
func (d tool) install(ctx context.Context, t *sdk.Target, c Config) (sdk.Cmd, error) {
	facts, err := t.Machine.Facts(ctx)
	if err != nil {
		return sdk.Cmd{}, fmt.Errorf("ask the guest for its architecture: %w", err)
	}
	program, err := os.Open(filepath.Join(string(d), "goss-"+facts.Arch))
	if errors.Is(err, os.ErrNotExist) {
		return sdk.Cmd{}, &sdk.Permanent{Err: fmt.Errorf("this plugin was built without a goss for %s", facts.Arch)}
	}
	if err != nil {
		return sdk.Cmd{}, err
	}
	defer program.Close()
	goss := path.Join(remoteDir, "goss")
	if err := put(ctx, t, goss, 0o755, program); err != nil {
		return sdk.Cmd{}, err
	}
	spec := path.Join(remoteDir, "spec")
	file, err := putInput(ctx, t, c.File, spec)
	if err != nil {
		return sdk.Cmd{}, err
	}
	argv := []string{goss, "--gossfile", file}
	if c.Vars != "" {
		vars, err := putInput(ctx, t, c.Vars, path.Join(remoteDir, "vars"))
		if err != nil {
			return sdk.Cmd{}, err
		}
		argv = append(argv, "--vars", vars)
	}
	argv = append(argv, "validate", "--format", "json", "--format-options", "sort", "--no-color")
	return sdk.Cmd{Argv: argv, Env: t.Env, Dir: spec}, nil
}

// putInput puts an input into a folder of the guest and returns the path of the file in it
// that matters: the file, or a folder's goss.yaml.
func putInput(ctx context.Context, t *sdk.Target, name, dir string) (string, error) {
	input, ok := t.Inputs[name]
	if !ok {
		return "", fmt.Errorf("%q is none of the step's inputs", name)
	}
	main := path.Base(filepath.ToSlash(name))
	if input.IsDir() {
		main = "goss.yaml"
	}
	found := false
	for _, f := range input.Files() {
		if !f.Mode.IsRegular() {
			continue // goss makes no use of empty folders; a link's target may not be there
		}
		to := f.Path
		if !input.IsDir() {
			to = main
		}
		found = found || to == main
		if err := putFile(ctx, t, input, f.Path, path.Join(dir, to)); err != nil {
			return "", fmt.Errorf("put %s: %w", path.Join(name, f.Path), err)
		}
	}
	if !found {
		return "", &sdk.Permanent{Err: fmt.Errorf("the folder %s has no %s", name, main)}
	}
	return path.Join(dir, main), nil
}

func putFile(ctx context.Context, t *sdk.Target, input sdk.Input, rel, to string) error {
	from, err := input.Open(rel)
	if err != nil {
		return err
	}
	defer from.Close()
	return put(ctx, t, to, 0o600, from)
}

func put(ctx context.Context, t *sdk.Target, to string, mode os.FileMode, from io.Reader) error {
	return t.Machine.Put(ctx, sdk.PutFile{Path: to, Mode: mode, Parents: true}, from)
}

// tidy removes what was put into the guest, for the tests that come after this one.
func tidy(ctx context.Context, t *sdk.Target) error {
	if ctx.Err() != nil {
		return nil // the guest goes too
	}
	if err := t.Machine.Exec(ctx, sdk.Cmd{Argv: []string{"rm", "-rf", remoteDir}}); err != nil {
		return fmt.Errorf("remove goss from the guest: %w", err)
	}
	return nil
}
