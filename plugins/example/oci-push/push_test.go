package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/steps/steptest"
)

// The tests' program is the plugin too, when it is started as one.
func TestMain(m *testing.M) {
	if os.Getenv(pluginv1.CookieKey) == pluginv1.CookieValue {
		sdk.Serve(plugin())
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// disk is the content of a small disk: noise, and emptiness as real disks have.
func disk(seed uint64, size int) []byte {
	data := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(seed)})
	source.Read(data[:size/4])
	return data
}

// claims are the claims of a step, as gild would keep them.
type claims struct {
	made    []sdk.Resource
	settled int
}

func (c *claims) claim(_ context.Context, r sdk.Resource) (func(context.Context) error, error) {
	c.made = append(c.made, r)
	return func(context.Context) error { c.settled++; return nil }, nil
}

// newTarget returns a target with an image of two files.
func newTarget(t *testing.T) (*steptest.Target, *claims) {
	t.Helper()
	target := steptest.NewTarget(nil)
	dir := t.TempDir()
	target.Image = &sdk.ImageInfo{Size: 1 << 20}
	for i, format := range []string{"raw", "qcow2"} {
		data := disk(uint64(i), 1<<20>>i)
		path := filepath.Join(dir, "disk."+format)
		write(t, path, data)
		sum := sha256.Sum256(data)
		target.Image.Files = append(target.Image.Files, sdk.ImageFile{
			Format: format, Path: path, Size: int64(len(data)), Allocated: int64(len(data)), SHA256: hex.EncodeToString(sum[:]),
		})
	}
	c := &claims{}
	target.Claim = c.claim
	return target, c
}

func run(t *testing.T, target *steptest.Target, config map[string]any) (sdk.Outputs, error) {
	t.Helper()
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return target.Run(t.Context(), pushStep(), string(raw))
}

func TestPushes(t *testing.T) {
	t.Parallel()
	addr := startRegistry(t, false)
	for name, tc := range map[string]struct {
		config map[string]any
		titles []string
		types  []string
		unpack func(io.Reader) (io.Reader, error)
	}{
		"default": {map[string]any{}, []string{"web-1.4.0-amd64.qcow2"}, []string{"qcow2"}, nil},
		"both":    {map[string]any{"formats": []string{"raw", "qcow2"}, "compression": "none"}, []string{"web-1.4.0-amd64.raw", "web-1.4.0-amd64.qcow2"}, []string{"raw", "qcow2"}, nil},
		"gzip":    {map[string]any{"formats": []string{"raw"}, "compression": "gzip"}, []string{"web-1.4.0-amd64.raw.gz"}, []string{"raw+gzip"}, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
		"zstd":    {map[string]any{"formats": []string{"qcow2", "raw"}, "compression": "zstd"}, []string{"web-1.4.0-amd64.qcow2.zst", "web-1.4.0-amd64.raw.zst"}, []string{"qcow2+zstd", "raw+zstd"}, unzstd(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, claims := newTarget(t)
			var last, total int64
			target.Progress = func(done, of int64, _ string) { last, total = done, of }
			tc.config["reference"] = addr + "/images/web:" + name
			out, err := run(t, target, tc.config)
			if err != nil {
				t.Fatalf("%v\n%s", err, target.Log)
			}
			m, digest := manifestAt(t, addr, "images/web", name, false)
			if d := cmp.Diff(sdk.Outputs{"reference": tc.config["reference"], "digest": digest}, out); d != "" {
				t.Errorf("outputs (-want +got)\n%s", d)
			}
			if m.ArtifactType != artifactType {
				t.Errorf("the artifact's type is %q", m.ArtifactType)
			}
			want := map[string]string{
				"org.opencontainers.image.created": "2026-09-21T14:13:20Z", "org.opencontainers.image.title": "web-1.4.0-amd64",
				"org.opencontainers.image.version": "1.4.0", "org.opencontainers.image.ref.name": name,
				"io.github.gildhq.image.name": "web", "io.github.gildhq.image.release": "1.4.0", "io.github.gildhq.image.arch": "amd64",
			}
			if d := cmp.Diff(want, m.Annotations); d != "" {
				t.Errorf("annotations (-want +got)\n%s", d)
			}
			var titles, types []string
			for _, l := range m.Layers {
				titles = append(titles, l.Annotations["org.opencontainers.image.title"])
				types = append(types, strings.TrimPrefix(l.MediaType, "application/vnd.gild.disk.v1."))
				checkLayer(t, addr, l, tc.unpack)
			}
			if d := cmp.Diff(tc.titles, titles); d != "" {
				t.Errorf("titles (-want +got)\n%s", d)
			}
			if d := cmp.Diff(tc.types, types); d != "" {
				t.Errorf("media types (-want +got)\n%s", d)
			}
			if last != total || total == 0 {
				t.Errorf("progress ended at %d of %d", last, total)
			}
			if len(claims.made) != 1 || claims.settled != 1 {
				t.Errorf("%d claims, %d settled", len(claims.made), claims.settled)
			}
		})
	}
}

func unzstd(t *testing.T) func(io.Reader) (io.Reader, error) {
	return func(r io.Reader) (io.Reader, error) {
		d, err := zstd.NewReader(r)
		if err == nil {
			t.Cleanup(d.Close)
		}
		return d, err
	}
}

// checkLayer fetches a layer and compares what is in it with its annotation.
func checkLayer(t *testing.T, addr string, l ocispec.Descriptor, unpack func(io.Reader) (io.Reader, error)) {
	t.Helper()
	status, _, body := fetch(t, "http://"+addr+"/v2/images/web/blobs/"+l.Digest.String(), false)
	if status != 200 || int64(len(body)) != l.Size {
		t.Fatalf("layer %s: status %d, %d bytes of %d", l.Digest, status, len(body), l.Size)
	}
	var content io.Reader = bytes.NewReader(body)
	if unpack != nil {
		var err error
		if content, err = unpack(content); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, content); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != l.Annotations["io.github.gildhq.image.sha256"] {
		t.Errorf("layer %s holds a file with the SHA-256 %s, and says %s", l.Digest, got, l.Annotations["io.github.gildhq.image.sha256"])
	}
}

func TestPushesNothingTwice(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startRegistry(t, false))
	config := map[string]any{"reference": g.addr + "/images/web:1", "formats": []string{"raw", "qcow2"}, "compression": "zstd"}
	target, claims := newTarget(t)
	first, err := run(t, target, config)
	if err != nil {
		t.Fatal(err)
	}
	if n := g.uploaded(); n != 3 { // the config and two files
		t.Errorf("%d uploads at first", n)
	}
	again, err := run(t, target, config)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first, again); d != "" || len(claims.made) != 1 {
		t.Errorf("the second push made %d claims and differs (-first +second)\n%s", len(claims.made)-1, d)
	}
	config["reference"] = g.addr + "/images/web:2"
	other, err := run(t, target, config)
	if err != nil {
		t.Fatal(err)
	}
	if n := g.uploaded(); n != 0 {
		t.Errorf("%d uploads of what was there", n)
	}
	if other["digest"] == first["digest"] {
		t.Error("two tags have one digest, so removing one would remove both")
	}
}

func TestGoesOnAfterABreak(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startRegistry(t, false))
	files := 0
	g.breaks(func(string) (lost, heard bool) { files++; return files == 3, false })
	target, claims := newTarget(t)
	config := map[string]any{"reference": g.addr + "/images/web:1", "formats": []string{"raw", "qcow2"}}
	_, err := run(t, target, config)
	steptest.WantError(t, err, "push web-1.4.0-amd64.qcow2")
	var permanent *sdk.Permanent
	if errors.As(err, &permanent) {
		t.Errorf("%v isn't tried again", err)
	}
	if _, digest := manifestAt(t, g.addr, "images/web", "1", false); digest != "" || len(claims.made) != 0 {
		t.Errorf("tag %s, %d claims, after a file that never arrived", digest, len(claims.made))
	}
	g.breaks(nil)
	g.uploaded()
	if _, err := run(t, target, config); err != nil {
		t.Fatal(err)
	}
	if n := g.uploaded(); n != 1 {
		t.Errorf("%d files were uploaded again, want the one that is missing", n)
	}
}

func TestRemovesATagThatWasNotConfirmed(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startRegistry(t, false))
	g.breaks(func(path string) (lost, heard bool) { return strings.Contains(path, "/manifests/"), true })
	target, claims := newTarget(t)
	_, err := run(t, target, map[string]any{"reference": g.addr + "/images/web:1"})
	steptest.WantError(t, err, "push the manifest to "+g.addr+"/images/web:1")
	if _, digest := manifestAt(t, g.addr, "images/web", "1", false); digest != "" {
		t.Errorf("the tag is there, with the digest %s", digest)
	}
	if len(claims.made) != 1 || claims.settled != 1 {
		t.Errorf("%d claims, %d settled", len(claims.made), claims.settled)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	addr := startRegistry(t, false)
	target, claims := newTarget(t)
	config := map[string]any{"reference": addr + "/images/web:1"}
	if _, err := run(t, target, config); err != nil {
		t.Fatal(err)
	}
	config["reference"] = addr + "/images/web:other"
	if _, err := run(t, target, config); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := pushStep().Cleanup(t.Context(), claims.made[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, digest := manifestAt(t, addr, "images/web", "1", false); digest != "" {
		t.Error("the tag is still there")
	}
	if _, digest := manifestAt(t, addr, "images/web", "other", false); digest == "" {
		t.Error("another tag with the same files is gone")
	}
}

func TestCleanupLeavesWhatOthersPushed(t *testing.T) {
	t.Parallel()
	addr := startRegistry(t, false)
	target, claims := newTarget(t)
	config := map[string]any{"reference": addr + "/images/web:stable"}
	if _, err := run(t, target, config); err != nil {
		t.Fatal(err)
	}
	target.Pipeline.Release = "1.5.0"
	out, err := run(t, target, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := pushStep().Cleanup(t.Context(), claims.made[0]); err != nil {
		t.Fatal(err)
	}
	if _, digest := manifestAt(t, addr, "images/web", "stable", false); digest != out["digest"] {
		t.Errorf("the tag's digest is %q, want %v", digest, out["digest"])
	}
}

func TestCleanupRefuses(t *testing.T) {
	t.Parallel()
	sum := digest.FromString("x").String()
	for name, r := range map[string]sdk.Resource{
		"no digest": {Kind: uploadKind, ID: "https://r.example/a:b"},
		"no tag":    {Kind: uploadKind, ID: "https://r.example/a@" + sum},
		"scheme":    {Kind: uploadKind, ID: "ftp://r.example/a:b@" + sum},
	} {
		if err := cleanup(t.Context(), r); err == nil {
			t.Errorf("%s: %v was cleaned up", name, r)
		}
	}
	// Another step of a plugin may have made it.
	if err := cleanup(t.Context(), sdk.Resource{Kind: "tmpdir", ID: "https://r.example/a:b@" + sum}); err != nil {
		t.Errorf("a resource of another kind: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	addr := startRegistry(t, true)
	target, claims := newTarget(t)
	config := map[string]any{"reference": addr + "/images/web:1"}
	_, err := run(t, target, config)
	steptest.WantError(t, err, "credential not found", "give the step USERNAME and PASSWORD")
	target.Env = map[string]string{"USERNAME": user, "PASSWORD": "wrong"}
	_, err = run(t, target, config)
	var permanent *sdk.Permanent
	if !errors.As(err, &permanent) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password gives %v", err)
	}
	target.Env["PASSWORD"] = password
	out, err := run(t, target, config)
	if err != nil {
		t.Fatal(err)
	}
	if _, digest := manifestAt(t, addr, "images/web", "1", true); digest != out["digest"] {
		t.Errorf("the tag's digest is %q, want %v", digest, out["digest"])
	}
	err = pushStep().Cleanup(t.Context(), claims.made[0])
	steptest.WantError(t, err, "credential not found", "OCI_PUSH_USERNAME and OCI_PUSH_PASSWORD, or OCI_PUSH_TOKEN")
}

func TestToken(t *testing.T) {
	t.Parallel()
	g := startGateway(t, startRegistry(t, false))
	g.token = "t0ken"
	target, _ := newTarget(t)
	config := map[string]any{"reference": g.addr + "/images/web:1"}
	for token, want := range map[string]bool{"t0ken": true, "other": false} {
		target.Env = map[string]string{"TOKEN": token}
		if _, err := run(t, target, config); (err == nil) != want {
			t.Errorf("with the token %s: %v", token, err)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config  map[string]any
		env     map[string]string
		prepare func(*testing.T, *steptest.Target)
		want    string
	}{
		"no such format": {config: map[string]any{"formats": []string{"raw"}}, want: `no file of the format "raw", only qcow2`,
			prepare: func(_ *testing.T, t *steptest.Target) { t.Image.Files = t.Image.Files[1:] }},
		"no image": {want: "there is no image", prepare: func(_ *testing.T, t *steptest.Target) { t.Image = nil }},
		"in a cloud": {want: "the image is ami-1 in the region north, and only files can be pushed",
			prepare: func(_ *testing.T, t *steptest.Target) {
				t.Image.ID, t.Image.Region, t.Image.Files = "ami-1", "north", nil
			}},
		"another file": {config: map[string]any{"compression": "gzip"}, want: "the image was built with",
			prepare: func(tt *testing.T, t *steptest.Target) { write(tt, t.Image.Files[1].Path, disk(9, 1<<19)) }},
		"half a login":  {env: map[string]string{"USERNAME": "x"}, want: "only one of USERNAME and PASSWORD"},
		"two logins":    {env: map[string]string{"USERNAME": "x", "PASSWORD": "y", "TOKEN": "z"}, want: "give one of the two"},
		"digest":        {config: map[string]any{"reference": "r.example/a@" + digest.FromString("x").String()}, want: "has no tag"},
		"no tag":        {config: map[string]any{"reference": "r.example/a"}, want: "has no tag"},
		"no repository": {config: map[string]any{"reference": "web"}, want: "one looks like"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, _ := newTarget(t)
			target.Env = tc.env
			if tc.prepare != nil {
				tc.prepare(t, target)
			}
			config := map[string]any{"reference": "127.0.0.1:1/images/web:1"}
			for k, v := range tc.config {
				config[k] = v
			}
			_, err := run(t, target, config)
			steptest.WantError(t, err, tc.want)
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config string
		want   []sdk.Problem
	}{
		"good":     {`{"reference": "r.example/web:1"}`, nil},
		"loopback": {`{"reference": "localhost:5000/web:1", "plain-http": true}`, nil},
		"no tag": {`{"reference": "r.example/web"}`, []sdk.Problem{{
			Pointer: "/reference", Message: `reference "r.example/web" has no tag`, Hint: "end it with one, such as :1.4.0",
		}}},
		"plain": {`{"reference": "r.example/web:1", "plain-http": true}`, []sdk.Problem{{
			Pointer: "/plain-http", Warning: true, Message: "credentials and image go to r.example unencrypted",
			Hint: "remove plain-http unless the network is trusted",
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := pushStep().Validate(t.Context(), json.RawMessage(tc.config))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestPlainOnlyHere(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, tc := range []struct {
		reference string
		plain     *bool
		want      string
	}{
		{"r.example/web:1", nil, "https"},
		{"r.example/web:1", &yes, "http"},
		{"localhost/web:1", nil, "http"},
		{"localhost:5000/web:1", nil, "http"},
		{"localhost:5000/web:1", &no, "https"},
		{"127.0.0.1:5000/web:1", nil, "http"},
		{"127.9.9.9/web:1", nil, "http"},
		{"[::1]:5000/web:1", nil, "http"},
		{"127.0.0.1.example/web:1", nil, "https"},
		{"10.0.0.1:5000/web:1", nil, "https"},
	} {
		to, err := parseDestination(tc.reference, tc.plain)
		if err != nil {
			t.Errorf("%s: %v", tc.reference, err)
			continue
		}
		u := upload{to, digest.FromString("x")}
		if got, _, _ := strings.Cut(u.String(), "://"); got != tc.want {
			t.Errorf("%s is spoken to by %s, want %s", tc.reference, got, tc.want)
		}
		if back, err := parseUpload(u.String()); err != nil || back != u {
			t.Errorf("%s reads back as %v, %v", u, back, err)
		}
	}
}

// TestAsAPlugin pushes from a process of its own, to a registry that wants credentials, for
// the clean-up too.
func TestAsAPlugin(t *testing.T) {
	t.Setenv("OCI_PUSH_USERNAME", user)
	t.Setenv("OCI_PUSH_PASSWORD", password)
	addr := startRegistry(t, true)
	fixtures := filepath.Join(t.TempDir(), conformance.FixturesName)
	write(t, fixtures, []byte(strings.ReplaceAll(`
steps:
  gild/oci-push:
    good: [{reference: "ADDR/images/web:good"}]
    bad: [{with: {reference: ADDR/images/web}, pointer: /reference}]
    runs:
      - name: pushes
        with: {reference: "ADDR/images/web:1", compression: gzip}
        env: {USERNAME: builder, PASSWORD: s3cret-words}
        expect: {outputs: {reference: "ADDR/images/web:1"}, log: ["pushed ADDR/images/web:1, digest sha256:"]}
      - name: isn't let in
        with: {reference: "ADDR/images/web:2"}
        env: {USERNAME: builder, PASSWORD: guessed}
        expect: {outcome: permanent, message: "give the step USERNAME and PASSWORD"}
`, "ADDR", addr)))
	checkConformance(t, fixtures, "key-parts", "cancel")
	_, sum := manifestAt(t, addr, "images/web", "1", true)
	if sum == "" {
		t.Fatal("nothing was pushed")
	}
	if err := cleanup(t.Context(), sdk.Resource{Kind: uploadKind, ID: "http://" + addr + "/images/web:1@" + sum}); err != nil {
		t.Fatal(err)
	}
	if _, sum := manifestAt(t, addr, "images/web", "1", true); sum != "" {
		t.Error("the tag is still there after its clean-up")
	}
}

func TestFixtures(t *testing.T) {
	t.Parallel()
	checkConformance(t, conformance.FixturesName, "key-parts", "cancel", "cleanup")
}

// checkConformance holds the plugin, made of the tests' program, against the contract; only
// the checks named may be skipped.
func checkConformance(t *testing.T, fixtures string, skip ...string) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{self: "gild-plugin-oci-push", "plugin.yaml": "plugin.yaml"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	report, err := conformance.Check(t.Context(), conformance.Options{Path: dir, Fixtures: fixtures})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		if c.Status == conformance.Failed || c.Status == conformance.Skipped && !slices.Contains(skip, c.Name) {
			t.Errorf("%s: %s: %s", c.Name, c.Status, c.Detail)
		}
	}
}
