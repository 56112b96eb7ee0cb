package sandboxtest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/gildhq/gild/engine/sandbox"
)

// What [Start] adds as the base image, named and owned as Debian's own on AWS.
const (
	DebianAccount = "136693071363"
	DebianName    = "debian-12-amd64-20251006-2257"
	// DebianParameter is the public SSM parameter with its id.
	DebianParameter = "/aws/service/debian/release/12/latest/amd64"
)

// Region is the region of a [Site].
const Region = "eu-central-1"

// Options say what a site is like. The zero value is a sandbox whose clock stands at no
// waiting, with the Debian image.
type Options struct {
	// Config is what the sandbox is opened with. Dir and Machines are set when they are empty.
	Config sandbox.Config
	// Wrap stands between callers and the sandbox; nil is nothing.
	Wrap func(http.Handler) http.Handler
}

// Site is a sandbox that is being served. It ends with the test.
type Site struct {
	// Server is the sandbox.
	Server *sandbox.Server
	// URL is where it is served, on loopback.
	URL string
	// Image is the id of the base image in [Region], its owner [DebianAccount].
	Image string
}

// Start opens a sandbox and serves it until the test ends.
func Start(t testing.TB, o Options) *Site {
	t.Helper()
	dir, err := os.MkdirTemp("", "gild-sandboxtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if o.Config.Dir == "" {
		o.Config.Dir = filepath.Join(dir, "state")
	}
	if o.Config.Machines == nil {
		o.Config.Machines = Machines{}
	}
	server, err := sandbox.Open(t.Context(), o.Config)
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{Server: server}
	handler := server.Handler()
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	h := httptest.NewServer(handler)
	s.URL = h.URL
	t.Cleanup(func() {
		h.Close()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	disk := filepath.Join(dir, "debian.disk")
	if err := NewDisk(disk); err != nil {
		t.Fatal(err)
	}
	s.Image = s.Add(t, sandbox.SeedImage{
		Account: DebianAccount, Name: DebianName, Description: "Debian 12 (20251006-2257)", BootMode: "uefi-preferred",
		SizeGiB: 1, DiskPath: disk, SSMParameters: []string{DebianParameter},
	})
	return s
}

// Add adds an image and returns its id in [Region].
func (s *Site) Add(t testing.TB, i sandbox.SeedImage) string {
	t.Helper()
	i.Region = Region
	id, err := s.Server.AddImage(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Env is the environment that leads a process to the sandbox and nowhere else.
func (s *Site) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + s.URL,
		"AWS_ACCESS_KEY_ID=" + sandbox.DefaultKey,
		"AWS_SECRET_ACCESS_KEY=" + sandbox.DefaultKey,
		"AWS_REGION=" + Region,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}
