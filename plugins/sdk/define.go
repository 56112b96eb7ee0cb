package sdk

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/gildhq/gild/engine/step"
)

// Option changes what [Define] makes.
type Option func(*options)

type options struct{ sources []string }

// Source gives [Define] the text of the Go files that declare the config, so that the
// comments of its fields become the descriptions in the schema, which editors show. The
// package's own comment becomes the step's Doc unless the step has one. A program
// gets the text of its own files with //go:embed.
func Source(files ...string) Option {
	return func(o *options) { o.sources = append(o.sources, files...) }
}

// Define returns meta with what follows from the types of run filled in.
//
// C is a struct; a pipeline's `with` is decoded into it. Its schema is generated unless meta
// has one: fields go by their json tags, and a field is required unless it is a pointer
// or has omitempty or omitzero. A jsonschema tag says more, such as
// `jsonschema:"minimum=1,maximum=65535"`, `jsonschema:"enum=a,enum=b"`,
// `jsonschema:"pattern=^/"` or a format: gild-path is a file or folder of the project, then
// found in Target.Inputs; gild-script is a script or the path of one; gild-duration and
// gild-size are what their names say. A [Duration] has its format already. A default in the schema
// is for readers: the field of a value that isn't given is zero.
//
// O is a struct of outputs, strings, integers, other numbers, booleans and lists, or struct{}.
// An output that is nil or left out gets the zero value of its type.
//
// Define panics when C or O can't be used, as that is a mistake in the program.
func Define[C, O any](meta Step, run func(ctx context.Context, t *Target, config C) (O, error), opts ...Option) Step {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	s, err := define[C, O](meta, o)
	if err != nil {
		panic(fmt.Sprintf("define step %q: %v", meta.Name, err))
	}
	return complete(step.Define(s, run))
}

// complete gives every declared output a value: a list that is nil, and what was left out
// because it is empty, are JSON's null or nothing.
func complete(s Step) Step {
	run := s.Run
	s.Run = func(ctx context.Context, t *Target, config json.RawMessage) (Outputs, error) {
		out, err := run(ctx, t, config)
		if err != nil {
			return nil, err
		}
		for name, kind := range s.Outputs {
			if out[name] == nil {
				out[name] = zeroOutput(kind)
			}
		}
		return out, nil
	}
	return s
}

func zeroOutput(kind string) any {
	switch kind {
	case "string":
		return ""
	case "boolean":
		return false
	case "list":
		return []any{}
	default:
		return float64(0)
	}
}

func define[C, O any](meta Step, o options) (Step, error) {
	docs, err := parseSources(o.sources)
	if err != nil {
		return Step{}, err
	}
	if meta.Doc == "" {
		meta.Doc = docs.pkg
	}
	if meta.Schema == nil {
		if meta.Schema, err = schemaOf[C](meta, docs); err != nil {
			return Step{}, err
		}
	}
	if meta.Outputs == nil {
		if meta.Outputs, err = outputsOf[O](); err != nil {
			return Step{}, err
		}
	}
	return meta, nil
}

// Validate makes a [Step].Validate of a function that takes the config decoded.
func Validate[C any](check func(ctx context.Context, config C) ([]Problem, error)) func(context.Context, json.RawMessage) ([]Problem, error) {
	return func(ctx context.Context, raw json.RawMessage) ([]Problem, error) {
		var c C
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("decode with: %w", err)
		}
		return check(ctx, c)
	}
}

// KeyParts makes a [Step].KeyParts of a function that takes the config decoded.
func KeyParts[C any](parts func(ctx context.Context, config C) (map[string]string, error)) func(context.Context, json.RawMessage) (map[string]string, error) {
	return func(ctx context.Context, raw json.RawMessage) (map[string]string, error) {
		var c C
		if err := json.Unmarshal(raw, &c); err != nil {
			return nil, fmt.Errorf("decode with: %w", err)
		}
		return parts(ctx, c)
	}
}
