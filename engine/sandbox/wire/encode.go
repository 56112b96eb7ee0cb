package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"sort"
	"time"
)

const (
	layoutEC2   = "2006-01-02T15:04:05.000Z"
	layoutQuery = "2006-01-02T15:04:05Z"
)

// xmlWriter writes an answer of ec2 or query.
type xmlWriter struct {
	bytes.Buffer
	ec2 bool
}

func (w *xmlWriter) open(name string)  { w.WriteString("<" + name + ">") }
func (w *xmlWriter) close(name string) { w.WriteString("</" + name + ">") }

func (w *xmlWriter) leaf(name, value string) {
	w.open(name)
	// A Buffer takes every write.
	_ = xml.EscapeText(w, []byte(value))
	w.close(name)
}

// members writes a structure's members in the order of the model.
func (w *xmlWriter) members(s *shape, v map[string]any) {
	for _, m := range s.members {
		if value, ok := v[m.name]; ok {
			w.element(jsonName(m), m, value)
		}
	}
}

func (w *xmlWriter) element(name string, m *member, v any) {
	switch v := v.(type) {
	case map[string]any:
		if m.shape.kind == "map" {
			w.mapping(name, m, v)
			return
		}
		w.open(name)
		w.members(m.shape, v)
		w.close(name)
	case []any:
		w.list(name, m, v)
	default:
		layout := layoutQuery
		if w.ec2 {
			layout = layoutEC2
		}
		w.leaf(name, text(v, layout))
	}
}

func (w *xmlWriter) list(name string, m *member, items []any) {
	if m.flattened {
		for _, item := range items {
			w.element(name, m.shape.item, item)
		}
		return
	}
	itemName := m.shape.item.locationName
	if itemName == "" {
		itemName = "member"
	}
	w.open(name)
	for _, item := range items {
		w.element(itemName, m.shape.item, item)
	}
	w.close(name)
}

func (w *xmlWriter) mapping(name string, m *member, v map[string]any) {
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	w.open(name)
	for _, k := range keys {
		w.open("entry")
		w.leaf("key", k)
		w.element("value", m.shape.value, v[k])
		w.close("entry")
	}
	w.close(name)
}

// answerXML writes the whole answer of an operation.
func answerXML(s *service, op *operation, id string, v map[string]any) []byte {
	w := &xmlWriter{ec2: s.protocol == protocolEC2}
	root := op.name + "Response"
	w.WriteString("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<" + root + ` xmlns="` + s.namespace + `">`)
	if w.ec2 {
		w.leaf("requestId", id)
	}
	if op.wrapper != "" {
		w.open(op.wrapper)
	}
	if op.output != nil {
		w.members(op.output, v)
	}
	if op.wrapper != "" {
		w.close(op.wrapper)
	}
	if !w.ec2 {
		w.open("ResponseMetadata")
		w.leaf("RequestId", id)
		w.close("ResponseMetadata")
	}
	w.close(root)
	return w.Bytes()
}

// jsonValue turns a plain value into what encoding/json writes as AWS does. Members that
// go elsewhere than in the body are left out.
func jsonValue(s *shape, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		if s.kind == "map" {
			for k, item := range v {
				out[k] = jsonValue(s.value.shape, item)
			}
			return out
		}
		for _, m := range s.members {
			if item, ok := v[m.name]; ok && m.location == "" {
				out[jsonName(m)] = jsonValue(m.shape, item)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = jsonValue(s.item.shape, item)
		}
		return out
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return float64(v.UnixMilli()) / 1000
	}
	return v
}

// answerJSON writes headers and body of an answer of a JSON service.
func answerJSON(h http.Header, op *operation, v map[string]any) ([]byte, error) {
	if op.output == nil {
		return nil, nil
	}
	for _, m := range op.output.members {
		if item, ok := v[m.name]; ok && m.location == "header" {
			h.Set(m.locationName, text(item, http.TimeFormat))
		}
	}
	if op.output.payload != "" {
		h.Set("Content-Type", "application/octet-stream")
		data, _ := v[op.output.payload].([]byte)
		return data, nil
	}
	return json.Marshal(jsonValue(op.output, v))
}
