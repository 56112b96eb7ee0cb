package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/step"
)

// FixturesName is the name of the file beside a plugin that says what its steps must do.
const FixturesName = "gild-plugin-test.yaml"

// maxFixtures bounds the file, in bytes.
const maxFixtures = 4 << 20

// fixtures is a gild-plugin-test.yaml. The zero value holds none.
type fixtures struct {
	path  string
	Steps map[string]stepFixtures `yaml:"steps"`
}

type stepFixtures struct {
	Good []document   `yaml:"good"`
	Bad  []badFixture `yaml:"bad"`
	Runs []runFixture `yaml:"runs"`
	// Cleanup are resources that Cleanup must take twice.
	Cleanup []resourceFixture `yaml:"cleanup"`
}

type badFixture struct {
	With document `yaml:"with"`
	// Pointer is the place that a diagnostic must name; nil means any.
	Pointer *string `yaml:"pointer"`
}

type resourceFixture struct {
	Kind string `yaml:"kind"`
	ID   string `yaml:"id"`
	Note string `yaml:"note"`
}

// runFixture is one run of a step, with what it works on and how it must end.
type runFixture struct {
	Name    string            `yaml:"name"`
	With    document          `yaml:"with"`
	Env     map[string]string `yaml:"env"`
	Inputs  []string          `yaml:"inputs"`
	Section step.Section      `yaml:"section"`
	Machine machineKind       `yaml:"machine"`
	Files   map[string]string `yaml:"files"`
	// Commands are what a machine in memory answers; it knows no others.
	Commands []commandFixture `yaml:"commands"`
	// Ports are what a guest in memory sends to who connects.
	Ports              map[int]string `yaml:"ports"`
	Console            string         `yaml:"console"`
	PrintsSecrets      bool           `yaml:"prints-secrets"`
	RunsUntilCancelled bool           `yaml:"runs-until-cancelled"`
	Expect             expectation    `yaml:"expect"`
	// anything makes the machine take commands that nothing is said of.
	anything bool
}

type machineKind string

const (
	inMemory    machineKind = "memory"
	realMachine machineKind = "real"
)

type commandFixture struct {
	Argv   []string `yaml:"argv"`
	Stdout string   `yaml:"stdout"`
	Stderr string   `yaml:"stderr"`
	Status int      `yaml:"status"`
}

type expectation struct {
	Outcome outcome             `yaml:"outcome"`
	Message string              `yaml:"message"`
	Outputs map[string]document `yaml:"outputs"`
	Log     []string            `yaml:"log"`
	Files   map[string]string   `yaml:"files"`
}

// outcome is how a run ends.
type outcome string

const (
	succeeded  outcome = "succeeded"
	failed     outcome = "failed"
	permanent  outcome = "permanent"
	testFailed outcome = "test-failed"
	skipped    outcome = "skipped"
	cancelled  outcome = "cancelled"
	notFound   outcome = "not-found"
)

var outcomes = []outcome{succeeded, failed, permanent, testFailed, skipped}

// readFixtures reads the file; one that isn't there holds nothing, unless it was asked for.
func readFixtures(path string, must bool) (fixtures, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !must {
		return fixtures{path: path}, nil
	}
	if err != nil {
		return fixtures{}, fmt.Errorf("read the fixtures: %w", err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxFixtures+1))
	if err != nil {
		return fixtures{}, fmt.Errorf("read %s: %w", path, err)
	}
	return parseFixtures(path, text)
}

func parseFixtures(path string, text []byte) (fixtures, error) {
	all := fixtures{path: path}
	if len(text) > maxFixtures {
		return fixtures{}, fmt.Errorf("%s has more than %d bytes", path, maxFixtures)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return fixtures{}, fmt.Errorf("%s: %w", path, err)
	}
	for name, s := range all.Steps {
		if err := s.check(); err != nil {
			return fixtures{}, fmt.Errorf("%s: step %q: %w", path, name, err)
		}
	}
	return all, nil
}

func (s *stepFixtures) check() error {
	for i, with := range s.Good {
		if _, err := with.config(); err != nil {
			return fmt.Errorf("good config %d: %w", i+1, err)
		}
	}
	for i := range s.Bad {
		if len(s.Bad[i].With) == 0 {
			return fmt.Errorf("bad config %d: the key \"with\" is missing", i+1)
		}
	}
	for i := range s.Runs {
		if err := s.Runs[i].check(); err != nil {
			return fmt.Errorf("run %d (%s): %w", i+1, s.Runs[i].Name, err)
		}
	}
	return nil
}

// check fills in defaults, too.
func (r *runFixture) check() error {
	if r.Machine == "" {
		r.Machine = inMemory
	}
	if r.Expect.Outcome == "" {
		r.Expect.Outcome = succeeded
	}
	_, err := r.With.config()
	switch {
	case err != nil:
		return err
	case r.Machine != inMemory && r.Machine != realMachine:
		return fmt.Errorf("the machine is %q, not memory or real", r.Machine)
	case r.Machine == realMachine && (len(r.Commands) > 0 || len(r.Ports) > 0 || r.Console != ""):
		return errors.New("commands, ports and console are of a machine in memory")
	case !slices.Contains(outcomes, r.Expect.Outcome):
		return fmt.Errorf("the outcome is %q, not one of %v", r.Expect.Outcome, outcomes)
	}
	for _, c := range r.Commands {
		if len(c.Argv) == 0 {
			return errors.New("a command has no argv")
		}
	}
	for _, files := range []map[string]string{r.Files, r.Expect.Files} {
		for path := range files {
			if !strings.HasPrefix(path, "/") {
				return fmt.Errorf("the file %q isn't absolute", path)
			}
		}
	}
	for _, in := range r.Inputs {
		if !filepath.IsLocal(in) {
			return fmt.Errorf("the input %q lies outside of the fixtures' folder", in)
		}
	}
	return nil
}

// expectedOutputs are the outputs that something is said of, as values.
func (e expectation) expectedOutputs() (map[string]any, error) {
	all := map[string]any{}
	for name, d := range e.Outputs {
		var v any
		if err := json.Unmarshal(d, &v); err != nil {
			return nil, err
		}
		all[name] = v
	}
	return all, nil
}
