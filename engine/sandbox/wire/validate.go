package wire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// validator holds values against their shapes.
type validator struct {
	name     func(*member) string // what the client calls a member
	problems []problem
}

func (v *validator) structure(s *shape, value map[string]any, path string) {
	for _, m := range s.members {
		got, ok := value[m.name]
		at := join(path, v.name(m))
		switch {
		case ok:
			v.value(m.shape, got, at)
		case s.required[m.name] && s.payload != m.name:
			v.problems = append(v.problems, problem{kind: missing, path: at})
		}
	}
}

func (v *validator) value(s *shape, value any, path string) {
	switch value := value.(type) {
	case map[string]any:
		if s.kind == "structure" {
			v.structure(s, value, path)
			return
		}
		v.size(s, len(value), path, "[...]")
		for k, item := range value {
			v.value(s.key.shape, k, join(path, k))
			v.value(s.value.shape, item, join(path, k))
		}
	case []any:
		v.size(s, len(value), path, "[...]")
		for i, item := range value {
			v.value(s.item.shape, item, join(path, strconv.Itoa(i+1)))
		}
	case string:
		v.text(s, value, path)
	case []byte:
		v.size(s, len(value), path, "java.nio.HeapByteBuffer[...]")
	case int64:
		v.number(s, float64(value), path, strconv.FormatInt(value, 10))
	case float64:
		v.number(s, value, path, strconv.FormatFloat(value, 'f', -1, 64))
	}
}

func (v *validator) text(s *shape, value, path string) {
	shown := value
	if s.sensitive {
		shown = "***"
	}
	if len(s.enum) > 0 && !slices.Contains(s.enum, value) {
		v.outside(path, shown, "Member must satisfy enum value set: ["+strings.Join(s.enum, ", ")+"]")
	}
	v.size(s, utf8.RuneCountInString(value), path, shown)
	if s.pattern != nil && !s.pattern.MatchString(value) {
		v.outside(path, shown, "Member must satisfy regular expression pattern: "+s.source)
	}
}

func (v *validator) size(s *shape, n int, path, shown string) {
	if s.min != nil && float64(n) < *s.min {
		v.outside(path, shown, fmt.Sprintf("Member must have length greater than or equal to %v", *s.min))
	}
	if s.max != nil && float64(n) > *s.max {
		v.outside(path, shown, fmt.Sprintf("Member must have length less than or equal to %v", int64(*s.max)))
	}
}

func (v *validator) number(s *shape, n float64, path, shown string) {
	if s.min != nil && n < *s.min {
		v.outside(path, shown, fmt.Sprintf("Member must have value greater than or equal to %v", *s.min))
	}
	if s.max != nil && n > *s.max {
		v.outside(path, shown, fmt.Sprintf("Member must have value less than or equal to %v", int64(*s.max)))
	}
}

func (v *validator) outside(path, got, want string) {
	v.problems = append(v.problems, problem{kind: outside, path: path, got: got, want: want})
}

// refuse words what is wrong with a request as the service does.
func refuse(s *service, problems []problem) *Error {
	if s.protocol == protocolEC2 {
		return refuseEC2(problems[0])
	}
	if p := problems[0]; p.kind == wrong && s.protocol == protocolJSON {
		return Errorf("SerializationException", "%s can not be converted to %s", p.got, p.want)
	}
	code := "ValidationException"
	if s.protocol == protocolQuery {
		code = "ValidationError"
	}
	var all []string
	for _, p := range problems {
		all = append(all, p.words())
	}
	few := "error"
	if len(all) > 1 {
		few = "errors"
	}
	e := Errorf(code, "%d validation %s detected: %s", len(all), few, strings.Join(all, "; "))
	if s.name == "ebs" {
		e.Detail = map[string]any{"Reason": "INVALID_PARAMETER_VALUE"}
	}
	return e
}

func (p problem) words() string {
	at := lowerFirst(p.path)
	switch p.kind {
	case missing:
		return fmt.Sprintf("Value null at '%s' failed to satisfy constraint: Member must not be null", at)
	case outside:
		return fmt.Sprintf("Value '%s' at '%s' failed to satisfy constraint: %s", p.got, at, p.want)
	}
	return fmt.Sprintf("Value '%s' at '%s' %s", p.got, at, p.want)
}

func refuseEC2(p problem) *Error {
	switch p.kind {
	case missing:
		return Errorf("MissingParameter", "The request must contain the parameter %s", p.path)
	case unknown:
		return Errorf("UnknownParameter", "The parameter %s is not recognized", p.path)
	case wrong:
		return Errorf("InvalidParameterValue", "Value (%s) for parameter %s is invalid. The value %s", p.got, p.path, p.want)
	}
	return Errorf("InvalidParameterValue", "Value (%s) for parameter %s is invalid. %s", p.got, p.path, p.want)
}

func lowerFirst(path string) string {
	parts := strings.Split(path, ".")
	for i, part := range parts {
		if part != "" {
			parts[i] = strings.ToLower(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, ".")
}
