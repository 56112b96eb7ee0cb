package wire

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// conform turns a handler's value into the plain one of a shape: map[string]any, []any,
// string, int64, float64, bool, []byte, time.Time. The error says what the handler got wrong.
func conform(s *shape, v any, path string) (any, error) {
	if at, ok := v.(time.Time); ok && s.kind == "timestamp" {
		return at.UTC(), nil
	}
	r := reflect.ValueOf(v)
	for r.Kind() == reflect.Pointer || r.Kind() == reflect.Interface {
		r = r.Elem()
		if r.IsValid() && r.Type() == reflect.TypeFor[time.Time]() {
			return conform(s, r.Interface(), path)
		}
	}
	switch s.kind {
	case "structure":
		return conformStructure(s, r, path)
	case "map":
		return conformMap(s, r, path)
	case "list":
		if r.Kind() != reflect.Slice {
			return nil, mistyped(s, v, path)
		}
		out := make([]any, 0, r.Len())
		for i := range r.Len() {
			item, err := conform(s.item.shape, r.Index(i).Interface(), fmt.Sprintf("%s[%d]", path, i))
			if err != nil {
				return nil, err
			}
			out = append(out, item)
		}
		return out, nil
	}
	return conformScalar(s, r, v, path)
}

func conformScalar(s *shape, r reflect.Value, v any, path string) (any, error) {
	switch s.kind {
	case "string":
		if r.Kind() != reflect.String {
			break
		}
		if len(s.enum) > 0 && !slices.Contains(s.enum, r.String()) {
			return nil, fmt.Errorf("%s: %q is none of the values of %s", path, r.String(), s.name)
		}
		return r.String(), nil
	case "integer", "long":
		if r.CanInt() {
			return r.Int(), nil
		}
	case "double", "float":
		if r.CanFloat() {
			return r.Float(), nil
		}
		if r.CanInt() {
			return float64(r.Int()), nil
		}
	case "boolean":
		if r.Kind() == reflect.Bool {
			return r.Bool(), nil
		}
	case "blob":
		if data, ok := v.([]byte); ok {
			return data, nil
		}
	}
	return nil, mistyped(s, v, path)
}

func conformStructure(s *shape, r reflect.Value, path string) (any, error) {
	if r.Kind() != reflect.Map || r.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("%s: a map is wanted for structure %s", path, s.name)
	}
	out := map[string]any{}
	for it := r.MapRange(); it.Next(); {
		name := it.Key().String()
		m, ok := s.byName[name]
		if !ok {
			return nil, fmt.Errorf("%s: structure %s has no member %q", path, s.name, name)
		}
		if absent(it.Value()) {
			continue
		}
		v, err := conform(m.shape, it.Value().Interface(), path+"."+name)
		if err != nil {
			return nil, err
		}
		out[name] = v
	}
	for _, m := range s.members {
		if _, ok := out[m.name]; !ok && s.required[m.name] {
			return nil, fmt.Errorf("%s: structure %s needs the member %q", path, s.name, m.name)
		}
	}
	return out, nil
}

func conformMap(s *shape, r reflect.Value, path string) (any, error) {
	if r.Kind() != reflect.Map || r.Type().Key().Kind() != reflect.String {
		return nil, fmt.Errorf("%s: a map is wanted for %s", path, s.name)
	}
	out := map[string]any{}
	for it := r.MapRange(); it.Next(); {
		v, err := conform(s.value.shape, it.Value().Interface(), path+"."+it.Key().String())
		if err != nil {
			return nil, err
		}
		out[it.Key().String()] = v
	}
	return out, nil
}

// absent tells a nil from a value. A nil slice is an empty list, which is a value.
func absent(v reflect.Value) bool {
	for v.Kind() == reflect.Interface || v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return true
		}
		v = v.Elem()
	}
	return v.Kind() == reflect.Map && v.IsNil()
}

func mistyped(s *shape, v any, path string) error {
	return fmt.Errorf("%s: %T is no %s for %s", path, v, s.kind, s.name)
}

// text writes a scalar as XML and headers have it.
func text(v any, layout string) string {
	switch v := v.(type) {
	case time.Time:
		return v.Format(layout)
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	}
	return fmt.Sprint(v)
}
