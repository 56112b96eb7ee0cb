package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/gildhq/gild/plugins/source/registrytest"
)

// TestPluginNetwork runs the scripts whose plugins come from a web site and a registry. Both
// have the example plugin gild/hello for this machine, and the beginning of a program for
// another.
func TestPluginNetwork(t *testing.T) {
	t.Parallel()
	site := t.TempDir()
	hello := filepath.Join(site, "hello_linux_"+runtime.GOARCH)
	build := exec.Command("go", "build", "-o", hello, "github.com/gildhq/gild/plugins/example/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the example: %v\n%s", err, out)
	}
	other, machine := "arm64", elf.EM_AARCH64
	if runtime.GOARCH == other {
		other, machine = "amd64", elf.EM_X86_64
	}
	head := make([]byte, 64)
	copy(head, elf.ELFMAG)
	head[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	binary.LittleEndian.PutUint16(head[18:], uint16(machine))
	program, err := os.ReadFile(hello)
	if err := errors.Join(err, os.WriteFile(filepath.Join(site, "hello_linux_"+other), head, 0o600)); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(site)))
	t.Cleanup(server.Close)
	registry := registrytest.Start(t, false)
	pushIndex(t, registry+"/gild/hello", "1.0.0", map[string][]byte{runtime.GOARCH: program, other: head})

	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "plugin"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
		Setup: func(env *testscript.Env) error {
			env.Setenv("GILD_STATE", filepath.Join(env.WorkDir, "state"))
			env.Setenv("LC_ALL", "C.UTF-8")
			env.Setenv("SITE", server.URL)
			env.Setenv("REGISTRY", registry)
			env.Setenv("HERE", "linux/"+runtime.GOARCH)
			env.Setenv("OTHER", "linux/"+other)
			env.Setenv("SUM", digest.FromBytes(program).Encoded())
			env.Setenv("OTHER_SUM", digest.FromBytes(head).Encoded())
			return nil
		},
	})
}

// pushIndex pushes an index of artifacts, one for each architecture.
func pushIndex(t *testing.T, name, tag string, programs map[string][]byte) {
	t.Helper()
	repo, err := remote.NewRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	push := func(mediaType string, v any) ocispec.Descriptor {
		data, ok := v.([]byte)
		if !ok {
			if data, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := repo.Push(context.Background(), d, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for arch, program := range programs {
		m := push(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: push("application/vnd.oci.empty.v1+json", []byte("{}")),
			Layers: []ocispec.Descriptor{push("application/octet-stream", program)},
		})
		m.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		index.Manifests = append(index.Manifests, m)
	}
	if err := repo.Tag(context.Background(), push(ocispec.MediaTypeImageIndex, index), tag); err != nil {
		t.Fatal(err)
	}
}
