package download_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/download"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

const content = "#!/bin/sh\necho tool\n"

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// serve answers like a server of files, one with trouble too.
func serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, s string) {
		if _, err := w.Write([]byte(s)); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /tool", func(w http.ResponseWriter, _ *http.Request) { write(w, content) })
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/tool?token=s3cret", http.StatusFound)
	})
	mux.HandleFunc("GET /loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("GET /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	mux.HandleFunc("GET /short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		write(w, content)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func config(t *testing.T, c map[string]any) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestDownloads(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for name, tc := range map[string]struct {
		config map[string]any
		want   string
	}{
		"plain":     {map[string]any{"url": server + "/tool", "sha256": digest(content)}, "644 root:root"},
		"redirect":  {map[string]any{"url": server + "/moved", "sha256": strings.ToUpper(digest(content))}, "644 root:root"},
		"with mode": {map[string]any{"url": server + "/tool", "sha256": digest(content), "mode": "0750", "owner": "www-data", "group": "games"}, "750 www-data:games"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
			var done, total int64
			target.Progress = func(d, n int64, _ string) { done, total = d, n }
			tc.config["to"], tc.config["parents"], tc.config["allow-private"] = "/opt/bin/tool", true, true
			if _, err := target.Run(t.Context(), download.Step, config(t, tc.config)); err != nil {
				t.Fatal(err)
			}
			if got := target.Sh(t, "stat -c '%a %U:%G' /opt/bin/tool; cat /opt/bin/tool"); got != tc.want+"\n"+strings.TrimSpace(content) {
				t.Errorf("got %q, want %q and the content", got, tc.want)
			}
			if n := int64(len(content)); done != n || total != n {
				t.Errorf("progress ended at %d of %d, want %d", done, total, n)
			}
			if got, want := target.Sh(t, "stat -c %Y /opt/bin/tool"), target.Sh(t, "echo $SOURCE_DATE_EPOCH"); got != want {
				t.Errorf("changed at %s, want the build's clock %s", got, want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	server := serve(t)
	for name, tc := range map[string]struct {
		config    map[string]any
		want      string
		permanent bool
	}{
		"wrong digest": {map[string]any{"url": server + "/tool?token=s3cret", "sha256": digest("other"), "allow-private": true},
			"download " + server + "/tool: sha256 is " + digest(content) + ", want " + digest("other"), true},
		"absent":        {map[string]any{"url": server + "/none?token=s3cret", "allow-private": true}, "download " + server + "/none: the server answers 404 Not Found", true},
		"server broken": {map[string]any{"url": server + "/broken", "allow-private": true}, "the server answers 502 Bad Gateway", false},
		"cut off":       {map[string]any{"url": server + "/short", "allow-private": true}, "unexpected EOF", false},
		"loop":          {map[string]any{"url": server + "/loop", "allow-private": true}, "more than 10 redirects", true},
		"other scheme":  {map[string]any{"url": server + "/file", "allow-private": true}, `redirected to a wrong address: "file:///etc/passwd": only http and https are known`, true},
		"refused":       {map[string]any{"url": "http://127.0.0.1:1/x", "allow-private": true}, "connection refused", false},
		"loopback":      {map[string]any{"url": server + "/tool"}, "127.0.0.1 is an address of this machine or of a private network; set allow-private: true", true},
		"loopback name": {map[string]any{"url": strings.Replace(server, "127.0.0.1", "localhost", 1) + "/tool"}, "is an address of this machine", true},
		"password":      {map[string]any{"url": "https://me:s3cret@example.com/x"}, `"https://example.com/x" holds a user or password`, true},
		"no host":       {map[string]any{"url": "https:///x"}, `"https:///x" names no host`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := steptest.NewTarget(nil) // reaching the machine would be a panic
			if tc.config["sha256"] == nil {
				tc.config["sha256"] = digest(content)
			}
			tc.config["to"] = "/opt/x"
			_, err := target.Run(t.Context(), download.Step, config(t, tc.config))
			steptest.WantError(t, err, tc.want)
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the query: %v", err)
			}
			var p *step.Permanent
			if got := errors.As(err, &p); got != tc.permanent {
				t.Errorf("permanent is %v, want %v", got, tc.permanent)
			}
		})
	}
}

func TestPrivateAddresses(t *testing.T) {
	t.Parallel()
	private := []string{
		"http://10.0.0.1", "http://172.16.0.1", "http://192.168.1.1", "http://169.254.169.254", "http://127.0.0.2",
		"http://0.0.0.0", "http://100.64.0.1", "http://[::1]", "http://[fe80::1]", "http://[fd00:ec2::254]",
		"http://[::ffff:169.254.169.254]", "http://[64:ff9b::a9fe:a9fe]", "http://255.255.255.255", "http://224.0.0.1",
	}
	var passed []string
	for _, address := range private {
		c := map[string]any{"url": address + "/x", "sha256": digest(content), "to": "/opt/x"}
		_, err := steptest.NewTarget(nil).Run(t.Context(), download.Step, config(t, c))
		var p *step.Permanent
		if !errors.As(err, &p) || !strings.Contains(err.Error(), "private network") {
			passed = append(passed, address)
		}
	}
	if d := cmp.Diff([]string(nil), passed); d != "" {
		t.Errorf("not refused (-want +got)\n%s", d)
	}
}
