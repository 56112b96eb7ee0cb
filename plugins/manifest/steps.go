package manifest

import (
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gildhq/gild/engine/step"
)

var (
	stepKeys    = []string{"name", "summary", "doc", "sections", "cacheable", "validates", "keyed", "command", "schema", "outputs"}
	sections    = []string{string(step.Customize), string(step.Tests), string(step.Publish)}
	outputTypes = []string{"string", "integer", "number", "boolean", "list"}

	stepName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)+$`)
	outputName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]*$`)
)

const maxSteps = 256

func (r *reader) steps(top map[string]field, m *Manifest) []Step {
	f, ok := top["steps"]
	if !ok || !r.is(f.value, yaml.SequenceNode, "steps", "a list") {
		return nil
	}
	if len(f.value.Content) == 0 {
		r.mistake(f.value, "a plugin has at least one step")
	}
	if len(f.value.Content) > maxSteps {
		r.mistake(f.value, "the plugin has %d steps; at most %d are allowed", len(f.value.Content), maxSteps)
		return nil
	}
	var all []Step
	lines := map[string]int{}
	for _, n := range f.value.Content {
		fields := r.fields(n, "a step", stepKeys)
		if fields == nil {
			continue
		}
		s := r.step(n, fields, m)
		if first, ok := lines[s.Name]; ok && s.Name != "" {
			r.mistake(n, "a step named %q stands on line %d already", s.Name, first)
		} else {
			lines[s.Name] = n.Line
		}
		all = append(all, s)
	}
	return all
}

func (r *reader) step(n *yaml.Node, fields map[string]field, m *Manifest) Step {
	r.required(n, fields, "name", "summary", "sections", "schema")
	s := Step{
		Name:      r.stepName(fields, m.Name),
		Summary:   r.text(fields, "summary"),
		Doc:       r.text(fields, "doc"),
		Sections:  r.sections(fields),
		Cacheable: r.boolean(fields, "cacheable"),
		Validates: r.boolean(fields, "validates"),
		Keyed:     r.boolean(fields, "keyed"),
		Command:   r.command(fields),
		Outputs:   r.outputs(fields),
	}
	if strings.ContainsAny(s.Summary, "\r\n") {
		r.mistake(fields["summary"].value, "the summary has more than one line; the rest belongs into doc")
	}
	if _, own := fields["command"]; !own {
		s.Command = m.Command
		if len(m.Command) == 0 {
			r.mistake(n, "neither the step nor the plugin has a command")
		}
	}
	if f, ok := fields["schema"]; ok {
		s.Schema = r.schema(f.value)
	}
	return s
}

func (r *reader) stepName(fields map[string]field, plugin string) string {
	name := r.text(fields, "name")
	switch {
	case name == "":
	case !stepName.MatchString(name):
		r.mistake(fields["name"].value, "%q is no name of a step; one looks like acme/agent or acme/agent/upgrade", name)
	case plugin != "" && name != plugin && !strings.HasPrefix(name, plugin+"/"):
		r.mistake(fields["name"].value, "the step's name %q is neither the plugin's, %q, nor that with a further part", name, plugin)
	}
	return name
}

func (r *reader) sections(fields map[string]field) []step.Section {
	names, nodes := r.list(fields, "sections", len(sections))
	if f, ok := fields["sections"]; ok && f.value.Kind == yaml.SequenceNode && len(f.value.Content) == 0 {
		r.mistake(f.value, "a step stands in at least one section")
	}
	var all []step.Section
	for i, name := range names {
		switch {
		case !slices.Contains(sections, name):
			r.unknown(nodes[i], "section", name, sections)
		case slices.Contains(names[:i], name):
			r.mistake(nodes[i], "the section %s stands twice", name)
		}
		all = append(all, step.Section(name))
	}
	if len(all) > 1 && slices.Contains(all, step.Customize) {
		r.mistake(fields["sections"].value, "a step changes a machine, in customize, or works on an image, elsewhere; make it two steps")
	}
	return all
}

func (r *reader) outputs(fields map[string]field) map[string]string {
	f, ok := fields["outputs"]
	if !ok {
		return nil
	}
	types := r.fields(f.value, "outputs", nil)
	all := make(map[string]string, len(types))
	for name, t := range types {
		if !outputName.MatchString(name) {
			r.mistake(t.key, "%q is no name of an output: letters, digits, - and _", name)
		}
		all[name] = r.one(types, name, outputTypes, "")
	}
	return all
}
