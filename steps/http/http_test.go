package http_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gildhttp "github.com/gildhq/gild/steps/http"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

// site is what the guest serves.
func site(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Host", r.Host)
		if _, err := w.Write([]byte("Welcome to nginx, " + r.Header.Get("X-Who"))); err != nil {
			t.Error(err)
		}
	})
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/", http.StatusFound)
	})
	mux.HandleFunc("GET /hints", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusTeapot)
	})
	slow := time.Now().Add(700 * time.Millisecond)
	mux.HandleFunc("GET /later", func(w http.ResponseWriter, _ *http.Request) {
		if time.Now().Before(slow) {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	return mux
}

func newTarget(t *testing.T) *steptest.Target {
	t.Helper()
	plain, secure := httptest.NewServer(site(t)), httptest.NewTLSServer(site(t))
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	return steptest.NewTarget(&steptest.Guest{Ports: map[int]string{
		80:   plain.Listener.Addr().String(),
		443:  secure.Listener.Addr().String(),
		8080: plain.Listener.Addr().String(),
		22:   banner(t),
	}})
}

// banner serves something that isn't HTTP.
func banner(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n")); err != nil {
				t.Error(err)
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestPasses(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"nothing asked": `{}`,
		"body":          `{"contains": ["Welcome", "nginx"]}`,
		"other port":    `{"port": 8080, "headers": {"x-host": "localhost:8080"}}`,
		"own port":      `{"port": 80, "headers": {"X-Host": "localhost"}}`,
		"https":         `{"scheme": "https", "host": "www.example.com", "headers": {"X-Host": "www.example.com"}}`,
		"sends headers": `{"request-headers": {"X-Who": "me"}, "contains": "nginx, me"}`,
		"redirect":      `{"path": "/moved", "status": 302, "headers": {"Location": "/"}}`,
		"absent":        `{"path": "/none", "status": 404}`,
		"early hints":   `{"path": "/hints", "status": 418}`,
		"later":         `{"path": "/later", "within": "10s"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := newTarget(t).Run(t.Context(), gildhttp.Step, config); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		config string
		want   []string
	}{
		"status": {`{"path": "/none?a=b", "within": "0s"}`, []string{"GET http://localhost/none?a=b: status is 404 Not Found, want 200"}},
		"everything": {`{"status": 201, "headers": {"X-Host": "example", "X-None": "y"}, "contains": ["Apache", "Welcome"], "within": "0s"}`, []string{
			"GET http://localhost/: status is 200 OK, want 201",
			`GET http://localhost/: header X-Host is "localhost", which doesn't contain "example"`,
			`GET http://localhost/: header X-None is "", which doesn't contain "y"`,
			`GET http://localhost/: body is "Welcome to nginx, ", which doesn't contain "Apache"`,
		}},
		"refused": {`{"port": 81, "within": "1s"}`, []string{"GET http://localhost:81/: port 81: connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTarget(t).Run(t.Context(), gildhttp.Step, tc.config)
			if d := cmp.Diff(tc.want, steptest.FailedChecks(t, err)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestWhatIsNoHTTPFails(t *testing.T) {
	t.Parallel()
	_, err := newTarget(t).Run(t.Context(), gildhttp.Step, `{"port": 22, "within": "0s"}`)
	if checks := steptest.FailedChecks(t, err); len(checks) != 1 || !strings.Contains(checks[0], "malformed HTTP") {
		t.Errorf("got %q", checks)
	}
}

func TestNeedsAGuest(t *testing.T) {
	t.Parallel()
	_, err := steptest.NewTarget(nil).Run(t.Context(), gildhttp.Step, `{}`)
	steptest.WantError(t, err, "the machine is no guest")
}
