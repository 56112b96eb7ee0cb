package sandbox_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/gildhq/gild/engine/sandbox"
)

func control(t *testing.T, w *world, method, path, body string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, strings.NewReader(body))
	must(t, err)
	resp, err := http.DefaultTransport.RoundTrip(r)
	must(t, err)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	var out map[string]any
	if json.Unmarshal(text, &out) != nil {
		out = map[string]any{"text": string(text)}
	}
	return resp.StatusCode, out
}

func TestControl(t *testing.T) {
	w := open(t, sandbox.Config{Now: clock})
	c := w.mine(t)
	id := w.withDisk(t, "base", "bytes")
	if status, out := control(t, w, "POST", "/_gild/faults", `{"list": [{"action": "DescribeRegions", "kind": "throttle"}]}`); status != 200 {
		t.Fatalf("faults: %d %v", status, out)
	}
	_, err := c.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
	wantCode(t, "RequestLimitExceeded", err)
	if status, out := control(t, w, "POST", "/_gild/clock", `{"advance": "90s"}`); status != 200 || !w.Now().Equal(clock().Add(90*time.Second)) {
		t.Errorf("clock: %d %v", status, out)
	}
	path := filepath.Join(t.TempDir(), "out.raw")
	if status, out := control(t, w, "POST", "/_gild/export", `{"region": "us-east-1", "id": "`+id+`", "path": "`+path+`"}`); status != 200 {
		t.Errorf("export: %d %v", status, out)
	}
	if got, err := read(path, 0, 5); got != "bytes" || err != nil {
		t.Errorf("exported %q, %v", got, err)
	}
	if status, out := control(t, w, "GET", "/_gild/state", ""); status != 200 || out["images"] != 1.0 {
		t.Errorf("state: %d %v", status, out)
	}
	if status, _ := control(t, w, "GET", "/_gild/calls", ""); status != 200 {
		t.Errorf("calls: %d", status)
	}
	if status, _ := control(t, w, "POST", "/_gild/policy", `{"accessKey": "sandbox", "document": {"Statement": []}}`); status != 200 {
		t.Errorf("policy: %d", status)
	}
	must(t, w.SetFaults(sandbox.Faults{}))
	_, err = c.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
	wantCode(t, "UnauthorizedOperation", err)
	for path, body := range map[string]string{
		"/_gild/faults": `{"list": [{"kind": "gremlins"}]}`, "/_gild/clock": `{"advance": "soon"}`,
		"/_gild/export": `{"path": "relative"}`, "/_gild/policy": `{"unknown": 1}`,
	} {
		if status, out := control(t, w, "POST", path, body); status != 400 || out["error"] == "" {
			t.Errorf("POST %s %s: %d %v", path, body, status, out)
		}
	}
}

// Others on the network, and pages in a browser, have no control.
func TestControlIsForThisMachine(t *testing.T) {
	t.Parallel()
	w := open(t, sandbox.Config{})
	h := w.Handler()
	for name, change := range map[string]func(*http.Request){
		"another machine": func(r *http.Request) { r.RemoteAddr = "192.0.2.1:1234" },
		"a page":          func(r *http.Request) { r.Header.Set("Origin", "https://example.com") },
		"a rebound name":  func(r *http.Request) { r.Host = "example.com:4566" },
		"through a proxy": func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") },
	} {
		r := httptest.NewRequest("GET", "http://127.0.0.1:4566/_gild/state", nil)
		r.RemoteAddr = "127.0.0.1:1234"
		change(r)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != http.StatusForbidden {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
}

func TestOpenNeedsAFolder(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", os.DevNull} {
		if _, err := sandbox.Open(t.Context(), sandbox.Config{Dir: dir}); err == nil {
			t.Errorf("a sandbox was opened in %q", dir)
		}
	}
}
