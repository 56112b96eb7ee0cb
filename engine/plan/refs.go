package plan

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gildhq/gild/engine/spec"
)

// fileRef is a place in a step's `with` that names a file of the project.
type fileRef struct {
	Pointer, Name string
}

// schemaNode is the part of a JSON Schema that can lead to a file format.
type schemaNode struct {
	Format               string                 `json:"format"`
	Properties           map[string]*schemaNode `json:"properties"`
	AdditionalProperties json.RawMessage        `json:"additionalProperties"`
	Items                *schemaNode            `json:"items"`
}

// fileFormats are the schemas' formats that can make a text the path of a file.
var fileFormats = [][]byte{[]byte(`"gild-path"`), []byte(`"gild-script"`)}

// fileSchema parses a step's schema; nil means that it names no files.
func fileSchema(schema []byte) *schemaNode {
	if !slices.ContainsFunc(fileFormats, func(format []byte) bool { return bytes.Contains(schema, format) }) {
		return nil
	}
	var root schemaNode
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil // the catalog compiled it; a schema of another shape has no file formats
	}
	return &root
}

// refs finds what a step's schema marks as paths of the project: "gild-path" always
// is one, "gild-script" is one when it begins with ./ or ../ and is a single line.
func (s *schemaNode) refs(with spec.Value) []fileRef {
	if s == nil {
		return nil
	}
	var value any
	if err := json.Unmarshal(with.Canonical(), &value); err != nil {
		return nil
	}
	var refs []fileRef
	s.walk(value, "", &refs)
	return refs
}

func (s *schemaNode) walk(value any, pointer string, refs *[]fileRef) {
	switch v := value.(type) {
	case string:
		if s.Format == "gild-path" || s.Format == "gild-script" && isScriptFile(v) {
			*refs = append(*refs, fileRef{pointer, v})
		}
	case []any:
		if s.Items == nil {
			return
		}
		for i, item := range v {
			s.Items.walk(item, pointer+"/"+strconv.Itoa(i), refs)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if child := s.child(name); child != nil {
				child.walk(v[name], pointer+"/"+escapePointer(name), refs)
			}
		}
	}
}

func (s *schemaNode) child(name string) *schemaNode {
	if child, ok := s.Properties[name]; ok {
		return child
	}
	var extra schemaNode
	if len(s.AdditionalProperties) > 0 && json.Unmarshal(s.AdditionalProperties, &extra) == nil {
		return &extra
	}
	return nil
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")

func escapePointer(name string) string { return pointerEscaper.Replace(name) }

// isScriptFile tells whether a "gild-script" value names a file.
func isScriptFile(v string) bool {
	return (strings.HasPrefix(v, "./") || strings.HasPrefix(v, "../")) && !strings.Contains(v, "\n")
}
