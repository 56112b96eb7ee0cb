package sdk_test

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
)

func validateSchema(t *testing.T, schema []byte, value any) error {
	t.Helper()
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", bytes.NewReader(schema)); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled.Validate(value)
}
