// Command protogen makes the Go code of plugin.proto, with no protobuf compiler but what Go
// modules bring, so that every host makes the same bytes.
//
//	protogen            writes the code
//	protogen -check     fails when the code isn't that of plugin.proto, or when plugin.proto
//	                    breaks what programs built with the baseline rely on
//	protogen -baseline  makes plugin.proto the baseline, which it must not break; for a release
//
// It is run in the folder of plugin.proto. The baseline is that of the last release.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/gildhq/gild/plugins/proto/compat"
)

const (
	protoFile    = "plugin.proto"
	baselineFile = "baseline.binpb"
)

func main() {
	check := flag.Bool("check", false, "fail when generated code is out of date or the baseline is broken")
	baseline := flag.Bool("baseline", false, "make plugin.proto the baseline")
	flag.Parse()
	if err := run(context.Background(), ".", *check, *baseline); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, check, baseline bool) error {
	set, err := compile(ctx, dir, protoFile)
	if err != nil {
		return err
	}
	if baseline {
		// The first one has none before it.
		if err := checkBaseline(dir, set); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return writeBaseline(dir, set)
	}
	code, err := generate(ctx, set, protoFile)
	if err != nil {
		return err
	}
	if check {
		return errors.Join(checkCode(dir, code), checkBaseline(dir, set))
	}
	for name, text := range code {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func checkCode(dir string, code map[string][]byte) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(code)) {
		is, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.Equal(is, code[name]) {
			errs = append(errs, fmt.Errorf("%s isn't what %s makes; run: make generate", name, protoFile))
		}
	}
	return errors.Join(errs...)
}

// checkBaseline fails when the schema breaks that of the baseline, or when there is none.
func checkBaseline(dir string, set *descriptorpb.FileDescriptorSet) error {
	data, err := os.ReadFile(filepath.Join(dir, baselineFile))
	if err != nil {
		return fmt.Errorf("read the schema of the last release: %w", err)
	}
	base := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, base); err != nil {
		return fmt.Errorf("read %s: %w", baselineFile, err)
	}
	breaks, err := compat.Breaks(base, set)
	if err != nil {
		return err
	}
	if len(breaks) > 0 {
		return fmt.Errorf("%s breaks plugins that were built with the last release; only add to it, or begin another version:\n  %s", protoFile, strings.Join(breaks, "\n  "))
	}
	return nil
}

// writeBaseline keeps the schema without its comments, which break nothing.
func writeBaseline(dir string, set *descriptorpb.FileDescriptorSet) error {
	bare := proto.CloneOf(set)
	for _, f := range bare.GetFile() {
		f.SourceCodeInfo = nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, baselineFile), data, 0o644)
}
