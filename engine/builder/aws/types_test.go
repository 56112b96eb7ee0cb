package aws

import (
	"reflect"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// TestTheSDKIsNotWithinReach holds the types that reflection gets to from a builder, which is
// kept in an interface, against the clients that would then be linked with all their methods.
func TestTheSDKIsNotWithinReach(t *testing.T) {
	t.Parallel()
	seen := reached(map[reflect.Type]bool{}, reflect.TypeFor[*Builder]())
	for _, large := range []reflect.Type{reflect.TypeFor[ec2.Client](), reflect.TypeFor[iam.Client]()} {
		if seen[large] {
			t.Errorf("a builder has a %s: it must be reached through functions, as in client.EC2", large)
		}
	}
	if !seen[reflect.TypeFor[ec2.DescribeImagesInput]()] {
		t.Error("not even what is asked of EC2 was found; the test would prove nothing")
	}
}

// reached adds a type, and all types that it is made of, to seen.
func reached(seen map[reflect.Type]bool, t reflect.Type) map[reflect.Type]bool {
	if seen[t] {
		return seen
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Map:
		reached(seen, t.Key())
		reached(seen, t.Elem())
	case reflect.Array, reflect.Chan, reflect.Pointer, reflect.Slice:
		reached(seen, t.Elem())
	case reflect.Struct:
		for f := range t.NumField() {
			reached(seen, t.Field(f).Type)
		}
	case reflect.Func:
		for i := range t.NumIn() {
			reached(seen, t.In(i))
		}
		for i := range t.NumOut() {
			reached(seen, t.Out(i))
		}
	}
	return seen
}
