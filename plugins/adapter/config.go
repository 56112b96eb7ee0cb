package adapter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/gildhq/gild/engine/spec"
	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/manifest"
)

// compile compiles the schemas of a plugin's steps, by name. gild checks a config before
// it calls; checking it here too means that a program can trust it, whoever calls.
func compile(steps []manifest.Step) (map[string]*jsonschema.Schema, error) {
	all := map[string]*jsonschema.Schema{}
	for _, s := range steps {
		schema, err := spec.CompileSchema("gild:///steps/"+s.Name, s.Schema)
		if err != nil {
			return nil, fmt.Errorf("schema of step %q: %w", s.Name, err)
		}
		all[s.Name] = schema
	}
	return all, nil
}

// checkConfig refuses a config that the step's schema doesn't allow.
func (a *Adapter) checkConfig(m manifest.Step, config json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(config))
	dec.UseNumber()
	var value any
	err := dec.Decode(&value)
	if err == nil {
		err = a.schemas[m.Name].Validate(value)
	}
	if err == nil {
		return nil
	}
	var wrong *jsonschema.ValidationError
	if errors.As(err, &wrong) {
		for len(wrong.Causes) > 0 {
			wrong = wrong.Causes[0]
		}
		err = fmt.Errorf("%s at %q", wrong.Message, wrong.InstanceLocation)
	}
	return &step.Permanent{Err: fmt.Errorf("the config of %s isn't what its schema says: %w", m.Name, err)}
}
