// Package schemas holds the JSON Schemas (2020-12) of everything people write:
// the pipeline file's envelope, and the `with` of each built-in step.
//
// It is a leaf: bytes embedded at build time go out, nothing comes in, and it
// never validates anything itself. `engine/spec` compiles what it hands out.
package schemas

import (
	"embed"
	"fmt"
	"path"
	"strings"
)

//go:embed pipeline.schema.json steps/*.json
var files embed.FS

// Pipeline returns the schema of a pipeline file, in which a step's `with` is any
// object. The caller owns the bytes.
func Pipeline() []byte {
	return mustRead("pipeline.schema.json")
}

// Step returns the schema of a built-in step's `with`. It panics for a name that has
// no schema, which is a mistake in this program. The caller owns the bytes.
func Step(name string) []byte {
	return mustRead("steps/" + name + ".json")
}

// Steps returns the names that [Step] knows, sorted.
func Steps() []string {
	entries, err := files.ReadDir("steps")
	if err != nil {
		panic(fmt.Sprintf("schemas: list embedded steps: %v", err))
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(path.Base(e.Name()), ".json")
	}
	return names
}

func mustRead(name string) []byte {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("schemas: %v", err))
	}
	return data
}
