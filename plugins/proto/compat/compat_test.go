package compat_test

import (
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/gildhq/gild/plugins/proto/compat"
)

const base = `syntax = "proto3";
package p.v1;
option go_package = "example/p";

message M {
  reserved 8 to 10, 12;
  reserved "old";
  string text = 1;
  repeated int32 numbers = 2;
  Inner inner = 3;
  E kind = 4;
  map<string, int32> counts = 5;
  oneof choice {
    string left = 6;
    bytes right = 7;
  }
  optional bool maybe = 11;
  int64 two_words = 13;
  message Inner { string deep = 1; }
  enum E { ZERO = 0; ONE = 1; }
}
message Other {}
enum Color {
  reserved 5 to 6;
  reserved "GREY";
  RED = 0;
  BLUE = 1;
}
service S {
  rpc One(M) returns (Other);
  rpc Many(stream M) returns (stream M);
}
service T {}
`

func compile(t *testing.T, files map[string]string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}}
	set := &descriptorpb.FileDescriptorSet{}
	for name := range files {
		compiled, err := c.Compile(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, protoutil.ProtoFromFileDescriptor(compiled[0]))
	}
	return set
}

func TestBreaks(t *testing.T) {
	t.Parallel()
	was := compile(t, map[string]string{"p.proto": base})
	for name, tc := range map[string]struct {
		old, new string
		want     []string
	}{
		"nothing":         {"", "", nil},
		"comment":         {"string text = 1;", "string text = 1; // of it", nil},
		"field added":     {"string text = 1;", "string text = 1; string more = 20;", nil},
		"message added":   {"message Other {}", "message Other {} message New {}", nil},
		"value added":     {"BLUE = 1;", "BLUE = 1; GREEN = 2;", nil},
		"method added":    {"service T {}", "service T { rpc New(M) returns (M); }", nil},
		"service added":   {"service T {}", "service T {} service U {}", nil},
		"order":           {"  string text = 1;\n  repeated int32 numbers = 2;", "  repeated int32 numbers = 2;\n  string text = 1;", nil},
		"reserved more":   {"reserved 8 to 10, 12;", "reserved 8 to 10, 12, 30 to 40;", nil},
		"reserved joined": {"reserved 8 to 10, 12;\n", "reserved 10, 12, 8 to 9;\n", nil},

		"package":    {"package p.v1;", "package p.v2;", []string{"file p.proto: its package was p.v1 and is p.v2"}},
		"go package": {`"example/p"`, `"example/q"`, []string{"file p.proto: go_package was example/p and is example/q"}},

		"message renamed":        {"Other", "Another", []string{"message p.v1.Other is gone", "method p.v1.S.One: its response was p.v1.Other and is p.v1.Another"}},
		"nested message renamed": {"Inner", "Nested", []string{"field p.v1.M.inner (3): its type was p.v1.M.Inner and is p.v1.M.Nested", "message p.v1.M.Inner is gone"}},

		"field removed":        {"  string text = 1;\n", "", []string{"field p.v1.M.text (1) is gone"}},
		"field reserved":       {"  string text = 1;\n", "  reserved 1;\n", []string{"field p.v1.M.text (1) is gone"}},
		"field renumbered":     {"string text = 1;", "string text = 21;", []string{"field p.v1.M.text: its number was 1 and is 21"}},
		"field renamed":        {"string text = 1;", "string words = 1;", []string{`field p.v1.M.text (1): its name in JSON was text and is words`, `field p.v1.M.text (1): its name was text and is words`}},
		"name in JSON":         {"int64 two_words = 13;", `int64 two_words = 13 [json_name = "two"];`, []string{"field p.v1.M.two_words (13): its name in JSON was twoWords and is two"}},
		"field retyped":        {"string text = 1;", "bytes text = 1;", []string{"field p.v1.M.text (1): its type was string and is bytes"}},
		"number retyped":       {"int64 two_words", "sint64 two_words", []string{"field p.v1.M.two_words (13): its type was int64 and is sint64"}},
		"message for another":  {"Inner inner = 3;", "Other inner = 3;", []string{"field p.v1.M.inner (3): its type was p.v1.M.Inner and is p.v1.Other"}},
		"enum for another":     {"E kind = 4;", "Color kind = 4;", []string{"field p.v1.M.kind (4): its type was p.v1.M.E and is p.v1.Color"}},
		"map's value":          {"map<string, int32> counts", "map<string, string> counts", []string{"field p.v1.M.counts (5): its type was map<string, int32> and is map<string, string>"}},
		"made repeated":        {"string text = 1;", "repeated string text = 1;", []string{"field p.v1.M.text (1): its cardinality was optional and is repeated"}},
		"made single":          {"repeated int32 numbers", "int32 numbers", []string{"field p.v1.M.numbers (2): its cardinality was repeated and is optional"}},
		"presence taken":       {"optional bool maybe", "bool maybe", []string{"field p.v1.M.maybe (11): that it can be told from absent was true and is false"}},
		"presence given":       {"string text = 1;", "optional string text = 1;", []string{"field p.v1.M.text (1): that it can be told from absent was false and is true"}},
		"moved out of a oneof": {"  oneof choice {\n    string left = 6;", "  optional string left = 6;\n  oneof choice {", []string{"field p.v1.M.left (6): its oneof was choice and is none"}},
		"oneof renamed": {"oneof choice", "oneof option_", []string{
			"field p.v1.M.left (6): its oneof was choice and is option_", "field p.v1.M.right (7): its oneof was choice and is option_", "oneof p.v1.M.choice is gone"}},
		"deep field removed":       {"string deep = 1;", "", []string{"field p.v1.M.Inner.deep (1) is gone"}},
		"number not reserved":      {"reserved 8 to 10, 12;", "reserved 8 to 10;", []string{"message p.v1.M: the numbers 12 to 12 aren't reserved any more"}},
		"range shortened":          {"reserved 8 to 10, 12;", "reserved 8 to 9, 12;", []string{"message p.v1.M: the numbers 8 to 10 aren't reserved any more"}},
		"name not reserved":        {`  reserved "old";` + "\n", "", []string{`message p.v1.M: the name "old" isn't reserved any more`}},
		"enum's range shortened":   {"reserved 5 to 6;", "reserved 5;", []string{"enum p.v1.Color: the numbers 5 to 6 aren't reserved any more"}},
		"enum's name not reserved": {`  reserved "GREY";` + "\n", "", []string{`enum p.v1.Color: the name "GREY" isn't reserved any more`}},

		"enum renamed":     {"enum Color", "enum Colour", []string{"enum p.v1.Color is gone"}},
		"value removed":    {"  BLUE = 1;\n", "", []string{"enum value p.v1.BLUE (1) is gone"}},
		"value renamed":    {"BLUE = 1;", "AZURE = 1;", []string{"enum value p.v1.BLUE (1): its name was BLUE and is AZURE"}},
		"value renumbered": {"BLUE = 1;", "BLUE = 2;", []string{"enum value p.v1.BLUE: its number was 1 and is 2"}},
		"nested value":     {"ONE = 1;", "", []string{"enum value p.v1.M.ONE (1) is gone"}},

		"service removed":  {"service T {}", "", []string{"service p.v1.T is gone"}},
		"method removed":   {"  rpc One(M) returns (Other);\n", "", []string{"method p.v1.S.One is gone"}},
		"method renamed":   {"rpc One(", "rpc Single(", []string{"method p.v1.S.One is gone"}},
		"request":          {"rpc One(M)", "rpc One(Other)", []string{"method p.v1.S.One: its request was p.v1.M and is p.v1.Other"}},
		"response":         {"rpc One(M) returns (Other)", "rpc One(M) returns (M)", []string{"method p.v1.S.One: its response was p.v1.Other and is p.v1.M"}},
		"streams requests": {"rpc One(M)", "rpc One(stream M)", []string{"method p.v1.S.One: that it streams requests was false and is true"}},
		"stops streaming":  {"returns (stream M)", "returns (M)", []string{"method p.v1.S.Many: that it streams responses was true and is false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(base, tc.old) {
				t.Fatalf("the base has no %q", tc.old)
			}
			now := compile(t, map[string]string{"p.proto": strings.ReplaceAll(base, tc.old, tc.new)})
			got, err := compat.Breaks(was, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestFileRemoved(t *testing.T) {
	t.Parallel()
	was := compile(t, map[string]string{"p.proto": base})
	got, err := compat.Breaks(was, compile(t, map[string]string{"q.proto": base}))
	if d := cmp.Diff([]string{"file p.proto is gone"}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
}

func TestSyntaxChanged(t *testing.T) {
	t.Parallel()
	const before, after = `syntax = "proto3"; message M { optional string s = 1; }`, `syntax = "proto2"; message M { optional string s = 1; }`
	got, err := compat.Breaks(compile(t, map[string]string{"p.proto": before}), compile(t, map[string]string{"p.proto": after}))
	if d := cmp.Diff([]string{"file p.proto: its syntax was proto3 and is proto2"}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
}

func TestNoSchema(t *testing.T) {
	t.Parallel()
	missing := "nowhere.proto"
	broken := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{Name: &missing, Dependency: []string{"none.proto"}}}}
	good := compile(t, map[string]string{"p.proto": base})
	if _, err := compat.Breaks(broken, good); err == nil || !strings.Contains(err.Error(), "read the older schema") {
		t.Errorf("got %v", err)
	}
	if _, err := compat.Breaks(good, broken); err == nil || !strings.Contains(err.Error(), "read the newer schema") {
		t.Errorf("got %v", err)
	}
}
