package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/gildhq/gild/plugins/sdk"
)

// registryClient speaks to one repository.
type registryClient struct {
	to        destination
	repo      *remote.Repository
	transport *http.Transport
}

func connect(to destination, login auth.Credential) (*registryClient, error) {
	repo, err := remote.NewRepository(to.ref.Registry + "/" + to.ref.Repository)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client := &auth.Client{
		Client:     &http.Client{Transport: retry.NewTransport(transport)},
		Cache:      auth.NewCache(),
		Credential: auth.StaticCredential(to.ref.Host(), login),
	}
	client.SetUserAgent("gild-plugin-oci-push/" + version)
	repo.Client, repo.PlainHTTP = client, to.plain
	return &registryClient{to: to, repo: repo, transport: transport}, nil
}

func (r *registryClient) close() { r.transport.CloseIdleConnections() }

// has reports whether the tag is there and is this manifest.
func (r *registryClient) has(ctx context.Context, want ocispec.Descriptor) (bool, error) {
	got, err := r.repo.Resolve(ctx, r.to.ref.Reference)
	if errors.Is(err, errdef.ErrNotFound) {
		return false, nil
	}
	return err == nil && got.Digest == want.Digest, err
}

// pushLayers pushes the empty config and the layers that the registry doesn't have yet.
func (r *registryClient) pushLayers(ctx context.Context, t *sdk.Target, layers []*layer) error {
	empty := ocispec.DescriptorEmptyJSON
	if _, err := r.pushBlob(ctx, empty, bytes.NewReader(empty.Data)); err != nil {
		return fmt.Errorf("push the config: %w", err)
	}
	var done, total int64
	for _, l := range layers {
		total += l.desc.Size
	}
	for _, l := range layers {
		title := l.desc.Annotations[ocispec.AnnotationTitle]
		from := done
		there, err := r.pushBlob(ctx, l.desc, &counted{l.file, func(n int64) { t.Progress(from+n, total, "bytes") }, 0})
		if err != nil {
			return fmt.Errorf("push %s: %w", title, err)
		}
		done += l.desc.Size
		t.Progress(done, total, "bytes")
		if there {
			fmt.Fprintf(t.Log, "%s is there already\n", title)
		} else {
			fmt.Fprintf(t.Log, "pushed %s, %d bytes\n", title, l.desc.Size)
		}
	}
	return nil
}

// pushBlob pushes a blob unless the registry has it.
func (r *registryClient) pushBlob(ctx context.Context, desc ocispec.Descriptor, from io.Reader) (there bool, err error) {
	there, err = r.repo.Blobs().Exists(ctx, desc)
	if there || err != nil {
		return there, err
	}
	return false, r.repo.Blobs().Push(ctx, desc, from)
}

// remove removes the tag if it is the manifest of this digest. One that isn't there, or
// that has become another's, is no error.
func (r *registryClient) remove(ctx context.Context, sum digest.Digest) error {
	desc, err := r.repo.Resolve(ctx, r.to.ref.Reference)
	if errors.Is(err, errdef.ErrNotFound) || err == nil && desc.Digest != sum {
		return nil
	}
	if err == nil {
		err = r.repo.Manifests().Delete(ctx, desc)
	}
	if err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return fmt.Errorf("remove the unfinished %s with the digest %s: %w", r.to, sum, err)
	}
	return nil
}

// cleanupPrefix is before USERNAME, PASSWORD and TOKEN in gild's own environment, where they
// are for cleanup only.
const cleanupPrefix = "OCI_PUSH_"

// cleanup removes a tag whose push was cut short. The credentials of the push are gone with
// it, because gild keeps none: for a registry that wants some the user gives them again.
// A resource of another kind is another step's, and none of its business.
func cleanup(ctx context.Context, r sdk.Resource) error {
	if r.Kind != uploadKind {
		return nil
	}
	u, err := parseUpload(r.ID)
	if err != nil {
		return err
	}
	env := map[string]string{}
	for _, name := range []string{"USERNAME", "PASSWORD", "TOKEN"} {
		env[name] = os.Getenv(cleanupPrefix + name)
	}
	login, err := credential(env)
	if err != nil {
		return fmt.Errorf("log in with %s…: %w", cleanupPrefix, err)
	}
	reg, err := connect(u.to, login)
	if err != nil {
		return err
	}
	defer reg.close()
	if err := reg.remove(ctx, u.digest); err != nil {
		if notLetIn(err) {
			err = fmt.Errorf("%w; to log in, give gild itself %[2]sUSERNAME and %[2]sPASSWORD, or %[2]sTOKEN, in its environment", err, cleanupPrefix)
		}
		return err
	}
	return nil
}

// counted tells how much of a reader was read.
type counted struct {
	io.Reader
	tell func(int64)
	n    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}
