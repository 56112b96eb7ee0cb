package buildertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/builder"
	"github.com/gildhq/gild/engine/plan"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// Fixture is a builder to hold against the contract.
type Fixture struct {
	// New makes another builder on the same storage, as another process would.
	New func(t *testing.T) builder.Builder
	// Pipeline has a base that boots, and settings that make small images.
	Pipeline *spec.Pipeline
	// Region is one that images can be copied to.
	Region string
	// Sweep says where to look for debris.
	Sweep builder.SweepRequest
}

const (
	runID = "20261123-120000-suite1"
	note  = "/var/lib/buildertest"
)

// Run holds a builder against the contract. Its parts build on one another, as those of a
// build do.
func Run(t *testing.T, f Fixture) {
	s := &suite{Fixture: f, b: f.New(t), bench: "bench " + runID + " suite", shared: NewLedger(runID, "suite/bench")}
	t.Cleanup(func() { s.end(t) })
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"ResolvesTheSameBaseFromTheLock", s.resolve},
		{"MakesTheBase", s.makeBase},
		{"DropsWhatIsNotCommitted", s.dropped},
		{"KeepsWhatIsCommitted", s.committed},
		{"CleansUpAfterACrash", s.crash},
		{"MakesAnImage", s.makeImage},
		{"FinishesIt", s.finish},
		{"BootsIt", s.boot},
		{"BootsItUnchanged", s.boot},
		{"PublishesIt", s.publish},
		{"CopiesIt", s.copied},
		{"StartsFromIt", s.imageBase},
		{"RefusesUnknownKinds", s.unknown},
		{"RemovesIt", s.remove},
		{"LeavesNothing", s.nothing},
	} {
		if !t.Run(part.name, part.run) {
			return
		}
	}
}

// suite is the state of one Run.
type suite struct {
	Fixture
	b      builder.Builder
	bench  string
	shared *Ledger
	base   builder.Base
	info   step.ImageInfo
	copy   string
}

func key(name string) string { return plan.Key(map[string]string{"buildertest": name}) }

func (s *suite) clock() time.Time { return s.base.Clock.UTC().Truncate(time.Second) }

// ledger is what a step's machine is recorded in.
func (s *suite) ledger(node string) *Ledger {
	if s.b.Stacks() {
		return NewLedger(runID, "suite/"+node)
	}
	return s.shared
}

func (s *suite) open(t *testing.T, l *Ledger, name string, checkpoint bool, below ...string) builder.Machine {
	t.Helper()
	req := builder.OpenRequest{
		Pipeline: s.Pipeline, Base: s.base, Layers: append([]string(nil), s.base.Layers...), Key: key(name), Bench: s.bench,
		Checkpoint: checkpoint, Clock: s.clock(), Log: t.Output(),
	}
	for _, b := range below {
		req.Layers = append(req.Layers, key(b))
	}
	m, err := s.b.Open(t.Context(), l, req)
	if err != nil {
		t.Fatalf("open a machine for %s: %v", name, err)
	}
	return m
}

// put writes a line into a file of the machine, and reads it back.
func put(t *testing.T, m step.MachineHandle, name, text string) {
	t.Helper()
	file := step.PutFile{Path: note + "/" + name, Mode: 0o640, Parents: true}
	if err := m.Put(t.Context(), file, strings.NewReader(text)); err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
	if got := get(t, m, name); got != text {
		t.Fatalf("put %q into %s and got %q", text, name, got)
	}
}

// get reads a file; the empty text stands for one that isn't there.
func get(t *testing.T, m step.MachineHandle, name string) string {
	t.Helper()
	var b bytes.Buffer
	err := m.Get(t.Context(), note+"/"+name, &b)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return b.String()
}

func output(t *testing.T, m step.MachineHandle, argv ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := m.Exec(t.Context(), step.Cmd{Argv: argv, Stdout: &out, Stderr: t.Output()}); err != nil {
		t.Fatalf("%s: %v", strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(out.String())
}

func settled(t *testing.T, l *Ledger) {
	t.Helper()
	if open := l.Open(); len(open) > 0 {
		t.Errorf("claims are open: %v", open)
	}
}

func (s *suite) resolve(t *testing.T) {
	base, err := s.b.Resolve(t.Context(), s.Pipeline, nil)
	if err != nil {
		t.Fatal(err)
	}
	if base.ID == "" || base.Summary == "" || base.Clock.IsZero() || len(base.Lock) == 0 {
		t.Errorf("a base without id, summary, clock or lock: %+v", base)
	}
	again, err := s.New(t).Resolve(t.Context(), s.Pipeline, base.Lock)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != base.ID || !again.Clock.Equal(base.Clock) {
		t.Errorf("resolved to %q of %s, and from its lock to %q of %s", base.ID, base.Clock, again.ID, again.Clock)
	}
	s.base = base
}

func (s *suite) makeBase(t *testing.T) {
	l := NewLedger(runID, "suite/base")
	err := s.b.MakeBase(t.Context(), l, builder.BaseRequest{Pipeline: s.Pipeline, Base: s.base, Key: key("base"), Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	settled(t, l)
}

func (s *suite) dropped(t *testing.T) {
	l := s.ledger("dropped")
	m := s.open(t, l, "dropped", false, "base")
	if l.Seen() == 0 {
		t.Error("a machine was opened and nothing recorded")
	}
	facts, err := m.Facts(t.Context())
	if err != nil || facts.OS == "" || facts.Arch != s.Pipeline.Arch {
		t.Errorf("facts of the machine: %+v, %v", facts, err)
	}
	put(t, m, "dropped", "x")
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := s.b.HasState(t.Context(), s.Pipeline, key("dropped")); ok || err != nil {
		t.Errorf("a dropped state is stored: %v, %v", ok, err)
	}
	if s.b.Stacks() {
		settled(t, l)
	}
}

func (s *suite) committed(t *testing.T) {
	l := s.ledger("first")
	m := s.open(t, l, "first", true, "base")
	if got := get(t, m, "dropped"); got != "" {
		t.Errorf("what was dropped is there: %q", got)
	}
	put(t, m, "first", "one\n")
	s.commit(t, m)
	for name, of := range map[string]builder.Builder{"this": s.b, "another": s.New(t)} {
		if ok, err := of.HasState(t.Context(), s.Pipeline, key("first")); !ok || err != nil {
			t.Errorf("%s process doesn't find the state: %v, %v", name, ok, err)
		}
	}
	m = s.open(t, s.ledger("failed"), "failed", false, "base", "first")
	put(t, m, "failed", "x")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = s.open(t, s.ledger("second"), "second", false, "base", "first")
	if got := get(t, m, "first") + get(t, m, "failed"); got != "one\n" {
		t.Errorf("the state below isn't as it was committed: %q", got)
	}
	put(t, m, "second", "two\n")
	s.commit(t, m)
	if s.b.Stacks() {
		settled(t, l)
	}
}

func (s *suite) commit(t *testing.T, m builder.Machine) {
	t.Helper()
	if err := m.Commit(t.Context()); err != nil {
		t.Fatalf("commit: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatalf("close after a commit: %v", err)
	}
}

// crash opens a machine and forgets it, as a process does that is killed.
func (s *suite) crash(t *testing.T) {
	dead := s.New(t)
	l := NewLedger("20261123-120000-crash1", "suite/crash")
	_, err := dead.Open(t.Context(), l, builder.OpenRequest{
		Pipeline: s.Pipeline, Base: s.base, Layers: append(append([]string(nil), s.base.Layers...), key("base")), Key: key("crash"),
		Bench: "bench crash", Clock: s.clock(), Log: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Open()) == 0 {
		t.Error("an open machine has no claim")
	}
	l.Undo(t, s.b)
}

func (s *suite) makeImage(t *testing.T) {
	l := NewLedger(runID, "suite/disk")
	layers := append(append([]string(nil), s.base.Layers...), key("base"), key("first"), key("second"))
	info, err := s.b.MakeImage(t.Context(), l, builder.ImageRequest{
		Pipeline: s.Pipeline, Base: s.base, Layers: layers, Bench: s.bench, Key: key("image"), Name: "suite", Clock: s.clock(),
		Log: t.Output(), Progress: func(int64, int64, string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	settled(t, l)
	found, ok, err := s.New(t).FindImage(t.Context(), s.Pipeline, key("image"))
	if err != nil || !ok || found.Key != info.Key || found.Size != info.Size || found.ID != info.ID {
		t.Errorf("made %+v and found %+v, %v, %v", info, found, ok, err)
	}
	if _, ok, err := s.b.FindImage(t.Context(), s.Pipeline, key("nothing")); ok || err != nil {
		t.Errorf("found an image that was never made: %v, %v", ok, err)
	}
	if err := s.b.Release(t.Context(), s.bench); err != nil {
		t.Fatalf("release the bench: %v", err)
	}
	settled(t, s.shared)
	if err := s.b.Release(t.Context(), "bench that never was"); err != nil {
		t.Errorf("release a bench that was never made: %v", err)
	}
}

func (s *suite) finish(t *testing.T) {
	l := NewLedger(runID, "suite/files")
	info, err := s.b.Finish(t.Context(), l, builder.FinishRequest{Pipeline: s.Pipeline, Key: key("image"), Progress: func(int64, int64) {}})
	if err != nil {
		t.Fatal(err)
	}
	settled(t, l)
	if len(info.Files) == 0 && info.ID == "" {
		t.Errorf("an image that is neither files nor has an id: %+v", info)
	}
	for _, f := range info.Files {
		if f.SHA256 == "" || f.Size == 0 {
			t.Errorf("a file without digest or size: %+v", f)
		}
	}
	s.info = info
}

func (s *suite) boot(t *testing.T) {
	l := NewLedger(runID, "suite/boot")
	g, err := s.b.Boot(t.Context(), l, builder.BootRequest{
		Pipeline: s.Pipeline, Image: s.info, Firmware: s.Pipeline.Firmware()[0], Log: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Open()) == 0 {
		t.Error("a booted guest has no claim")
	}
	if got := get(t, g, "first") + get(t, g, "second") + get(t, g, "booted"); got != "one\ntwo\n" {
		t.Errorf("the image doesn't hold what the steps wrote, or holds what a guest did: %q", got)
	}
	put(t, g, "booted", "x")
	if g.PoweredOn().IsZero() || g.PoweredOn().After(time.Now()) {
		t.Errorf("powered on at %s", g.PoweredOn())
	}
	if id := output(t, g, "id", "-u"); id != "0" {
		t.Errorf("commands run as %s", id)
	}
	if err := g.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "exit 7"}}); !isExit(err, 7) {
		t.Errorf("a command that fails with 7: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	settled(t, l)
}

func isExit(err error, status int) bool {
	var exit *step.ExitError
	return errors.As(err, &exit) && exit.Status == status
}

func (s *suite) publish(t *testing.T) {
	l := NewLedger(runID, "suite/publish")
	for range 2 {
		err := s.b.PublishImage(t.Context(), l, builder.PublishRequest{
			Pipeline: s.Pipeline, Key: key("image"), ID: "suite-1", Build: 1,
			PublishRequest: step.PublishRequest{Name: "suite-1.0.0", Channel: "stable", Tags: map[string]string{"team": "tests"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	settled(t, l)
}

func (s *suite) copied(t *testing.T) {
	if location, ok, err := s.b.HasCopy(t.Context(), s.Pipeline, key("image"), s.Region); ok || err != nil {
		t.Fatalf("there is a copy before one was made: %s, %v, %v", location, ok, err)
	}
	l := NewLedger(runID, "suite/copy")
	var locations []string
	for range 2 {
		location, err := s.b.CopyImage(t.Context(), l, builder.CopyRequest{
			Pipeline: s.Pipeline, Key: key("image"), Region: s.Region, Progress: func(int64, int64) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		locations = append(locations, location)
	}
	settled(t, l)
	found, ok, err := s.New(t).HasCopy(t.Context(), s.Pipeline, key("image"), s.Region)
	if err != nil || !ok || locations[0] != locations[1] || found != locations[0] {
		t.Errorf("copied to %v and found %q, %v, %v", locations, found, ok, err)
	}
	s.copy = found
}

func (s *suite) imageBase(t *testing.T) {
	base, ok, err := s.b.ImageBase(t.Context(), s.Pipeline, key("image"))
	if err != nil || !ok || base.ID == "" || base.Image != key("image") {
		t.Fatalf("the image as a base: %+v, %v, %v", base, ok, err)
	}
	if _, ok, err := s.b.ImageBase(t.Context(), s.Pipeline, key("nothing")); ok || err != nil {
		t.Errorf("an image that was never made is a base: %v, %v", ok, err)
	}
}

func (s *suite) unknown(t *testing.T) {
	mine, err := s.b.Cleanup(t.Context(), builder.Resource{Kind: "somebody else's", ID: "x"})
	if mine || err != nil {
		t.Errorf("cleaned up what isn't its own: %v, %v", mine, err)
	}
}

func (s *suite) remove(t *testing.T) {
	places := []builder.Place{{Region: s.Region, Location: s.copy}}
	if s.info.ID != "" {
		places = append(places, builder.Place{Region: s.info.Region, Location: s.info.ID})
	}
	for range 2 {
		if err := s.b.RemoveImage(t.Context(), key("image"), places); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := s.b.FindImage(t.Context(), s.Pipeline, key("image")); ok || err != nil {
		t.Errorf("the image is still there: %v, %v", ok, err)
	}
	if _, ok, err := s.b.HasCopy(t.Context(), s.Pipeline, key("image"), s.Region); ok || err != nil {
		t.Errorf("its copy is still there: %v, %v", ok, err)
	}
}

// nothing sweeps, and finds only what a sweep is for.
func (s *suite) nothing(t *testing.T) {
	settled(t, s.shared)
	req := s.Sweep
	req.Busy = func(string) (bool, bool, error) { return false, true, nil }
	for _, dry := range []bool{true, false} {
		req.Dry = dry
		found, err := s.b.Sweep(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Removed) > 0 || !onlyCheckpoints(found.Left) {
			t.Errorf("a sweep found %v and left %v", found.Removed, found.Left)
		}
	}
}

// onlyCheckpoints allows the states that steps have left to be started from.
func onlyCheckpoints(left []builder.Left) bool {
	for _, l := range left {
		if !strings.Contains(fmt.Sprint(l.Kind, l.Note), "checkpoint") {
			return false
		}
	}
	return true
}

// end removes what a failed part left, so that a failure leaves nothing behind.
func (s *suite) end(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if err := s.b.Release(ctx, s.bench); err != nil {
		t.Errorf("release the bench: %v", err)
	}
	s.shared.Undo(t, s.b)
}
