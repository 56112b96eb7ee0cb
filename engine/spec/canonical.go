package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// canonical encodes plain data, and waiting strings in it.
func canonical(v any) []byte {
	var b bytes.Buffer
	appendCanonical(&b, v)
	return b.Bytes()
}

func appendCanonical(b *bytes.Buffer, v any) {
	switch v := v.(type) {
	case *waiting:
		appendObject(b, v.canonicalForm(), false)
	case map[string]any:
		appendObject(b, v, true)
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			appendCanonical(b, item)
		}
		b.WriteByte(']')
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			b.WriteString(strconv.FormatInt(int64(v), 10))
			return
		}
		appendJSON(b, v)
	default:
		appendJSON(b, v)
	}
}

func appendObject(b *bytes.Buffer, object map[string]any, escape bool) {
	b.WriteByte('{')
	for i, name := range sortedKeys(object) {
		if i > 0 {
			b.WriteByte(',')
		}
		written := name
		if escape && strings.TrimLeft(name, "$") == "wait" && name != "wait" {
			written = "$" + name
		}
		appendJSON(b, written)
		b.WriteByte(':')
		appendCanonical(b, object[name])
	}
	b.WriteByte('}')
}

func appendJSON(b *bytes.Buffer, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("spec: encode plain data: %v", err))
	}
	b.Write(data)
}

// normal turns any JSON-like value into plain data.
func normal(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, string, int64:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("%v is not a finite number", v)
		}
		return v, nil
	case []any:
		return normalList(v)
	case map[string]any:
		return normalObject(v)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		return nil, err
	}
	if n, ok := plain.(json.Number); ok {
		return number(n)
	}
	return normal(plain)
}

func normalList(v []any) (any, error) {
	list := make([]any, len(v))
	for i, item := range v {
		plain, err := normal(item)
		if err != nil {
			return nil, err
		}
		list[i] = plain
	}
	return list, nil
}

func normalObject(v map[string]any) (any, error) {
	object := make(map[string]any, len(v))
	for name, field := range v {
		plain, err := normal(field)
		if err != nil {
			return nil, err
		}
		object[name] = plain
	}
	return object, nil
}

func number(n json.Number) (any, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	return n.Float64()
}

// textOf makes a text of a scalar, for a place inside other text.
func textOf(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, float64:
		return string(canonical(v)), nil
	}
	return "", fmt.Errorf("a list or mapping can't stand inside a text; use join(list, \" \") or toJSON(value)")
}
