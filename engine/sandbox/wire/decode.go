package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// problem is one thing wrong with a request. The protocol words it.
type problem struct {
	kind problemKind
	path string // of the member, as the client wrote it
	got  string // the value as text
	want string // the constraint
}

type problemKind int

const (
	missing problemKind = iota + 1 // a required member isn't there
	unknown                        // the model has no such member
	wrong                          // not of the member's type
	outside                        // of the type, but breaks a constraint
)

func unescape(s string) (string, error) { return url.QueryUnescape(s) }

// tree is a form's keys, cut at their dots.
type tree struct {
	value *string
	under map[string]*tree
	order []string // of under, as they came
}

const (
	// maxDepth is how many parts a key may have; the models need nine.
	maxDepth = 24
	// maxKeys is how many keys a form may have: a thousand ids with room to spare.
	maxKeys = 20_000
)

// parseForm reads a form into a tree. A key that comes twice is a problem, for no client
// means it.
func parseForm(raw string) (*tree, *problem) {
	root := &tree{}
	keys := 0
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if keys++; keys > maxKeys {
			return nil, &problem{kind: wrong, path: "the request", got: strconv.Itoa(keys), want: "is more parameters than a request may have"}
		}
		k, v, _ := strings.Cut(part, "=")
		key, err := unescape(k)
		if err != nil {
			return nil, &problem{kind: wrong, path: k, got: k, want: "is not a form"}
		}
		value, err := unescape(v)
		if err != nil {
			return nil, &problem{kind: wrong, path: key, got: v, want: "is not a form"}
		}
		names := strings.Split(key, ".")
		if len(names) > maxDepth {
			return nil, &problem{kind: unknown, path: key}
		}
		at := root
		for _, name := range names {
			at = at.child(name)
		}
		if at.value != nil {
			return nil, &problem{kind: wrong, path: key, got: value, want: "is given more than once"}
		}
		at.value = &value
	}
	return root, nil
}

func (t *tree) child(name string) *tree {
	if c, ok := t.under[name]; ok {
		return c
	}
	if t.under == nil {
		t.under = map[string]*tree{}
	}
	c := &tree{}
	t.under[name] = c
	t.order = append(t.order, name)
	return c
}

// take returns a leaf's value and removes it, for the parts of a form that aren't members.
func (t *tree) take(name string) string {
	c, ok := t.under[name]
	if !ok || c.value == nil {
		return ""
	}
	delete(t.under, name)
	t.order = slices.DeleteFunc(t.order, func(n string) bool { return n == name })
	return *c.value
}

// formReader turns a tree into values, by the rules of ec2 or query.
type formReader struct {
	ec2      bool
	problems []problem
}

func (f *formReader) fail(p problem) any {
	f.problems = append(f.problems, p)
	return nil
}

func (f *formReader) read(m *member, t *tree, path string) any {
	s := m.shape
	switch s.kind {
	case "structure":
		return f.structure(s, t, path)
	case "list":
		return f.list(m, t, path)
	case "map":
		return f.mapping(m, t, path)
	}
	if t.value == nil || len(t.under) > 0 {
		return f.fail(problem{kind: unknown, path: deepest(t, path)})
	}
	v, want := scalar(s, *t.value)
	if want != "" {
		return f.fail(problem{kind: wrong, path: path, got: *t.value, want: want})
	}
	return v
}

// name is what a member is called in a request.
func (f *formReader) name(m *member) string {
	switch {
	case f.ec2 && m.queryName != "":
		return m.queryName
	case f.ec2 && m.locationName != "":
		return strings.ToUpper(m.locationName[:1]) + m.locationName[1:]
	case !f.ec2 && m.locationName != "":
		return m.locationName
	}
	return m.name
}

func (f *formReader) structure(s *shape, t *tree, path string) any {
	out := map[string]any{}
	known := map[string]bool{}
	for _, m := range s.members {
		name := f.name(m)
		known[name] = true
		if c, ok := t.under[name]; ok {
			if v := f.read(m, c, join(path, name)); v != nil {
				out[m.name] = v
			}
		}
	}
	if t.value != nil && (*t.value != "" || len(t.under) > 0) {
		f.fail(problem{kind: unknown, path: path})
	}
	// The query services take no notice of what they don't know.
	for _, name := range t.order {
		if !known[name] && f.ec2 {
			f.fail(problem{kind: unknown, path: deepest(t.under[name], join(path, name))})
		}
	}
	return out
}

func (f *formReader) list(m *member, t *tree, path string) any {
	if t.value != nil {
		if *t.value == "" && len(t.under) == 0 {
			return []any{}
		}
		return f.fail(problem{kind: wrong, path: path, got: *t.value, want: "is not a list"})
	}
	if !f.ec2 && !m.flattened {
		name := "member"
		if m.shape.item.locationName != "" {
			name = m.shape.item.locationName
		}
		c, ok := t.under[name]
		if !ok {
			return f.fail(problem{kind: wrong, path: path, got: "", want: "is not a list"})
		}
		t, path = c, join(path, name)
	}
	out := []any{}
	for _, i := range f.indexes(t, path) {
		name := strconv.Itoa(i)
		if v := f.read(m.shape.item, t.under[name], join(path, name)); v != nil {
			out = append(out, v)
		}
	}
	return out
}

// indexes returns the numbers under a list, ascending. Gaps are no problem.
func (f *formReader) indexes(t *tree, path string) []int {
	var all []int
	for _, name := range t.order {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || strconv.Itoa(i) != name {
			f.fail(problem{kind: unknown, path: deepest(t.under[name], join(path, name))})
			continue
		}
		all = append(all, i)
	}
	slices.Sort(all)
	return all
}

func (f *formReader) mapping(m *member, t *tree, path string) any {
	entries := t
	if !m.flattened {
		c, ok := t.under["entry"]
		if !ok {
			return f.fail(problem{kind: wrong, path: path, got: "", want: "is not a map"})
		}
		entries, path = c, join(path, "entry")
	}
	out := map[string]any{}
	for _, i := range f.indexes(entries, path) {
		at := join(path, strconv.Itoa(i))
		e := entries.under[strconv.Itoa(i)]
		k, v := e.under["key"], e.under["value"]
		if k == nil || k.value == nil || v == nil {
			f.fail(problem{kind: wrong, path: at, want: "is not an entry"})
			continue
		}
		if got := f.read(m.shape.value, v, join(at, "value")); got != nil {
			out[*k.value] = got
		}
	}
	return out
}

// deepest names the first leaf under a node, as the client wrote it.
func deepest(t *tree, path string) string {
	for t != nil && t.value == nil && len(t.order) > 0 {
		path = join(path, t.order[0])
		t = t.under[t.order[0]]
	}
	return path
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// scalar reads a value from text. want is why it can't be read.
func scalar(s *shape, text string) (v any, want string) {
	switch s.kind {
	case "string":
		return text, ""
	case "integer", "long":
		bits := 64
		if s.kind == "integer" {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return nil, "is not an integer of " + strconv.Itoa(bits) + " bits"
		}
		return n, ""
	case "double", "float":
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, "is not a number"
		}
		return n, ""
	case "boolean":
		switch strings.ToLower(text) {
		case "true":
			return true, ""
		case "false":
			return false, ""
		}
		return nil, "is not true or false"
	case "timestamp":
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02", "20060102T150405Z"} {
			if at, err := time.Parse(layout, text); err == nil {
				return at.UTC(), ""
			}
		}
		if seconds, err := strconv.ParseFloat(text, 64); err == nil {
			return epoch(seconds)
		}
		return nil, "is not a time"
	case "blob":
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, "is not base64"
		}
		return data, ""
	}
	return nil, "has no type " + s.kind
}

// epoch is a time from seconds since 1970, to the millisecond, in the years that can be
// written with four digits.
func epoch(seconds float64) (any, string) {
	if !(math.Abs(seconds) < 1<<37) {
		return nil, "is not a time"
	}
	return time.UnixMilli(int64(math.Round(seconds * 1000))).UTC(), ""
}

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
