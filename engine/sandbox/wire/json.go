package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// parseJSON reads the body of a JSON service. An empty body is an empty object.
func parseJSON(body []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return map[string]any{}, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	return m, nil
}

// readJSON turns decoded JSON into values of a shape. Unknown members are left out, as
// these services do. The error is the first value of another type.
func readJSON(s *shape, v any, path string) (any, *problem) {
	bad := func(want string) (any, *problem) {
		return nil, &problem{kind: wrong, path: path, got: kindOf(v), want: want}
	}
	switch s.kind {
	case "structure":
		m, ok := v.(map[string]any)
		if !ok {
			return bad("Structure")
		}
		out := map[string]any{}
		for _, mem := range s.members {
			raw, ok := m[jsonName(mem)]
			if !ok || raw == nil || mem.location != "" {
				continue
			}
			got, p := readJSON(mem.shape, raw, join(path, mem.name))
			if p != nil {
				return nil, p
			}
			out[mem.name] = got
		}
		return out, nil
	case "list":
		items, ok := v.([]any)
		if !ok {
			return bad("List")
		}
		out := make([]any, 0, len(items))
		for i, raw := range items {
			got, p := readJSON(s.item.shape, raw, join(path, strconv.Itoa(i+1)))
			if p != nil {
				return nil, p
			}
			out = append(out, got)
		}
		return out, nil
	case "map":
		m, ok := v.(map[string]any)
		if !ok {
			return bad("Map")
		}
		out := map[string]any{}
		for k, raw := range m {
			got, p := readJSON(s.value.shape, raw, join(path, k))
			if p != nil {
				return nil, p
			}
			out[k] = got
		}
		return out, nil
	}
	return jsonScalar(s, v, bad)
}

func jsonScalar(s *shape, v any, bad func(string) (any, *problem)) (any, *problem) {
	var text string
	switch v := v.(type) {
	case string:
		if s.kind != "string" && s.kind != "blob" && s.kind != "timestamp" {
			return bad(title(s.kind))
		}
		text = v
	case bool:
		if s.kind != "boolean" {
			return bad(title(s.kind))
		}
		return v, nil
	case json.Number:
		if s.kind == "string" || s.kind == "boolean" || s.kind == "blob" {
			return bad(title(s.kind))
		}
		text = v.String()
	default:
		return bad(title(s.kind))
	}
	got, want := scalar(s, text)
	if want != "" {
		return bad(title(s.kind))
	}
	return got, nil
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// kindOf names the type of a JSON value as AWS does in its answers.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "NULL_VALUE"
	case string:
		return "STRING_VALUE"
	case bool:
		return "TRUE_VALUE"
	case json.Number:
		return "NUMBER_VALUE"
	case []any:
		return "START_ARRAY"
	}
	return "START_OBJECT"
}

func jsonName(m *member) string {
	if m.locationName != "" {
		return m.locationName
	}
	return m.name
}

// readREST collects a request's parameters from path, query, headers and body.
func readREST(op *operation, labels map[string]string, r *http.Request, body []byte) (map[string]any, []problem) {
	out := map[string]any{}
	var problems []problem
	query := r.URL.Query()
	for _, m := range op.input.members {
		var text string
		var given bool
		switch m.location {
		case "uri":
			text, given = labels[m.locationName]
		case "querystring":
			text, given = query.Get(m.locationName), query.Has(m.locationName)
		case "header":
			text = r.Header.Get(m.locationName)
			given = text != ""
		}
		if !given {
			continue
		}
		v, want := scalar(m.shape, text)
		if want != "" {
			problems = append(problems, problem{kind: wrong, path: m.name, got: text, want: want})
			continue
		}
		out[m.name] = v
	}
	if op.input.payload != "" || len(problems) > 0 {
		return out, problems
	}
	raw, err := parseJSON(body)
	if err != nil {
		return nil, []problem{{kind: wrong, path: "body", got: "text", want: fmt.Sprintf("is not JSON: %v", err)}}
	}
	v, p := readJSON(op.input, raw, "")
	if p != nil {
		return nil, []problem{*p}
	}
	for name, value := range v.(map[string]any) {
		out[name] = value
	}
	return out, nil
}
