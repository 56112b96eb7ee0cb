package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// samples are configs of a step that it should be able to run with: those of the fixtures
// first, then those of its help.
func (s *session) samples(t *pluginv1.StepType) []runFixture {
	known := s.fixtures.Steps[t.GetName()]
	var all []runFixture
	for _, r := range known.Runs {
		if r.Machine == inMemory {
			all = append(all, r)
		}
	}
	for _, with := range known.Good {
		all = append(all, runFixture{With: with, anything: true})
	}
	// What is wrong with the examples is told by the check of the help.
	examples, _ := examples(t)
	for _, with := range examples {
		schema := s.schemas[t.GetName()]
		if !expression.Match(with) && (schema == nil || len(violations(schema, with)) == 0) {
			all = append(all, runFixture{With: document(with), anything: true})
		}
	}
	return all
}

// tempText stands for a folder of the test's own in the texts of a config.
var tempText = regexp.MustCompile(`\$\{\{ *temp *\}\}`)

// config returns a config as the plugin gets it.
func (s *session) config(with document) (json.RawMessage, error) {
	config, err := with.config()
	if err != nil || !tempText.Match(config) {
		return config, err
	}
	dir, err := os.MkdirTemp(s.dir, "temp-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for a config: %w", err)
	}
	// The path is between quotes; its own are escaped.
	text, err := json.Marshal(dir)
	return tempText.ReplaceAllLiteral(config, text[1:len(text)-1]), err
}

// job makes what a step is run on, in memory.
func (s *session) job(t *pluginv1.StepType, f runFixture) (job, *memory, error) {
	config, err := s.config(f.With)
	if err != nil {
		return job{}, nil, err
	}
	j := job{step: t.GetName(), config: config, env: map[string]string{secretEnv: s.secret}, inputs: map[string]step.Input{}}
	maps.Copy(j.env, f.Env)
	for _, name := range f.Inputs {
		in, err := s.project.Input(name)
		if err != nil {
			return job{}, nil, fmt.Errorf("open the input %q: %w", name, err)
		}
		j.inputs[name] = in
	}
	m := newMemory(f.Files, f.Commands)
	m.anything = f.anything
	switch section(t, f) {
	case step.Customize:
		j.machine = m
	case step.Tests:
		j.machine, j.image = &guest{memory: m, ports: f.Ports, console: f.Console}, s.image
	default:
		j.image = s.image
	}
	return j, m, nil
}

func section(t *pluginv1.StepType, f runFixture) step.Section {
	if f.Section != "" || len(t.GetSections()) == 0 {
		return f.Section
	}
	return step.Section(t.GetSections()[0])
}

// newImage makes a small image for steps that read one.
func newImage(dir string) (*step.ImageInfo, error) {
	const size = 1 << 20
	content := bytes.Repeat([]byte("gild image\n\x00\x00\x00\x00\x00"), size/16)
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, content, 0o400); err != nil {
		return nil, fmt.Errorf("write an image for the test: %w", err)
	}
	sum := sha256.Sum256(content)
	hash := hex.EncodeToString(sum[:])
	return &step.ImageInfo{Key: hash, Size: size, Files: []step.ImageFile{
		{Format: "raw", Path: path, Size: size, Allocated: size, SHA256: hash},
	}}, nil
}

// readBack compares files of a machine with what they should hold.
func readBack(ctx context.Context, m step.MachineHandle, want map[string]string) []string {
	var wrong []string
	for path, text := range want {
		var got strings.Builder
		if err := m.Get(ctx, path, &got); err != nil {
			wrong = append(wrong, fmt.Sprintf("read %s afterwards: %v", path, err))
		} else if got.String() != text {
			wrong = append(wrong, fmt.Sprintf("%s holds %q, not %q", path, got.String(), text))
		}
	}
	return wrong
}

// decode reads outputs.
func decode(text []byte) (map[string]any, error) {
	if len(text) == 0 {
		return map[string]any{}, nil
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("the outputs %.200q are no JSON object: %w", text, err)
	}
	return all, nil
}
