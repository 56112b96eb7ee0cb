package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/builder/local"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

const (
	// baseAge is how long the base of test machines is used before the archive is asked for
	// a newer one: what has left the archive can't be installed any more.
	baseAge = 7 * 24 * time.Hour
	// baseTime bounds the making of the base.
	baseTime = 30 * time.Minute
)

// testMachines makes the machines that plugins are tested on: Debian in namespaces, as
// builds have it. The base is made by the local builder and kept in the state folder; what
// a test does to a machine is thrown away. Not safe for concurrent use.
type testMachines struct {
	app *app

	builder builder.Builder // nil until the base is there
	base    builder.Base
	layers  []string
}

// testPipeline stands for the builds that would have such machines.
func testPipeline() *spec.Pipeline {
	return &spec.Pipeline{
		Name: "plugin-test", Arch: runtime.GOARCH, Builder: local.Kind,
		Base: spec.Base{Distro: &spec.DistroBase{Distro: "debian", Suite: "bookworm", Variant: "minbase"}},
	}
}

// Machine opens one. The error says what this host lacks for it.
func (t *testMachines) Machine(ctx context.Context) (step.MachineHandle, func() error, error) {
	if t.builder == nil {
		if err := t.prepare(ctx); err != nil {
			return nil, nil, err
		}
	}
	m, err := t.builder.Open(ctx, untold{}, builder.OpenRequest{
		Pipeline: testPipeline(), Base: t.base, Layers: t.layers, Clock: t.base.Clock,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("open it: %w", err)
	}
	return m, m.Close, nil
}

// prepare sees to it that the base is there.
func (t *testMachines) prepare(ctx context.Context) error {
	makers, state, err := t.app.builders()
	if err != nil {
		return err
	}
	for _, b := range makers {
		if b.Kind() != local.Kind {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, baseTime, fmt.Errorf("it took longer than %v", baseTime))
		defer cancel()
		if err := t.makeBase(ctx, b, filepath.Join(state, "plugins", "test")); err != nil {
			return lacking(engine.Examine(ctx, []builder.Builder{b}), err)
		}
		t.builder = b
		return nil
	}
	return errors.New("this gild has no local builder")
}

// makeBase resolves the base as the lock file of the folder has it, and makes it if need be.
func (t *testMachines) makeBase(ctx context.Context, b builder.Builder, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	l, err := lock.Read(dir)
	if err != nil {
		return err
	}
	p := testPipeline()
	name := p.Base.Distro.Distro + "/" + p.Base.Distro.Suite + "/" + p.Arch
	locked := l.Bases[name]
	if info, err := os.Stat(l.Path()); err == nil && time.Since(info.ModTime()) > baseAge {
		locked = nil
	}
	if t.base, err = b.Resolve(ctx, p, locked); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte("plugin test\x00" + t.base.ID))
	key := hex.EncodeToString(sum[:])
	there, err := b.HasState(ctx, p, key)
	if err != nil {
		return err
	}
	if !there {
		t.app.say("making a Debian system for the runs on a real machine; it is kept")
		var said ending
		if err := b.MakeBase(ctx, untold{}, builder.BaseRequest{Pipeline: p, Base: t.base, Key: key, Log: &said}); err != nil {
			return fmt.Errorf("%w\n%s", err, said)
		}
	}
	t.layers = slices.Concat(t.base.Layers, []string{key})
	l.Bases = map[string]map[string]string{name: t.base.Lock}
	if _, err := l.Save(); err != nil {
		return err
	}
	now := time.Now()
	if locked == nil {
		err = os.Chtimes(l.Path(), now, now) // the archive may have had nothing newer
	}
	return err
}

// lacking adds what doctor misses on this host.
func lacking(d engine.Doctor, err error) error {
	var missing []string
	for _, f := range d.Findings {
		if !f.OK && !f.Optional {
			missing = append(missing, fmt.Sprintf("%s (%s)", f.Name, f.Detail))
		}
	}
	if len(missing) == 0 {
		return err
	}
	err = fmt.Errorf("%w\n\"gild doctor\" misses %s", err, strings.Join(missing, ", "))
	if d.Install != "" {
		err = fmt.Errorf("%w\nto install what is missing: %s", err, d.Install)
	}
	return err
}

// untold is the ledger of work outside of a run: what a killed test leaves is found by the
// sweep of "gild gc", as nobody holds it.
type untold struct{}

// Intent implements builder.Ledger.
func (untold) Intent(context.Context, builder.Resource) (builder.Claim, error) { return untold{}, nil }

// Work implements builder.Ledger.
func (untold) Work() builder.Work { return builder.Work{Node: "plugin-test"} }

// Settle implements builder.Claim.
func (untold) Settle(context.Context) error { return nil }

// ending keeps the end of what is written to it.
type ending []byte

// maxEnding bounds it, in bytes.
const maxEnding = 4 << 10

var _ io.Writer = (*ending)(nil)

// Write implements io.Writer.
func (e *ending) Write(p []byte) (int, error) {
	all := append(*e, p...)
	*e = append((*e)[:0], all[max(0, len(all)-maxEnding):]...)
	return len(p), nil
}

// String implements fmt.Stringer.
func (e ending) String() string { return strings.TrimSpace(string(e)) }
