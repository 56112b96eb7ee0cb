package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/lock"
)

var (
	stepPart    = regexp.MustCompile(`^(/[a-z0-9][a-z0-9-]*)*$`)
	outputTypes = []string{"string", "integer", "number", "boolean", "list"}
)

// Check returns everything that is wrong with the plugin's declaration. [Serve] refuses to
// serve a plugin that doesn't pass.
func (p Plugin) Check() error {
	var errs []error
	if !lock.ValidPluginName(p.Name) {
		errs = append(errs, fmt.Errorf("the plugin's name %q is not like acme/agent: lower-case letters, digits and dashes", p.Name))
	}
	if !lock.ValidVersion(p.Version) {
		errs = append(errs, fmt.Errorf("the plugin's version %q is not like 1.2.0", p.Version))
	}
	if len(p.Steps) == 0 {
		errs = append(errs, errors.New("the plugin has no steps"))
	}
	seen := map[string]bool{}
	for _, s := range p.Steps {
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("two steps have the name %q", s.Name))
		}
		seen[s.Name] = true
		for _, err := range p.checkStep(s) {
			errs = append(errs, fmt.Errorf("step %q: %w", s.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (p Plugin) checkStep(s Step) (errs []error) {
	if rest, ok := strings.CutPrefix(s.Name, p.Name); !ok || !stepPart.MatchString(rest) {
		errs = append(errs, fmt.Errorf("its name is neither %q nor begins with %q", p.Name, p.Name+"/"))
	}
	if s.Summary == "" || strings.Contains(s.Summary, "\n") {
		errs = append(errs, errors.New("it needs a summary of one line"))
	}
	if len(s.Sections) == 0 {
		errs = append(errs, errors.New("it has no section to stand in: customize, tests or publish"))
	}
	if len(s.Sections) > 1 && slices.Contains(s.Sections, Customize) {
		errs = append(errs, errors.New("it stands in customize and elsewhere: a step changes a machine or works on an image, not both; make it two"))
	}
	for _, section := range s.Sections {
		if section != Customize && section != Tests && section != Publish {
			errs = append(errs, fmt.Errorf("it can't stand in the section %q: a plugin's step stands in customize, tests or publish", section))
		}
	}
	for name, kind := range s.Outputs {
		if !slices.Contains(outputTypes, kind) {
			errs = append(errs, fmt.Errorf("its output %q has the type %q, not one of %s", name, kind, strings.Join(outputTypes, ", ")))
		}
	}
	var schema map[string]any
	if err := json.Unmarshal(s.Schema, &schema); err != nil {
		errs = append(errs, fmt.Errorf("its schema is no JSON object: %w", err))
	} else if schema["type"] != "object" {
		errs = append(errs, errors.New(`its schema must have "type": "object", for that is what "with" is`))
	}
	if s.Run == nil {
		errs = append(errs, errors.New("it has no function to run"))
	}
	return errs
}
