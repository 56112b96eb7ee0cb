package source_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/gildhq/gild/plugins/source"
	"github.com/gildhq/gild/plugins/source/registrytest"
)

// pusher puts artifacts into a registry.
type pusher struct {
	t    *testing.T
	repo *remote.Repository
}

func newPusher(t *testing.T, address string) pusher {
	t.Helper()
	repo, err := remote.NewRepository(address + "/acme/motd")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	repo.Client = &auth.Client{Client: client, Credential: auth.StaticCredential(address, auth.Credential{Username: registrytest.User, Password: registrytest.Password})}
	return pusher{t, repo}
}

func (p pusher) blob(mediaType string, data []byte) ocispec.Descriptor {
	p.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if err := p.repo.Push(context.Background(), d, bytes.NewReader(data)); err != nil {
		p.t.Fatal(err)
	}
	return d
}

func (p pusher) json(mediaType string, v any) ocispec.Descriptor {
	p.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.blob(mediaType, data)
}

func (p pusher) artifact(layers ...ocispec.Descriptor) ocispec.Descriptor {
	p.t.Helper()
	return p.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: p.blob("application/vnd.oci.empty.v1+json", []byte("{}")), Layers: layers,
	})
}

func (p pusher) layer(text, title string) ocispec.Descriptor {
	p.t.Helper()
	d := p.blob("application/octet-stream", []byte(text))
	if title != "" {
		d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
	}
	return d
}

func (p pusher) index(manifests map[string]ocispec.Descriptor) ocispec.Descriptor {
	p.t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for platform, m := range manifests {
		os, arch, _ := strings.Cut(platform, "/")
		m.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		index.Manifests = append(index.Manifests, m)
	}
	return p.json(ocispec.MediaTypeImageIndex, index)
}

func (p pusher) tag(d ocispec.Descriptor, tag string) {
	p.t.Helper()
	if err := p.repo.Tag(context.Background(), d, tag); err != nil {
		p.t.Fatal(err)
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	address := registrytest.Start(t, false)
	p := newPusher(t, address)
	single := p.artifact(p.layer("single", ""))
	p.tag(single, "single")
	layered := p.artifact(p.layer("l-amd64", "motd_linux_amd64.tar.gz"), p.layer("l-arm64", "motd-linux-arm64"))
	p.tag(layered, "layered")
	amd64, arm64 := p.artifact(p.layer("i-amd64", "")), p.artifact(p.layer("i-arm64", ""))
	p.tag(p.index(map[string]ocispec.Descriptor{"linux/arm64": arm64, "linux/amd64": amd64, "unknown/unknown": single}), "index")
	p.tag(p.index(map[string]ocispec.Descriptor{"windows/amd64": single}), "windows")
	p.tag(p.index(map[string]ocispec.Descriptor{"linux/amd64": layered}), "two-in-one")
	p.tag(p.artifact(p.layer("a", "README"), p.layer("b", "motd")), "unclear")
	p.tag(p.artifact(p.layer("a", "a_linux_amd64"), p.layer("b", "b_linux_amd64")), "twice")
	p.tag(p.artifact(p.layer(strings.Repeat("x", 2000), "")), "large")

	base := "oci://" + address + "/acme/motd"
	pin := func(d ocispec.Descriptor) string { return base + "@" + d.Digest.String() }
	c := &source.Client{MaxBytes: 1000}
	for name, test := range map[string]struct {
		ref  string
		req  source.Request
		want [][3]string
		err  string
	}{
		"one layer":             {":single", source.Request{}, [][3]string{{"", pin(single), "single"}}, ""},
		"one layer by digest":   {"@" + single.Digest.String(), source.Request{Platforms: []string{"linux/amd64"}}, [][3]string{{"", pin(single), "single"}}, ""},
		"a layer per platform":  {":layered", source.Request{}, [][3]string{{"linux/amd64", pin(layered), "l-amd64"}, {"linux/arm64", pin(layered), "l-arm64"}}, ""},
		"one of its layers":     {":layered", source.Request{Platforms: []string{"linux/arm64"}}, [][3]string{{"linux/arm64", pin(layered), "l-arm64"}}, ""},
		"index":                 {":index", source.Request{}, [][3]string{{"linux/amd64", pin(amd64), "i-amd64"}, {"linux/arm64", pin(arm64), "i-arm64"}}, ""},
		"one of the index":      {":index", source.Request{Platforms: []string{"linux/amd64"}}, [][3]string{{"linux/amd64", pin(amd64), "i-amd64"}}, ""},
		"not in the index":      {":index", source.Request{Platforms: []string{"linux/riscv64"}}, nil, "nothing for linux/riscv64, but for linux/amd64, linux/arm64"},
		"nothing for linux":     {":windows", source.Request{}, nil, "nothing for linux"},
		"index of many layers":  {":two-in-one", source.Request{}, nil, "has 2 layers, and must have 1"},
		"layers of no platform": {":unclear", source.Request{}, nil, "says no platform"},
		"two for one platform":  {":twice", source.Request{}, nil, "two files for linux/amd64"},
		"too large":             {":large", source.Request{}, nil, "it has 2000 bytes"},
		"missing":               {":none", source.Request{}, nil, "not found"},
		"a digest of a file":    {":single", source.Request{SHA256: map[string]string{"": sum("x")}}, nil, "end the reference with @sha256:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.req.Scratch = t.TempDir()
			items, err := c.Fetch(t.Context(), parse(t, base+test.ref), test.req)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), base) {
					t.Errorf("got %v; want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, read(t, items)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRegistryLogin(t *testing.T) {
	t.Parallel()
	address := registrytest.Start(t, true)
	p := newPusher(t, address)
	p.tag(p.artifact(p.layer("single", "")), "1.0.0")
	s := parse(t, "oci://"+address+"/acme/motd:1.0.0")
	c := &source.Client{DockerConfig: registrytest.DockerConfig(t, address)}
	items, err := c.Fetch(t.Context(), s, source.Request{Scratch: t.TempDir()})
	if err != nil || len(items) != 1 {
		t.Errorf("with a login: %v, %v", items, err)
	}
	c.DockerConfig = registrytest.DockerConfig(t, "registry.example")
	if _, err := c.Fetch(t.Context(), s, source.Request{Scratch: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "log in to "+address) {
		t.Errorf("without: %v", err)
	}
}
