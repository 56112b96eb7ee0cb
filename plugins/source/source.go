// Package source fetches plugins from where people say they are: a path, an address of the
// web or a registry of containers.
//
// In goes the text of a source and which platforms are wanted; out come files and folders of
// this machine, not yet looked into. A download is checked against the SHA-256 that was given,
// one of a registry against the digests in its manifest. The package keeps nothing, and knows
// neither gild.lock nor what a plugin is.
package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/plugins/store"
)

// Source says where a plugin comes from:
//
//	./plugins/motd                                      a file or folder
//	https://plugins.example/motd-1.0.0                  a file of the web
//	oci://registry.example/acme/motd:1.0.0              an artifact of a registry
//
// In a path or address {os}, {arch} and {os_arch} stand for a platform, as "linux", "amd64"
// and "linux_amd64". The zero value is no source.
type Source struct {
	kind kind
	text string
}

type kind int

const (
	path kind = iota
	web
	oci
)

const ociPrefix = "oci://"

// Parse reads the text of a source. It looks at nothing but the text.
func Parse(text string) (Source, error) {
	scheme, _, has := strings.Cut(text, "://")
	switch {
	case text == "":
		return Source{}, errors.New("the source of a plugin is empty")
	case !has:
		return Source{path, text}, nil
	case scheme == "https" || scheme == "http":
		return Source{web, text}, checkAddress(text)
	case scheme == "oci":
		_, err := reference(text)
		return Source{oci, text}, err
	}
	return Source{}, fmt.Errorf("the source %q begins with %s://; it may be a path, or begin with https:// or oci://", text, scheme)
}

// String is the text of the source.
func (s Source) String() string { return s.text }

// IsPath reports whether the source is a file or folder of this machine.
func (s Source) IsPath() bool { return s.kind == path }

// IsWeb reports whether the source is an address of the web, which has no digest of its own.
func (s Source) IsWeb() bool { return s.kind == web }

var placeholder = regexp.MustCompile(`\{(os|arch|os_arch)\}`)

// PerPlatform reports whether the source has a file for each platform.
func (s Source) PerPlatform() bool { return s.kind != oci && placeholder.MatchString(s.text) }

// For is the source for one platform, such as "linux/amd64".
func (s Source) For(platform string) Source {
	if !s.PerPlatform() {
		return s
	}
	os, arch, _ := strings.Cut(platform, "/")
	s.text = strings.NewReplacer("{os}", os, "{arch}", arch, "{os_arch}", os+"_"+arch).Replace(s.text)
	return s
}

// Relative is a source whose path, if it is a relative one, is relative to another folder:
// from is what it is relative to, to what it shall be.
func (s Source) Relative(from, to string) (Source, error) {
	if s.kind != path || filepath.IsAbs(s.text) {
		return s, nil
	}
	rel, err := filepath.Rel(to, filepath.Join(from, s.text))
	if err != nil {
		return Source{}, err
	}
	if !strings.HasPrefix(rel, ".") {
		rel = "./" + rel
	}
	s.text = filepath.ToSlash(rel)
	return s, nil
}

// Client fetches. It is safe for concurrent use.
type Client struct {
	// Dir is what relative paths are relative to.
	Dir string
	// AllowHTTP lets addresses, and registries that don't speak TLS, be asked without it.
	// Those of this machine may always be, and no other is sent a login without TLS.
	AllowHTTP bool
	// Progress is told of a download: bytes done and in all, 0 when unknown. May be nil.
	Progress func(source string, done, total int64)
	// DockerConfig is the file with the credentials of registries; empty means the one that
	// docker uses.
	DockerConfig string
	// Transport speaks HTTP; nil means one that takes the proxy from the environment and
	// has time limits.
	Transport http.RoundTripper
	// MaxBytes bounds a download; 0 means 2 GiB.
	MaxBytes int64
	// Stall is how long a download may give nothing; 0 means 1 min.
	Stall time.Duration
}

// Request says what to fetch from a source.
type Request struct {
	// Platforms are those wanted, such as "linux/amd64"; none means all that the source offers.
	Platforms []string
	// SHA256 holds what a file must be, "sha256:" and 64 hex digits, by platform or, for the
	// only file, by "". An address needs it, unless Checked.
	SHA256 map[string]string
	// Checked says that the caller knows the digest of what it gets, and checks it.
	Checked bool
	// Scratch is a folder for downloads.
	Scratch string
}

// Item is one thing that was fetched.
type Item struct {
	// Platform is what the source says that it is for, or empty when it doesn't say.
	Platform string
	// Source finds this very thing again.
	Source string
	// Path is the file or folder: the source itself, or in the request's scratch folder.
	Path string
}

// Fetch fetches what a source has, at least one item, sorted by platform.
func (c *Client) Fetch(ctx context.Context, s Source, req Request) ([]Item, error) {
	if s.kind == oci {
		items, err := c.registry(ctx, s, req)
		return items, wrap(s.text, err)
	}
	if !s.PerPlatform() {
		item, err := c.one(ctx, s, "", onlySum(req), req)
		if err != nil {
			return nil, wrap(s.text, err)
		}
		return []Item{item}, nil
	}
	platforms, err := c.offered(s, req)
	if err != nil {
		return nil, wrap(s.text, err)
	}
	var items []Item
	for _, p := range platforms {
		want := req.SHA256[p]
		if want == "" && len(platforms) == 1 {
			want = req.SHA256[""]
		}
		item, err := c.one(ctx, s.For(p), p, want, req)
		if err != nil {
			return nil, wrap(s.For(p).text, err)
		}
		items = append(items, item)
	}
	return items, nil
}

// onlySum is the SHA-256 of a source's only file, whatever platform it was given for.
func onlySum(req Request) string {
	if len(req.SHA256) == 1 {
		for _, sum := range req.SHA256 {
			return sum
		}
	}
	return req.SHA256[""]
}

func wrap(source string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fetch plugin from %s: %w", source, err)
}

// Known are the platforms that a source with placeholders is asked for when none is named.
func Known() []string { return []string{"linux/amd64", "linux/arm64"} }

// offered tells for which platforms a source with placeholders has something.
func (c *Client) offered(s Source, req Request) ([]string, error) {
	if len(req.Platforms) > 0 {
		return slices.Sorted(slices.Values(req.Platforms)), nil
	}
	if s.kind == web {
		platforms := slices.Sorted(maps.Keys(req.SHA256))
		if len(platforms) == 0 || platforms[0] == "" {
			return nil, errors.New("it has a file for each platform, and so needs one --sha256 PLATFORM=DIGEST for each, with platforms such as linux/amd64")
		}
		return platforms, nil
	}
	var platforms []string
	for _, p := range Known() {
		_, err := os.Stat(c.local(s.For(p)))
		if err == nil {
			platforms = append(platforms, p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if len(platforms) == 0 {
		return nil, fmt.Errorf("there is a file for none of %s, such as %s", strings.Join(Known(), ", "), s.For(Known()[0]))
	}
	return platforms, nil
}

func (c *Client) local(s Source) string {
	if filepath.IsAbs(s.text) {
		return filepath.Clean(s.text)
	}
	return filepath.Join(c.Dir, s.text)
}

// one fetches from a source that is one file or folder.
func (c *Client) one(ctx context.Context, s Source, platform, want string, req Request) (Item, error) {
	item := Item{Platform: platform, Source: s.text}
	if s.kind == web {
		if want == "" && !req.Checked {
			return Item{}, errors.New("an address needs the SHA-256 of the file that it was published with: give it with --sha256")
		}
		var err error
		item.Path, err = c.download(ctx, s.text, want, req.Scratch)
		return item, err
	}
	item.Path = c.local(s)
	if _, err := os.Stat(item.Path); err != nil || want == "" {
		return item, err
	}
	got, err := sumOf(item.Path)
	if err == nil && got != want {
		err = &store.DigestError{What: item.Path, Want: want, Got: got}
	}
	return item, err
}
