package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder returns a copy of the files that protogen works on.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../pluginv1")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func edit(t *testing.T, dir, name, old, replacement string) {
	t.Helper()
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s has no %q", name, old)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(replacement), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(t *testing.T, dir string)
		want []string
	}{
		"as it is": {edit: func(*testing.T, string) {}},
		"code changed": {
			func(t *testing.T, dir string) { edit(t, dir, "plugin.pb.go", "package pluginv1", "package pluginv1\n") },
			[]string{"plugin.pb.go isn't what plugin.proto makes; run: make generate"},
		},
		"comment added": {
			func(t *testing.T, dir string) {
				edit(t, dir, "plugin.proto", "message Pipeline {", "// A pipeline.\nmessage Pipeline {")
			},
			[]string{"plugin.pb.go isn't what plugin.proto makes"},
		},
		"field removed": {
			func(t *testing.T, dir string) { edit(t, dir, "plugin.proto", "  string release = 2;\n", "") },
			[]string{"plugin.pb.go isn't", "only add to it", "field gild.plugin.v1.Pipeline.release (2) is gone"},
		},
		"no baseline": {
			func(t *testing.T, dir string) {
				if err := os.Remove(filepath.Join(dir, baselineFile)); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"read the schema of the last release"},
		},
		"no schema": {
			func(t *testing.T, dir string) { edit(t, dir, "plugin.proto", "message Pipeline {", "message Pipeline") },
			[]string{"compile plugin.proto", "plugin.proto:"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			tc.edit(t, dir)
			err := run(t.Context(), dir, true, false)
			if (err != nil) != (tc.want != nil) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			for _, text := range tc.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error %q doesn't say %q", err, text)
				}
			}
		})
	}
}

// TestGenerate asks for the same bytes whatever was there before.
func TestGenerate(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	for _, name := range []string{"plugin.pb.go", "plugin_grpc.pb.go"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context(), dir, false, false); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s differs from the one in the repository: %v", name, err)
		}
	}
}

// TestBaseline takes what is added and refuses what breaks.
func TestBaseline(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	edit(t, dir, "plugin.proto", "message Pipeline {", "message Pipeline {\n  bool fresh = 99;")
	if err := run(t.Context(), dir, false, true); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, "plugin.proto", "bool fresh = 99;", "")
	err := run(t.Context(), dir, false, true)
	if err == nil || !strings.Contains(err.Error(), "Pipeline.fresh (99) is gone") {
		t.Errorf("got %v, want that the field is gone", err)
	}
	if err := os.Remove(filepath.Join(dir, baselineFile)); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), dir, false, true); err != nil {
		t.Errorf("the first baseline: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, baselineFile)); errors.Is(err, fs.ErrNotExist) {
		t.Error("no baseline was written")
	}
}
