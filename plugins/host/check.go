package host

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/lock"
	"github.com/gildhq/gild/engine/plain"
	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// What a plugin may say of itself.
const (
	maxSteps   = 256
	maxSummary = 200
	maxDoc     = 256 << 10
	maxSchema  = 256 << 10
	maxOutputs = 64
	maxName    = 128
)

var (
	stepPart   = regexp.MustCompile(`^(/[a-z0-9][a-z0-9-]*)*$`)
	outputName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_-]*$`)

	sections    = []string{string(step.Customize), string(step.Tests), string(step.Publish)}
	outputTypes = []string{"string", "integer", "number", "boolean", "list"}
)

// checkDescription tells all that is wrong with what a plugin says of itself.
func checkDescription(m manifest.Manifest, d *pluginv1.DescribeResponse) error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if !lock.ValidPluginName(d.GetName()) || len(d.GetName()) > maxName {
		add("%q is no name of a plugin; one looks like acme/agent", clip(d.GetName()))
	}
	if !lock.ValidVersion(d.GetVersion()) {
		add("%q is no semantic version, such as 1.4.0", clip(d.GetVersion()))
	}
	if m.Name != "" && m.Name != d.GetName() {
		add("it calls itself %q, and its manifest says %q", clip(d.GetName()), m.Name)
	}
	if m.Version != "" && m.Version != d.GetVersion() {
		add("it says it has version %q, and its manifest says %q", clip(d.GetVersion()), m.Version)
	}
	if n := len(d.GetSteps()); n == 0 || n > maxSteps {
		add("it has %d steps; a plugin has 1 to %d", n, maxSteps)
		return errors.Join(wrong...)
	}
	seen := map[string]bool{}
	for _, t := range d.GetSteps() {
		if seen[t.GetName()] {
			add("two steps have the name %q", clip(t.GetName()))
		}
		seen[t.GetName()] = true
		for _, err := range checkStep(d.GetName(), t) {
			add("step %q: %w", clip(t.GetName()), err)
		}
	}
	return errors.Join(wrong...)
}

func checkStep(plugin string, t *pluginv1.StepType) (wrong []error) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if rest, ok := strings.CutPrefix(t.GetName(), plugin); !ok || !stepPart.MatchString(rest) || len(t.GetName()) > maxName {
		add("its name is neither the plugin's, %q, nor that with a further part, such as %q", clip(plugin), clip(plugin)+"/upgrade")
	}
	if s := t.GetSummary(); s == "" || len(s) > maxSummary || !plain.Is(s, "") {
		add("its summary is not one line of 1 to %d bytes", maxSummary)
	}
	if s := t.GetDoc(); len(s) > maxDoc || !plain.Is(s, "\n\r\t") {
		add("its doc is not text of at most %s", size(maxDoc))
	}
	if err := checkSections(t.GetSections()); err != nil {
		add("%w", err)
	}
	if n := len(t.GetOutputs()); n > maxOutputs {
		add("it has %d outputs, of at most %d", n, maxOutputs)
		return wrong
	}
	for _, name := range slices.Sorted(maps.Keys(t.GetOutputs())) {
		if !outputName.MatchString(name) || len(name) > maxName {
			add("%q is no name of an output: letters, digits, - and _", clip(name))
		}
		if kind := t.GetOutputs()[name]; !slices.Contains(outputTypes, kind) {
			add("output %q has the type %q, which is none of %s", clip(name), clip(kind), strings.Join(outputTypes, ", "))
		}
	}
	if err := checkSchema(t); err != nil {
		add("its schema: %w", err)
	}
	return wrong
}

func checkSections(names []string) error {
	if len(names) == 0 {
		return errors.New("it names no section to stand in")
	}
	for i, name := range names {
		if !slices.Contains(sections, name) {
			return fmt.Errorf("it names the section %q, which is none of %s", clip(name), strings.Join(sections, ", "))
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("it names the section %s twice", name)
		}
	}
	if len(names) > 1 && slices.Contains(names, string(step.Customize)) {
		return errors.New("it stands in customize and elsewhere: a step changes a machine or works on an image, not both; make it two")
	}
	return nil
}

// checkSchema compiles the schema as the engine will.
func checkSchema(t *pluginv1.StepType) error {
	if n := len(t.GetSchema()); n == 0 || n > maxSchema {
		return fmt.Errorf("it has %s; it has at least 1 byte, such as {}, and at most %s", size(int64(n)), size(maxSchema))
	}
	return spec.CheckSchema(step.Step{Name: t.GetName(), Schema: t.GetSchema()})
}

// clip keeps what a plugin says short in an error.
func clip(s string) string {
	const longest = 80
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "..."
}
