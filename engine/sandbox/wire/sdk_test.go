package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	"github.com/google/go-cmp/cmp"
)

func clients(c aws.Config) map[string]reflect.Value {
	all := map[string]any{
		"ec2": ec2.NewFromConfig(c), "ssm": ssm.NewFromConfig(c), "ebs": ebs.NewFromConfig(c), "sts": sts.NewFromConfig(c),
		"iam": iam.NewFromConfig(c), "kms": kms.NewFromConfig(c), "ec2-instance-connect": ec2instanceconnect.NewFromConfig(c),
	}
	out := map[string]reflect.Value{}
	for name, client := range all {
		out[name] = reflect.ValueOf(client)
	}
	return out
}

// TestSDK calls every operation through the SDK, with parameters and answers made from the
// model, and holds what came out at either end against what went in.
func TestSDK(t *testing.T) {
	t.Parallel()
	services, err := load()
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeService{}
	all := clients(config(serve(t, f)))
	for name, s := range services {
		for _, op := range s.operations {
			for seed := range uint64(4) {
				callSDK(t, all[name], f, s, op, seed)
			}
		}
	}
}

func callSDK(t *testing.T, client reflect.Value, f *fakeService, s *service, op *operation, seed uint64) {
	t.Helper()
	in, out := example(s, op, seed)
	f.expect(out)
	method := client.MethodByName(op.name)
	if !method.IsValid() {
		t.Errorf("%s has no %s", s.name, op.name)
		return
	}
	input := reflect.New(method.Type().In(1).Elem())
	fill(t, input.Elem(), in)
	got := method.Call([]reflect.Value{reflect.ValueOf(context.Context(t.Context())), input})
	if err, _ := got[1].Interface().(error); err != nil {
		t.Errorf("%s %s: %v\nasked with %s", s.name, op.name, err, flat(in))
		return
	}
	asked := f.last(t).Params
	dropTokens(op.input, in, asked)
	if diff := cmp.Diff(in, asked); diff != "" {
		t.Errorf("%s %s: params (-sent +got):\n%s", s.name, op.name, diff)
	}
	back := plain(t, got[0].Elem(), out)
	if diff := cmp.Diff(out, back); diff != "" {
		t.Errorf("%s %s: answer (-sent +got):\n%s", s.name, op.name, diff)
	}
}

// example makes parameters and an answer of an operation.
func example(s *service, op *operation, seed uint64) (in, out map[string]any) {
	in, out = map[string]any{}, map[string]any{}
	g := &maker{random: rand.New(rand.NewPCG(seed, 7)), seconds: s.protocol == protocolQuery, input: true}
	if op.input != nil {
		in = g.value(op.input, 6).(map[string]any)
		if p := op.input.payload; p != "" {
			in["(body)"] = in[p]
			delete(in, p)
		}
	}
	if op.output != nil {
		out = g.value(op.output, 6).(map[string]any)
	}
	return in, out
}

// dropTokens removes idempotency tokens that the client made itself.
func dropTokens(in *shape, sent, got map[string]any) {
	if in == nil {
		return
	}
	for _, name := range []string{"ClientToken", "PresignedUrl", "DestinationRegion"} {
		if _, ok := sent[name]; !ok || name != "ClientToken" {
			delete(got, name)
			delete(sent, name)
		}
	}
}

// fill sets an SDK's struct from plain values.
func fill(t *testing.T, to reflect.Value, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		if to.Kind() == reflect.Map {
			to.Set(reflect.MakeMap(to.Type()))
			for k, item := range v {
				one := reflect.New(to.Type().Elem()).Elem()
				fill(t, one, item)
				to.SetMapIndex(reflect.ValueOf(k).Convert(to.Type().Key()), one)
			}
			return
		}
		if to.Kind() == reflect.Pointer {
			to.Set(reflect.New(to.Type().Elem()))
			to = to.Elem()
		}
		for name, item := range v {
			if name == "DestinationRegion" {
				continue // the SDK fills it in itself
			}
			if name == "(body)" {
				to.FieldByName("BlockData").Set(reflect.ValueOf(bytes.NewReader(item.([]byte))))
				continue
			}
			field := to.FieldByName(strings.ToUpper(name[:1]) + name[1:])
			if !field.IsValid() {
				t.Errorf("%s has no field %s", to.Type(), name)
				continue
			}
			fill(t, field, item)
		}
	case []any:
		to.Set(reflect.MakeSlice(to.Type(), len(v), len(v)))
		for i, item := range v {
			fill(t, to.Index(i), item)
		}
	default:
		if to.Kind() == reflect.Pointer {
			to.Set(reflect.New(to.Type().Elem()))
			to = to.Elem()
		}
		to.Set(reflect.ValueOf(v).Convert(to.Type()))
	}
}

// plain is what fill was given: the values of an SDK's struct. Where the SDK doesn't tell
// nothing from zero, like does.
func plain(t *testing.T, v reflect.Value, like any) any {
	t.Helper()
	switch got := v.Interface().(type) {
	case time.Time:
		return got.UTC()
	case []byte:
		return got
	case io.ReadCloser:
		data, err := io.ReadAll(got)
		if err := errors.Join(err, got.Close()); err != nil {
			t.Error(err)
		}
		return data
	}
	switch v.Kind() {
	case reflect.Pointer:
		return plain(t, v.Elem(), like)
	case reflect.Struct:
		return plainStruct(t, v, like)
	case reflect.Slice:
		out := make([]any, v.Len())
		likes, _ := like.([]any)
		for i := range out {
			var one any
			if i < len(likes) {
				one = likes[i]
			}
			out[i] = plain(t, v.Index(i), one)
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			out[it.Key().String()] = plain(t, it.Value(), nil)
		}
		return out
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	case reflect.Int32, reflect.Int64:
		return v.Int()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	}
	t.Errorf("a value of type %s", v.Type())
	return nil
}

func plainStruct(t *testing.T, v reflect.Value, like any) any {
	t.Helper()
	out := map[string]any{}
	likes, _ := like.(map[string]any)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		_, wanted := likes[f.Name]
		if !f.IsExported() || f.Type == reflect.TypeFor[middleware.Metadata]() {
			continue
		}
		if scalar := f.Type.Kind() != reflect.Pointer; v.Field(i).IsZero() && !(scalar && wanted) {
			continue
		}
		out[f.Name] = plain(t, v.Field(i), likes[f.Name])
	}
	return out
}
