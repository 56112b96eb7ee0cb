package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/gildhq/gild/plugins/sdk"
)

// source has the comments of Config, for the schema.
//
//go:embed push.go
var source string

// artifactType tells an image of gild from other artifacts.
const artifactType = "application/vnd.gild.image.v1"

// Keys of the annotations that oci-push adds to the standard ones.
const (
	nameKey    = "io.github.gildhq.image.name"
	releaseKey = "io.github.gildhq.image.release"
	archKey    = "io.github.gildhq.image.arch"
	// sha256Key holds the SHA-256 of a layer's file before compression, in hex.
	sha256Key = "io.github.gildhq.image.sha256"
)

// removeWithin bounds the removal of a tag whose push went wrong.
const removeWithin = 30 * time.Second

// Config is the step's `with`.
type Config struct {
	// Where to: registry/repository:tag.
	Reference string `json:"reference" jsonschema:"minLength=1"`
	// Which of the image's files, raw and qcow2; unless given, qcow2 if there is one, else raw.
	Formats []string `json:"formats,omitempty" jsonschema:"minItems=1,uniqueItems=true,enum=raw,enum=qcow2"`
	// How the files are compressed.
	Compression string `json:"compression,omitempty" jsonschema:"enum=none,enum=gzip,enum=zstd,default=none"`
	// Speak HTTP without TLS; unless given, only to a registry on this host.
	PlainHTTP *bool `json:"plain-http,omitempty"`
}

// Outputs are the step's outputs.
type Outputs struct {
	// Reference is the config's, Digest that of the manifest ("sha256:...").
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
}

// push pushes what the registry lacks: first each file, then the manifest under the tag.
// Until the manifest is there nobody sees the files, and the registry lets go of them in
// time; so only the manifest is claimed.
func push(ctx context.Context, t *sdk.Target, c Config) (Outputs, error) {
	to, err := parseDestination(c.Reference, c.PlainHTTP)
	if err != nil {
		return Outputs{}, permanent(err)
	}
	login, err := credential(t.Env)
	if err != nil {
		return Outputs{}, permanent(err)
	}
	layers, err := openLayers(ctx, t, c)
	if err != nil {
		return Outputs{}, err
	}
	defer closeLayers(layers)
	manifest, desc, err := describe(t, to, layers)
	if err != nil {
		return Outputs{}, err
	}
	reg, err := connect(to, login)
	if err != nil {
		return Outputs{}, permanent(err)
	}
	defer reg.close()
	out := Outputs{Reference: to.String(), Digest: desc.Digest.String()}
	done, err := reg.has(ctx, desc)
	if err != nil {
		return Outputs{}, refused(fmt.Errorf("ask for %s: %w", to, err))
	}
	if done {
		fmt.Fprintf(t.Log, "%s is there already, with the digest %s\n", to, desc.Digest)
		return out, nil
	}
	if err := reg.pushLayers(ctx, t, layers); err != nil {
		return Outputs{}, refused(err)
	}
	if err := pushManifest(ctx, t, reg, desc, manifest); err != nil {
		return Outputs{}, refused(err)
	}
	fmt.Fprintf(t.Log, "pushed %s, digest %s\n", to, desc.Digest)
	return out, nil
}

// describe makes the manifest and its descriptor. The same image at the same tag gives the
// same bytes. The tag is in it, so that no other tag has the same digest: a registry
// removes by digest, and that must not take another tag away.
func describe(t *sdk.Target, to destination, layers []*layer) ([]byte, ocispec.Descriptor, error) {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       ocispec.DescriptorEmptyJSON,
		Annotations: map[string]string{
			ocispec.AnnotationCreated: t.Clock.UTC().Format(time.RFC3339),
			ocispec.AnnotationTitle:   imageName(t.Pipeline),
			ocispec.AnnotationVersion: t.Pipeline.Release,
			ocispec.AnnotationRefName: to.ref.Reference,
			nameKey:                   t.Pipeline.Name,
			releaseKey:                t.Pipeline.Release,
			archKey:                   t.Pipeline.Arch,
		},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.desc)
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, ocispec.Descriptor{}, fmt.Errorf("encode the manifest: %w", err)
	}
	desc := content.NewDescriptorFromBytes(m.MediaType, text)
	desc.ArtifactType = artifactType
	return text, desc, nil
}

// imageName is the name that the image's files have.
func imageName(p sdk.PipelineInfo) string {
	return strings.Join(slices.DeleteFunc([]string{p.Name, p.Release, p.Arch}, func(s string) bool { return s == "" }), "-")
}

// pushManifest makes the tag. When the registry's answer is an error, or never comes, the
// tag may be there all the same: it is removed before the claim is given back.
func pushManifest(ctx context.Context, t *sdk.Target, reg *registryClient, desc ocispec.Descriptor, manifest []byte) error {
	settle, err := t.Claim(ctx, sdk.Resource{
		Kind: uploadKind,
		ID:   upload{reg.to, desc.Digest}.String(),
		Note: "tag that was being pushed",
	})
	if err != nil {
		return fmt.Errorf("claim the tag: %w", err)
	}
	pushed := reg.repo.PushReference(ctx, desc, bytes.NewReader(manifest), reg.to.ref.Reference)
	if pushed == nil {
		return settle(ctx)
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWithin)
	defer cancel()
	pushed = fmt.Errorf("push the manifest to %s: %w", reg.to, pushed)
	if err := reg.remove(after, desc.Digest); err != nil {
		return errors.Join(pushed, err)
	}
	return errors.Join(pushed, settle(after))
}

func permanent(err error) error { return &sdk.Permanent{Err: err} }

// refused marks an error that the registry will answer with again, and says what to do
// when it wants to know who is asking.
func refused(err error) error {
	if notLetIn(err) {
		return permanent(fmt.Errorf("%w; give the step USERNAME and PASSWORD, or TOKEN, in its env", err))
	}
	switch status := statusOf(err); {
	case status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status < 400 || status >= 500:
		return err
	}
	return permanent(err)
}

// notLetIn reports whether the registry wants other credentials.
func notLetIn(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden || errors.Is(err, auth.ErrBasicCredentialNotFound)
}

// statusOf returns the HTTP status that the registry answered with, 0 when it didn't.
func statusOf(err error) int {
	var resp *errcode.ErrorResponse
	if errors.As(err, &resp) {
		return resp.StatusCode
	}
	return 0
}
