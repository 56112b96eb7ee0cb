package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// generators are tools of the module, at the versions that its go.mod names.
var generators = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

// compile returns the descriptors of a file in dir and of all it imports, imported ones first.
func compile(ctx context.Context, dir, name string) (*descriptorpb.FileDescriptorSet, error) {
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", name, err)
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	for _, f := range files {
		collect(set, seen, f)
	}
	return set, nil
}

func collect(set *descriptorpb.FileDescriptorSet, seen map[string]bool, f protoreflect.FileDescriptor) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		collect(set, seen, f.Imports().Get(i).FileDescriptor)
	}
	set.File = append(set.File, protoutil.ProtoFromFileDescriptor(f))
}

// generate returns the code that the generators make of a file, by file name.
func generate(ctx context.Context, set *descriptorpb.FileDescriptorSet, name string) (map[string][]byte, error) {
	parameter := "paths=source_relative"
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: []string{name}, Parameter: &parameter, ProtoFile: set.GetFile()}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, err
	}
	code := map[string][]byte{}
	for _, tool := range generators {
		if err := runGenerator(ctx, tool, data, code); err != nil {
			return nil, fmt.Errorf("go tool %s: %w", tool, err)
		}
	}
	return code, nil
}

func runGenerator(ctx context.Context, tool string, req []byte, code map[string][]byte) error {
	cmd := exec.CommandContext(ctx, "go", "tool", tool)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(req), &stderr
	data, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(data, &resp); err != nil {
		return err
	}
	if resp.GetError() != "" {
		return errors.New(resp.GetError())
	}
	for _, f := range resp.GetFile() {
		code[f.GetName()] = []byte(f.GetContent())
	}
	return nil
}
