package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

const (
	// maxManifest bounds what a registry may answer about an artifact, in bytes.
	maxManifest = 4 << 20
	// dockerList is docker's name for an index.
	dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// reference reads an OCI reference, which must name a tag or digest.
func reference(text string) (registry.Reference, error) {
	ref, err := registry.ParseReference(strings.TrimPrefix(text, ociPrefix))
	if err != nil {
		return ref, fmt.Errorf("the source %q is no OCI reference, which looks like oci://registry.example/acme/motd:1.0.0: %w", text, err)
	}
	if ref.Reference == "" {
		return ref, fmt.Errorf("the source %q names no tag or digest; add one, such as %s:1.0.0", text, text)
	}
	return ref, nil
}

// part is one file of an artifact.
type part struct {
	platform string
	manifest ocispec.Descriptor // that the file is in
	layer    ocispec.Descriptor
}

// registry fetches from a registry: an index with an artifact per platform, or one artifact
// with a layer per platform or with the only layer.
func (c *Client) registry(ctx context.Context, s Source, req Request) ([]Item, error) {
	if len(req.SHA256) > 0 {
		return nil, errors.New("a registry has digests of its own: in place of --sha256, end the reference with @sha256: and the artifact's digest")
	}
	repo, err := c.repository(ctx, s.text)
	if err != nil {
		return nil, err
	}
	parts, err := artifact(ctx, repo)
	if err != nil {
		return nil, refused(repo, cause(ctx, err))
	}
	if parts, err = choose(parts, req.Platforms); err != nil {
		return nil, err
	}
	var items []Item
	for _, p := range parts {
		path, err := c.layer(ctx, repo, s.text, p.layer, req.Scratch)
		if err != nil {
			return nil, refused(repo, cause(ctx, err))
		}
		items = append(items, Item{
			Platform: p.platform, Path: path,
			Source: ociPrefix + repo.Reference.Registry + "/" + repo.Reference.Repository + "@" + p.manifest.Digest.String(),
		})
	}
	return items, nil
}

// repository is what a reference names. Logins are for registries with TLS and for those of
// this machine.
func (c *Client) repository(ctx context.Context, text string) (*remote.Repository, error) {
	ref, err := reference(text)
	if err != nil {
		return nil, err
	}
	repo, err := remote.NewRepository(ref.String())
	if err != nil {
		return nil, err
	}
	repo.MaxMetadataBytes = maxManifest
	if repo.PlainHTTP, err = c.plain(ctx, ref.Host()); err != nil {
		return nil, err
	}
	client := &auth.Client{Client: c.client(), Cache: auth.NewCache()}
	repo.Client = client
	if repo.PlainHTTP && !loopback(hostname(ref.Host())) {
		return repo, nil
	}
	logins, err := c.logins()
	if err != nil {
		return nil, fmt.Errorf("read docker's credentials: %w", err)
	}
	client.Credential = credentials.Credential(logins)
	client.Client.Transport = noClearLogins{client.Client.Transport}
	return repo, nil
}

func (c *Client) logins() (credentials.Store, error) {
	if c.DockerConfig != "" {
		return credentials.NewStore(c.DockerConfig, credentials.StoreOptions{})
	}
	return credentials.NewStoreFromDocker(credentials.StoreOptions{})
}

// refused adds what to do where a registry wants a login.
func refused(repo *remote.Repository, err error) error {
	var answer *errcode.ErrorResponse
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden) ||
		errors.Is(err, auth.ErrBasicCredentialNotFound) {
		if repo.PlainHTTP && !loopback(hostname(repo.Reference.Host())) {
			return fmt.Errorf("%w; %s has no TLS, so no login is sent to it", err, repo.Reference.Registry)
		}
		return fmt.Errorf("%w; log in to %s with docker, podman or oras: gild reads docker's configuration", err, repo.Reference.Registry)
	}
	return err
}

// artifact lists the files of what the repository's reference names.
func artifact(ctx context.Context, repo *remote.Repository) ([]part, error) {
	desc, err := repo.Resolve(ctx, repo.Reference.Reference)
	if err != nil {
		return nil, err
	}
	if desc.MediaType != ocispec.MediaTypeImageIndex && desc.MediaType != dockerList {
		return layers(ctx, repo, desc)
	}
	var index ocispec.Index
	if err := document(ctx, repo, desc, &index); err != nil {
		return nil, err
	}
	var parts []part
	for _, m := range index.Manifests {
		if m.Platform == nil || m.Platform.OS != "linux" {
			continue // attestations, and systems that gild doesn't run on
		}
		found, err := layers(ctx, repo, m)
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("the artifact for %s has %d layers, and must have 1", platformOf(m.Platform), len(found))
		}
		found[0].platform = platformOf(m.Platform)
		parts = append(parts, found...)
	}
	if len(parts) == 0 {
		return nil, errors.New("its index has nothing for linux")
	}
	return parts, nil
}

// inTitle finds a platform at the end of a file's name.
var inTitle = regexp.MustCompile(`[-_.](linux)[-_]([a-z0-9]+)(\.tar\.gz|\.tgz)?$`)

// layers lists the files of one artifact.
func layers(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor) ([]part, error) {
	var m ocispec.Manifest
	if err := document(ctx, repo, desc, &m); err != nil {
		return nil, err
	}
	var parts []part
	for _, l := range m.Layers {
		p := part{manifest: desc, layer: l}
		if found := inTitle.FindStringSubmatch(l.Annotations[ocispec.AnnotationTitle]); found != nil {
			p.platform = found[1] + "/" + found[2]
		}
		if l.Platform != nil {
			p.platform = platformOf(l.Platform)
		}
		parts = append(parts, p)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("the artifact %s has no layers", desc.Digest)
	}
	if len(parts) == 1 {
		return parts, nil
	}
	for _, p := range parts {
		if p.platform == "" {
			return nil, fmt.Errorf("the artifact has %d layers, and %s says no platform: give it a title that ends as in motd_linux_amd64", len(parts), p.layer.Digest)
		}
	}
	return parts, nil
}

func platformOf(p *ocispec.Platform) string { return p.OS + "/" + p.Architecture }

func document(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, v any) error {
	if desc.Size > maxManifest {
		return fmt.Errorf("the manifest %s has %d bytes, and may have %d", desc.Digest, desc.Size, maxManifest)
	}
	data, err := content.FetchAll(ctx, repo, desc)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read the manifest %s: %w", desc.Digest, err)
	}
	return nil
}

// choose keeps the parts for the wanted platforms, sorted.
func choose(parts []part, wanted []string) ([]part, error) {
	slices.SortStableFunc(parts, func(a, b part) int { return strings.Compare(a.platform, b.platform) })
	var offered []string
	for i, p := range parts {
		if i > 0 && p.platform == parts[i-1].platform {
			return nil, fmt.Errorf("it has two files for %s", p.platform)
		}
		offered = append(offered, p.platform)
	}
	if len(wanted) == 0 || len(parts) == 1 && parts[0].platform == "" {
		return parts, nil
	}
	for _, w := range wanted {
		if !slices.Contains(offered, w) {
			return nil, fmt.Errorf("it has nothing for %s, but for %s", w, strings.Join(offered, ", "))
		}
	}
	return slices.DeleteFunc(parts, func(p part) bool { return !slices.Contains(wanted, p.platform) }), nil
}

// layer downloads one file and checks it against its descriptor.
func (c *Client) layer(ctx context.Context, repo *remote.Repository, name string, desc ocispec.Descriptor, dir string) (string, error) {
	body, err := repo.Blobs().Fetch(ctx, desc)
	if err != nil {
		return "", err
	}
	verify := content.NewVerifyReader(body, desc)
	path, _, err := c.save(ctx, name, struct {
		io.Reader
		io.Closer
	}{verify, body}, desc.Size, dir)
	if err != nil {
		return "", errors.Join(err, body.Close())
	}
	if err := errors.Join(verify.Verify(), body.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("check %s: %w", desc.Digest, err), os.Remove(path))
	}
	return path, nil
}
