package host

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

func goodDescription() *pluginv1.DescribeResponse {
	return &pluginv1.DescribeResponse{Name: "acme/agent", Version: "1.4.0-rc.1+5", Steps: []*pluginv1.StepType{
		goodStep("acme/agent"), goodStep("acme/agent/upgrade"),
	}}
}

func goodStep(name string) *pluginv1.StepType {
	return &pluginv1.StepType{
		Name: name, Summary: "installs the agent", Doc: "Help.\n\n\tuses: acme/agent\n", Schema: []byte(`{"type":"object"}`),
		Outputs: map[string]string{"version": "string"}, Sections: []string{"tests", "publish"},
	}
}

func TestCheckDescription(t *testing.T) {
	t.Parallel()
	type description = pluginv1.DescribeResponse
	first := func(change func(*pluginv1.StepType)) func(*description) {
		return func(d *description) { change(d.Steps[0]) }
	}
	cases := []struct {
		name     string
		manifest manifest.Manifest
		change   func(*description)
		want     []string // nil: it is good
	}{
		{name: "good", change: func(*description) {}},
		{name: "as the manifest says", manifest: manifest.Manifest{Name: "acme/agent", Version: "1.4.0-rc.1+5"}, change: func(*description) {}},
		{"another name than the manifest's", manifest.Manifest{Name: "acme/other"}, func(*description) {}, []string{`it calls itself "acme/agent", and its manifest says "acme/other"`}},
		{"another version than the manifest's", manifest.Manifest{Version: "2.0.0"}, func(*description) {}, []string{`it says it has version "1.4.0-rc.1+5", and its manifest says "2.0.0"`}},
		{"no name", manifest.Manifest{}, func(d *description) { d.Name = "" }, []string{`"" is no name of a plugin`}},
		{"a bad name", manifest.Manifest{}, func(d *description) { d.Name = "acme/../agent" }, []string{`"acme/../agent" is no name of a plugin; one looks like acme/agent`}},
		{"a long name", manifest.Manifest{}, func(d *description) { d.Name = "acme/" + long(200) }, []string{`xxx..." is no name of a plugin`}},
		{"a bad version", manifest.Manifest{}, func(d *description) { d.Version = "v1" }, []string{`"v1" is no semantic version, such as 1.4.0`}},
		{"no steps", manifest.Manifest{}, func(d *description) { d.Steps = nil }, []string{"it has 0 steps; a plugin has 1 to 256"}},
		{"many steps", manifest.Manifest{}, func(d *description) { d.Steps = make([]*pluginv1.StepType, 257) }, []string{"it has 257 steps"}},
		{"two of a name", manifest.Manifest{}, func(d *description) { d.Steps[1].Name = "acme/agent" }, []string{`two steps have the name "acme/agent"`}},
		{"another's step", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Name = "acme/agents" }), []string{`step "acme/agents": its name is neither the plugin's, "acme/agent", nor that with a further part, such as "acme/agent/upgrade"`}},
		{"a built-in's name", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Name = "shell" }), []string{`step "shell": its name is neither`}},
		{"no summary", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Summary = "" }), []string{`step "acme/agent": its summary is not one line of 1 to 200 bytes`}},
		{"two lines of summary", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Summary = "a\nb" }), []string{"its summary is not one line"}},
		{"a doc for the terminal", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Doc = "\x1b[2J" }), []string{"its doc is not text of at most 256.0 KiB"}},
		{"a doc for the terminal in 8 bits", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Doc = "\u009b2J" }), []string{"its doc is not text of at most 256.0 KiB"}},
		{"a summary that is turned round", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Summary = "a\u202eb" }), []string{"its summary is not one line"}},
		{"a long doc", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Doc = long(maxDoc + 1) }), []string{"its doc is not text of at most 256.0 KiB"}},
		{"no sections", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Sections = nil }), []string{"it names no section to stand in"}},
		{"another section", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Sections = []string{"retain"} }), []string{`it names the section "retain", which is none of customize, tests, publish`}},
		{"a section twice", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Sections = []string{"tests", "tests"} }), []string{"it names the section tests twice"}},
		{"two effects", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Sections = []string{"tests", "customize"} }), []string{"it stands in customize and elsewhere"}},
		{"a bad output", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Outputs = map[string]string{"a b": "object"} }), []string{`"a b" is no name of an output`, `output "a b" has the type "object", which is none of string, integer, number, boolean, list`}},
		{"many outputs", manifest.Manifest{}, first(func(s *pluginv1.StepType) {
			s.Outputs = map[string]string{}
			for i := range maxOutputs + 1 {
				s.Outputs[long(i+1)] = "string"
			}
		}), []string{"it has 65 outputs, of at most 64"}},
		{"no schema", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Schema = nil }), []string{"its schema: it has 0 bytes"}},
		{"a large schema", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Schema = []byte(`{"description":"` + long(maxSchema) + `"}`) }), []string{"its schema: it has 256.0 KiB"}},
		{"no JSON", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Schema = []byte("{") }), []string{"its schema: "}},
		{"no schema but JSON", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Schema = []byte(`{"type":"text"}`) }), []string{"its schema: "}},
		{"a schema that reads a file", manifest.Manifest{}, first(func(s *pluginv1.StepType) { s.Schema = []byte(`{"$ref":"file:///etc/passwd"}`) }), []string{"file:///etc/passwd is outside of the schema"}},
		{"all at once", manifest.Manifest{}, func(d *description) { d.Name, d.Version, d.Steps[1].Summary = "A", "B", "" }, []string{`"A" is no name`, `"B" is no semantic version`, "its summary is not"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := goodDescription()
			c.change(d)
			err := checkDescription(c.manifest, d)
			if c.want != nil {
				wantError(t, err, c.want...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// Whatever a plugin says, it is taken or refused, and what is taken makes steps.
func FuzzDescription(f *testing.F) {
	good, err := proto.Marshal(goodDescription())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(strings.Replace(string(good), `{"type":"object"}`, `{"minimum":1e999}`, 1)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := &pluginv1.DescribeResponse{}
		if proto.Unmarshal(raw, d) != nil || checkDescription(manifest.Manifest{}, d) != nil {
			return
		}
		for _, s := range d.GetSteps() {
			if !strings.HasPrefix(s.GetName(), d.GetName()) || len(s.GetSections()) == 0 || len(s.GetSchema()) == 0 {
				t.Errorf("a bad step was taken: %v", s)
			}
		}
	})
}

// Whatever a step returns, it is taken as it is declared or refused.
func FuzzOutputs(f *testing.F) {
	for _, seed := range []string{`{"s":"","i":1,"n":1.5,"b":true,"l":[]}`, `{"s":null}`, `{"i":1e400}`, `[]`, `null`, "\xff", ""} {
		f.Add([]byte(seed))
	}
	declared := &pluginv1.StepType{Outputs: map[string]string{"s": "string", "i": "integer", "n": "number", "b": "boolean", "l": "list"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := outputs(declared, raw)
		if (err == nil) != (len(out) == len(declared.GetOutputs())) {
			t.Errorf("%q gives %v, %v", raw, out, err)
		}
	})
}
