// Command trim makes the extracts of AWS's service models that package wire embeds.
//
//	go run ./trim BOTOCORE_DATA_DIR
//
// is run by hand in the folder of package wire, when an operation is added to the list or
// AWS changed a shape. It reads the newest service-2.json.gz of each service and writes
// models/<service>.json: the listed operations and the shapes they reach, each on its own
// line, documentation removed. Nothing else reads botocore.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run ./trim BOTOCORE_DATA_DIR")
	}
	for service, operations := range wanted() {
		if err := trim(os.Args[1], service, operations); err != nil {
			log.Fatalf("trim %s: %v", service, err)
		}
	}
}

// source is the part of botocore's format that is read.
type source struct {
	Metadata   map[string]any
	Operations map[string]struct {
		HTTP struct {
			Method       string
			RequestURI   string
			ResponseCode int
		}
		Input, Output struct{ Shape, ResultWrapper string }
		Errors        []struct{ Shape string }
		AuthType      string
	}
	Shapes map[string]json.RawMessage
}

func trim(data, service string, operations []string) error {
	raw, err := newest(filepath.Join(data, service))
	if err != nil {
		return err
	}
	var src source
	if err := json.Unmarshal(raw, &src); err != nil {
		return fmt.Errorf("decode model: %w", err)
	}
	kept := map[string]shape{}
	ops := map[string]any{}
	for _, name := range operations {
		op, ok := src.Operations[name]
		if !ok {
			return fmt.Errorf("no operation %q in the model", name)
		}
		out := map[string]any{"method": op.HTTP.Method, "uri": op.HTTP.RequestURI}
		set(out, "status", op.HTTP.ResponseCode, op.HTTP.ResponseCode != 0)
		set(out, "input", op.Input.Shape, op.Input.Shape != "")
		set(out, "output", op.Output.Shape, op.Output.Shape != "")
		set(out, "wrapper", op.Output.ResultWrapper, op.Output.ResultWrapper != "")
		set(out, "unsigned", true, op.AuthType == "v4-unsigned-body")
		roots := []string{op.Input.Shape, op.Output.Shape}
		var errs []string
		for _, e := range op.Errors {
			errs = append(errs, e.Shape)
		}
		set(out, "errors", errs, len(errs) > 0)
		for _, root := range append(roots, errs...) {
			if err := reach(src.Shapes, root, kept); err != nil {
				return err
			}
		}
		ops[name] = out
	}
	head := map[string]any{}
	for _, k := range []string{"apiVersion", "protocol", "targetPrefix", "xmlNamespace", "jsonVersion"} {
		set(head, k, src.Metadata[k], src.Metadata[k] != nil)
	}
	text, err := write(head, ops, kept)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join("models", service+".json"), text, 0o644)
}

// shape is one shape as it is kept.
type shape struct {
	Type      string          `json:"type"`
	Required  []string        `json:"required,omitempty"`
	Members   []member        `json:"members,omitempty"`
	Member    *member         `json:"member,omitempty"`
	Key       *member         `json:"key,omitempty"`
	Value     *member         `json:"value,omitempty"`
	Enum      []string        `json:"enum,omitempty"`
	Min       *float64        `json:"min,omitempty"`
	Max       *float64        `json:"max,omitempty"`
	Pattern   string          `json:"pattern,omitempty"`
	Location  string          `json:"locationName,omitempty"`
	Flattened bool            `json:"flattened,omitempty"`
	Streaming bool            `json:"streaming,omitempty"`
	Payload   string          `json:"payload,omitempty"`
	Sensitive bool            `json:"sensitive,omitempty"`
	Fault     bool            `json:"fault,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
}

type member struct {
	Name         string `json:"name,omitempty"`
	Shape        string `json:"shape"`
	LocationName string `json:"locationName,omitempty"`
	QueryName    string `json:"queryName,omitempty"`
	Location     string `json:"location,omitempty"`
	Flattened    bool   `json:"flattened,omitempty"`
	Token        bool   `json:"idempotencyToken,omitempty"`
}

func reach(shapes map[string]json.RawMessage, name string, kept map[string]shape) error {
	if _, done := kept[name]; done || name == "" {
		return nil
	}
	raw, ok := shapes[name]
	if !ok {
		return fmt.Errorf("no shape %q in the model", name)
	}
	var in struct {
		shape
		Members members `json:"members"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("decode shape %q: %w", name, err)
	}
	s := in.shape
	s.Members = in.Members
	kept[name] = s
	next := s.Members
	for _, m := range []*member{s.Member, s.Key, s.Value} {
		if m != nil {
			next = append(next, *m)
		}
	}
	for _, m := range next {
		if err := reach(shapes, m.Shape, kept); err != nil {
			return err
		}
	}
	return nil
}

// members is a JSON object of members, in the order of the text, which is the order of
// elements in AWS's answers.
type members []member

func (m *members) UnmarshalJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var one member
		if err := dec.Decode(&one); err != nil {
			return err
		}
		one.Name = name.(string)
		*m = append(*m, one)
	}
	return nil
}

func newest(dir string) ([]byte, error) {
	versions, err := filepath.Glob(filepath.Join(dir, "*", "service-2.json.gz"))
	if err != nil {
		return nil, err
	}
	if len(versions) == 0 {
		return nil, fmt.Errorf("no model in %s", dir)
	}
	sort.Strings(versions)
	f, err := os.Open(versions[len(versions)-1])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func set(m map[string]any, key string, value any, when bool) {
	if when {
		m[key] = value
	}
}

// write puts each operation and shape on a line of its own, sorted, so that a new extract
// differs from the old only where the model does.
func write(head, ops map[string]any, shapes map[string]shape) ([]byte, error) {
	var b strings.Builder
	meta, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "{\"metadata\": %s,\n\"operations\": {\n", meta)
	if err := lines(&b, ops); err != nil {
		return nil, err
	}
	b.WriteString("},\n\"shapes\": {\n")
	if err := lines(&b, shapes); err != nil {
		return nil, err
	}
	b.WriteString("}}\n")
	return []byte(b.String()), nil
}

func lines[V any](b *strings.Builder, m map[string]V) error {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	for i, name := range names {
		v, err := json.Marshal(m[name])
		if err != nil {
			return err
		}
		comma := ","
		if i == len(names)-1 {
			comma = ""
		}
		fmt.Fprintf(b, "%q: %s%s\n", name, v, comma)
	}
	return nil
}
