package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine"
	"github.com/gildhq/gild/engine/diag"
	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
)

// fakePlugins stands in for installed plugins: acme/agent, whose config has a channel that
// must not be "old", and acme/gone, which isn't installed.
type fakePlugins struct{}

func (fakePlugins) Steps(_ context.Context, name string, _ lock.Plugin) ([]step.Step, error) {
	if name != "acme/agent" {
		return nil, errors.New("plugin acme/gone isn't installed; run gild plugin install")
	}
	return []step.Step{{
		Name: "acme/agent", Summary: "install the agent", Sections: []step.Section{step.Customize},
		Schema: []byte(`{"type": "object", "additionalProperties": false, "properties": {"channel": {"description": "Where from.", "type": "string"}}}`),
		Run:    func(context.Context, *step.Target, json.RawMessage) (step.Outputs, error) { return nil, nil },
		Validate: func(_ context.Context, config json.RawMessage) ([]step.Problem, error) {
			if strings.Contains(string(config), `"old"`) {
				return []step.Problem{{Pointer: "/channel", Message: "the channel old is closed", Hint: "use stable"}}, nil
			}
			return nil, nil
		},
	}}, nil
}

func (fakePlugins) Cleanup(context.Context, string, step.Resource) error { return nil }
func (fakePlugins) Sweep(context.Context, bool) ([]step.Resource, error) { return nil, nil }
func (fakePlugins) Withhold([]string)                                    {}

func supported(*spec.Pipeline) diag.List { return nil }

const locked = `gild: 1
plugins:
  acme/agent: {source: ./agent, version: 1.0.0, platforms: {any: {digest: "sha256:` + sum + `"}}}
  acme/gone: {source: ./gone, version: 1.0.0, platforms: {any: {digest: "sha256:` + sum + `"}}}
`

const sum = "0123456789012345678901234567890123456789012345678901234567890123"

func TestValidatePlugins(t *testing.T) {
	t.Parallel()
	const head = "gild: 1\nname: web\nrelease: 1.0.0\nmatrix: {size: [s, l]}\nbase: debian/12\ncustomize:\n"
	cases := []struct {
		name, step string
		want       []string
	}{
		{"good", "  - {uses: acme/agent, with: {channel: stable}}\n", nil},
		{"schema", "  - {uses: acme/agent, with: {chanel: stable}}\n", []string{"7:31 unknown-key"}},
		{"its own check", "  - uses: acme/agent\n    with: {channel: old}\n", []string{"8:21 bad-config"}},
		{"wrong place", "  - {uses: acme/agent}\ntests:\n  - {uses: acme/agent}\n", []string{"9:12 wrong-section"}},
		{"no such step", "  - {uses: acme/agent/upgrade}\n", []string{"7:12 unknown-step"}},
		{"not installed", "  - {uses: acme/gone}\n", []string{"7:12 plugin-unusable"}},
		{"not locked", "  - {uses: acme/other}\n", []string{"7:12 plugin-not-locked"}},
		{"the engine's own", "  - {uses: seal}\n", []string{"7:12 unknown-step"}},
	}
	language, err := engine.NewLanguage([]step.Step{{
		Name: "seal", Internal: true, Sections: []step.Section{step.Seal}, Schema: []byte(`{"type": "object"}`),
	}}, fakePlugins{}, supported)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "web.yaml")
			for path, text := range map[string]string{file: head + c.step, filepath.Join(dir, lock.Name): locked} {
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			diags, err := language.Validate(t.Context(), engine.Request{Files: []string{file}})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range diags {
				got = append(got, strings.TrimPrefix(d.Pos.String(), file+":")+" "+d.Code)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("diagnostics (-want +got):\n%s\n%v", diff, diags)
			}
		})
	}
}

func TestSchemaHasPlugins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, lock.Name), []byte(locked), 0o644); err != nil {
		t.Fatal(err)
	}
	language, err := engine.NewLanguage(nil, fakePlugins{}, supported)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := language.Schema(t.Context(), dir)
	if err != nil || !strings.Contains(string(schema), "Where from.") {
		t.Errorf("the schema of a folder with plugins: %v\n%.300s", err, schema)
	}
	if schema, err = language.Schema(t.Context(), t.TempDir()); err != nil || strings.Contains(string(schema), "Where from.") {
		t.Errorf("the schema of a folder without a lock: %v", err)
	}
}
