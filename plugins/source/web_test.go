package source_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/source"
	"github.com/gildhq/gild/plugins/store"
)

// site is a web site of plugins.
func site(t *testing.T) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/motd", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "motd") })
	for _, arch := range []string{"amd64", "arm64"} {
		mux.HandleFunc("/motd_linux_"+arch, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, arch) })
	}
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/motd", http.StatusFound) })
	mux.HandleFunc("/circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/circle", http.StatusFound) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:1/motd", http.StatusFound)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 2000)) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for range 100 {
			fmt.Fprint(w, strings.Repeat("x", 500))
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/stall", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "some")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	var asked atomic.Int32
	mux.HandleFunc("/shaky", func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, "motd")
	})
	return mux
}

func TestWeb(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(site(t))
	t.Cleanup(server.Close)
	transport := server.Client().Transport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	c := &source.Client{Transport: transport, MaxBytes: 1000, Stall: 300 * time.Millisecond}
	given := map[string]string{"": sum("motd")}
	for name, test := range map[string]struct {
		path string
		req  source.Request
		want [][3]string // source is the path
		err  string
	}{
		"file":                {"/motd", source.Request{SHA256: given}, [][3]string{{"", "/motd", "motd"}}, ""},
		"sent on":             {"/moved", source.Request{SHA256: given}, [][3]string{{"", "/moved", "motd"}}, ""},
		"tried again":         {"/shaky", source.Request{SHA256: given}, [][3]string{{"", "/shaky", "motd"}}, ""},
		"checked by who asks": {"/motd", source.Request{Checked: true}, [][3]string{{"", "/motd", "motd"}}, ""},
		"two platforms": {
			"/motd_{os_arch}",
			source.Request{SHA256: map[string]string{"linux/amd64": sum("amd64"), "linux/arm64": sum("arm64")}},
			[][3]string{{"linux/amd64", "/motd_linux_amd64", "amd64"}, {"linux/arm64", "/motd_linux_arm64", "arm64"}}, "",
		},
		"one of two": {
			"/motd_{os_arch}", source.Request{SHA256: map[string]string{"": sum("arm64")}, Platforms: []string{"linux/arm64"}},
			[][3]string{{"linux/arm64", "/motd_linux_arm64", "arm64"}}, "",
		},
		"no digest":              {"/motd", source.Request{}, nil, "give it with --sha256"},
		"no digest per platform": {"/motd_{os_arch}", source.Request{SHA256: given}, nil, "one --sha256 PLATFORM=DIGEST"},
		"another digest":         {"/motd", source.Request{SHA256: map[string]string{"": sum("x")}}, nil, sum("motd")},
		"missing":                {"/none", source.Request{SHA256: given}, nil, "404 Not Found"},
		"in circles":             {"/circle", source.Request{SHA256: given}, nil, "more than 5 times"},
		"to plain http":          {"/down", source.Request{SHA256: given}, nil, "has no TLS"},
		"to a file":              {"/file", source.Request{SHA256: given}, nil, "neither https nor http"},
		"too large":              {"/large", source.Request{SHA256: given}, nil, "it has 2000 bytes"},
		"too large, not said":    {"/endless", source.Request{SHA256: given}, nil, "more than the 1000 bytes"},
		"stalls":                 {"/stall", source.Request{SHA256: given}, nil, "nothing came for 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.req.Scratch = t.TempDir()
			items, err := c.Fetch(t.Context(), parse(t, server.URL+test.path), test.req)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), "fetch plugin from "+server.URL) {
					t.Errorf("got %v; want %q", err, test.err)
				}
				if left, _ := filepath.Glob(filepath.Join(test.req.Scratch, "*")); len(left) != 0 {
					t.Errorf("left behind: %v", left)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := read(t, items)
			for i := range got {
				got[i][1] = strings.TrimPrefix(got[i][1], server.URL)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWebDigestError(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(site(t)) // loopback may be asked without TLS
	t.Cleanup(server.Close)
	_, err := new(source.Client).Fetch(t.Context(), parse(t, server.URL+"/motd"), source.Request{SHA256: map[string]string{"": sum("x")}, Scratch: t.TempDir()})
	var changed *store.DigestError
	if !errors.As(err, &changed) || *changed != (store.DigestError{What: server.URL + "/motd", Want: sum("x"), Got: sum("motd")}) {
		t.Errorf("got %v", err)
	}
}

func TestWebWithoutTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(site(t))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	// A proxy makes a name that isn't this machine's reach the server.
	transport := &http.Transport{Proxy: http.ProxyURL(at), DisableKeepAlives: true}
	for _, allow := range []bool{false, true} {
		c := &source.Client{Transport: transport, AllowHTTP: allow}
		_, err := c.Fetch(t.Context(), parse(t, "http://plugins.example/motd"), source.Request{SHA256: map[string]string{"": sum("motd")}, Scratch: t.TempDir()})
		if allow && err != nil || !allow && (err == nil || !strings.Contains(err.Error(), "--allow-http")) {
			t.Errorf("allowed %v: %v", allow, err)
		}
	}
}

func TestWebCancel(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(site(t))
	t.Cleanup(server.Close)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := &source.Client{Progress: func(_ string, done, total int64) {
		if done != 4 || total != 0 {
			t.Errorf("progress: %d of %d", done, total)
		}
		cancel(why)
	}}
	dir := t.TempDir()
	_, err := c.Fetch(ctx, parse(t, server.URL+"/stall"), source.Request{Checked: true, Scratch: dir})
	if !errors.Is(err, why) {
		t.Errorf("got %v; want the cause", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
