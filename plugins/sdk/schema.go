package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/invopop/jsonschema"
)

var durationType = reflect.TypeFor[Duration]()

// schemaOf generates the schema of a config. It stands alone, without references, since gild
// puts it into a larger one.
func schemaOf[C any](meta Step, docs sourceDocs) ([]byte, error) {
	t := reflect.TypeFor[C]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the config is a %v, not a struct", t)
	}
	if err := checkType(t, nil); err != nil {
		return nil, fmt.Errorf("the config: %w", err)
	}
	r := &jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, LookupComment: docs.comments(t.PkgPath()),
		Mapper: func(t reflect.Type) *jsonschema.Schema {
			if t == durationType {
				return &jsonschema.Schema{Type: "string", Format: "gild-duration"}
			}
			return nil
		},
	}
	s := r.ReflectFromType(t)
	relax(t, s)
	s.Title, s.Description = meta.Name, meta.Summary
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("the config's schema: %w", err)
	}
	return text, nil
}

// checkType refuses what has no schema that stands alone. path holds the types around t.
func checkType(t reflect.Type, path []reflect.Type) error {
	for _, outer := range path {
		if outer == t {
			return fmt.Errorf("the type %v contains itself", t)
		}
	}
	if t == reflect.TypeFor[time.Duration]() {
		return errors.New("a time.Duration is a number of nanoseconds in JSON; use sdk.Duration")
	}
	if t == durationType || t.Implements(reflect.TypeFor[json.Unmarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return nil
	}
	path = append(path, t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkType(t.Elem(), path)
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			return fmt.Errorf("the keys of %v are no strings", t)
		}
		return checkType(t.Elem(), path)
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return fmt.Errorf("a %v can't come out of YAML", t)
	case reflect.Struct:
		for f := range fieldsOf(t) {
			if err := checkType(f.field.Type, path); err != nil {
				return fmt.Errorf("field %s: %w", f.field.Name, err)
			}
		}
	}
	return nil
}

// relax makes fields that are pointers optional, at every depth.
func relax(t reflect.Type, s *jsonschema.Schema) {
	if t == durationType || s == nil {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		relax(t.Elem(), s)
	case reflect.Slice, reflect.Array:
		relax(t.Elem(), s.Items)
	case reflect.Map:
		relax(t.Elem(), s.AdditionalProperties)
	case reflect.Struct:
		relaxFields(t, s)
	}
}

func relaxFields(t reflect.Type, s *jsonschema.Schema) {
	if s.Properties == nil {
		return // a type with a schema of its own, such as a time
	}
	for f := range fieldsOf(t) {
		if f.name == "" {
			relaxFields(indirect(f.field.Type), s)
			continue
		}
		property, ok := s.Properties.Get(f.name)
		if !ok {
			continue
		}
		if f.field.Type.Kind() == reflect.Pointer {
			s.Required = without(s.Required, f.name)
		}
		relax(f.field.Type, property)
	}
}

func without(list []string, name string) []string {
	var rest []string
	for _, s := range list {
		if s != name {
			rest = append(rest, s)
		}
	}
	return rest
}

func indirect(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// jsonField is a field of a struct as encoding/json sees it; one that is embedded has no name.
type jsonField struct {
	field reflect.StructField
	name  string
}

func fieldsOf(t reflect.Type) func(yield func(jsonField) bool) {
	return func(yield func(jsonField) bool) {
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-" || !f.IsExported() && !f.Anonymous:
				continue
			case name == "" && f.Anonymous && indirect(f.Type).Kind() == reflect.Struct:
			case name == "":
				name = f.Name
			}
			if !yield(jsonField{f, name}) {
				return
			}
		}
	}
}

// outputsOf returns the types of the outputs by name.
func outputsOf[O any]() (map[string]string, error) {
	t := reflect.TypeFor[O]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("the outputs are a %v, not a struct; use struct{} for none", t)
	}
	out := map[string]string{}
	for f := range fieldsOf(t) {
		if f.name == "" {
			return nil, errors.New("the outputs embed a struct; name its fields instead")
		}
		kind, err := outputType(f.field.Type)
		if err != nil {
			return nil, fmt.Errorf("the output %q: %w", f.name, err)
		}
		out[f.name] = kind
	}
	return out, nil
}

func outputType(t reflect.Type) (string, error) {
	if t == durationType {
		return "string", nil
	}
	switch indirect(t).Kind() {
	case reflect.String:
		return "string", nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer", nil
	case reflect.Float32, reflect.Float64:
		return "number", nil
	case reflect.Bool:
		return "boolean", nil
	case reflect.Slice, reflect.Array:
		return "list", nil
	default:
		return "", fmt.Errorf("a %v is neither a string, a number, a boolean nor a list", t)
	}
}
