package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	user     = "builder"
	password = "s3cret-words"
	// htpasswd lets in user with password, hashed by bcrypt at its lowest cost.
	htpasswd = "builder:$2a$04$abcdefghijklmnopqrstuu0hxqEA4fOlyfFkD.aL43MpKdoEtSZ7y\n"
)

// startRegistry starts Debian's docker-registry with a folder of its own and returns its
// address, host:port. It ends with the test.
func startRegistry(t *testing.T, withPassword bool) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatal("this test needs docker-registry: apt-get install docker-registry")
	}
	dir := t.TempDir()
	addr := freeAddress(t)
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n",
		filepath.Join(dir, "data"), addr)
	if withPassword {
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", filepath.Join(dir, "htpasswd"))
		write(t, filepath.Join(dir, "htpasswd"), []byte(htpasswd))
	}
	write(t, filepath.Join(dir, "config.yml"), []byte(config))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("docker-registry doesn't listen on %s: %v\n%s", addr, err, text)
		}
	}
}

// freeAddress returns an address of this host that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// gateway stands before a registry. It counts the files that were uploaded, and breaks
// what it is told to.
type gateway struct {
	addr string
	// token is the bearer token that is asked for, if any.
	token string
	// breakPut decides whether the registry's answer to an upload is lost, and whether the
	// registry hears of the upload at all.
	mu       sync.Mutex
	breakPut func(path string) (lost, heard bool)
	uploads  int
}

func startGateway(t *testing.T, registry string) *gateway {
	t.Helper()
	g := &gateway{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: registry})
		// The registry names the host in the addresses of uploads.
		r.Out.Host = r.In.Host
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.token != "" && r.Header.Get("Authorization") != "Bearer "+g.token {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodPut {
			proxy.ServeHTTP(w, r)
			return
		}
		g.mu.Lock()
		lost, heard := false, true
		if g.breakPut != nil {
			lost, heard = g.breakPut(r.URL.Path)
		}
		if !lost && filepath.Base(filepath.Dir(r.URL.Path)) != "manifests" {
			g.uploads++
		}
		g.mu.Unlock()
		if lost && heard {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		if lost {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	g.addr = server.Listener.Addr().String()
	return g
}

func (g *gateway) breaks(f func(path string) (lost, heard bool)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breakPut = f
}

func (g *gateway) uploaded() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.uploads
	g.uploads = 0
	return n
}

// fetch gets something of a registry without any library for registries.
func fetch(t *testing.T, url string, withPassword bool) (status int, header http.Header, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	if withPassword {
		req.SetBasicAuth(user, password)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// manifestAt returns the manifest of a tag and its digest, or nothing when there is none.
func manifestAt(t *testing.T, addr, repository, tag string, withPassword bool) (m ocispec.Manifest, digest string) {
	t.Helper()
	status, header, body := fetch(t, "http://"+addr+"/v2/"+repository+"/manifests/"+tag, withPassword)
	switch status {
	case http.StatusNotFound:
		return m, ""
	case http.StatusOK:
	default:
		t.Fatalf("the registry answers %d: %s", status, body)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	return m, header.Get("Docker-Content-Digest")
}
