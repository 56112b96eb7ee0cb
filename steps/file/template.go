package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"text/template"

	"github.com/gildhq/gild/engine/step"
)

// render fills in the template that in holds. Every mistake in it is permanent.
func render(in step.Input, c Config) ([]byte, error) {
	if in.IsDir() {
		return nil, &step.Permanent{Err: fmt.Errorf("template %q is a folder", c.Template)}
	}
	r, err := in.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open template %q: %w", c.Template, err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read template %q: %w", c.Template, err)
	}
	tmpl, err := template.New(path.Base(c.Template)).Option("missingkey=error").Parse(string(text))
	if err != nil {
		return nil, &step.Permanent{Err: fmt.Errorf("parse template %q: %w", c.Template, err)}
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, map[string]any(c.Vars)); err != nil {
		return nil, &step.Permanent{Err: fmt.Errorf("fill in template %q: %w", c.Template, err)}
	}
	return out.Bytes(), nil
}

// vars are a template's values. Whole numbers are int64, so that they print as written and
// compare with the template's own.
type vars map[string]any

// UnmarshalJSON implements json.Unmarshaler.
func (v *vars) UnmarshalJSON(data []byte) error {
	var values map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&values); err != nil {
		return err
	}
	for name, value := range values {
		values[name] = plain(value)
	}
	*v = values
	return nil
}

// plain turns the numbers in a decoded JSON value into Go's own.
func plain(value any) any {
	switch value := value.(type) {
	case json.Number:
		if n, err := value.Int64(); err == nil {
			return n
		}
		if f, err := value.Float64(); err == nil {
			return f
		}
		return value.String()
	case []any:
		for i := range value {
			value[i] = plain(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = plain(value[key])
		}
	}
	return value
}
