package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// point is a call of a build: the nth one of an action. Numbering all calls together would
// not do, since nodes that run side by side come in another order every time.
type point struct {
	action string
	nth    int
}

func (p point) String() string { return fmt.Sprintf("%s %d", p.action, p.nth) }

// looks tells that the call changes nothing.
func (p point) looks() bool { return looks(p.action) }

func looks(action string) bool {
	return strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "Get")
}

// gate stands between gild and the sandbox. It notes the calls, and kills gild at one.
type gate struct {
	next http.Handler
	open atomic.Bool // nothing is held back

	mu     sync.Mutex
	strike func() // kills gild, once it was started by killedAt
	at     point  // the zero value: nowhere
	after  bool
	counts map[string]int
	seen   map[string]bool // looks since the last change
	points []point
}

func (g *gate) wrap(next http.Handler) http.Handler {
	g.next = next
	return g
}

// aim starts counting anew.
func (g *gate) aim(at point, after bool, strike func()) {
	g.at, g.after, g.strike = at, after, strike
	g.counts, g.seen, g.points = map[string]int{}, map[string]bool{}, nil
}

// pass notes a call and tells whether gild is killed at it. A look that is repeated before
// anything has changed is no point of its own: how often there is time for that differs.
func (g *gate) pass(action, body string) (deadly bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.counts == nil || looks(action) && g.seen[body] {
		return false
	}
	if looks(action) {
		g.seen[body] = true
	} else if action != "SendCommand" {
		clear(g.seen)
	}
	g.counts[action]++
	p := point{action, g.counts[action]}
	g.points = append(g.points, p)
	return p == g.at
}

// ServeHTTP passes a call on. Answers to looks at what is still going on are held back for
// a while, so that every build makes the same calls, and few.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the caller is gone
	}
	action := actionOf(r, body)
	deadly := g.pass(action, string(body))
	if deadly && !g.after {
		g.kill()
	}
	answer := g.answer(r, body)
	for end := time.Now().Add(2 * time.Second); !g.open.Load() && looks(action) && unsettled(answer) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		answer = g.answer(r, body)
	}
	if deadly {
		g.kill()
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	// A caller that is gone doesn't need the answer.
	_, _ = w.Write(answer.Body.Bytes())
}

// actionOf reads what is called. EC2, IAM and STS are asked with forms, the others with a header.
func actionOf(r *http.Request, body []byte) string {
	if _, action, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		return action
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return ""
	}
	return form.Get("Action")
}

func (g *gate) answer(r *http.Request, body []byte) *httptest.ResponseRecorder {
	// The effect must come to be whether or not the caller is there to see it.
	r = r.Clone(context.WithoutCancel(r.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := httptest.NewRecorder()
	g.next.ServeHTTP(answer, r)
	return answer
}

// unsettled tells whether an answer names a state that won't last.
func unsettled(answer *httptest.ResponseRecorder) bool {
	for _, word := range []string{
		`"Status":"Pending"`, `"Status":"InProgress"`, "<imageState>pending<", "<status>pending<",
		"<name>pending<", "<name>stopping<", "<name>shutting-down<",
	} {
		if bytes.Contains(answer.Body.Bytes(), []byte(word)) {
			return true
		}
	}
	return false
}

// kill ends gild, and the call.
func (g *gate) kill() {
	g.strike()
	panic(http.ErrAbortHandler)
}

// killedAt runs gild and kills it at a call, before that has an effect or after. The outcome
// has the code -1 when gild was killed, and another when it didn't make the call.
func (s *awsSite) killedAt(at point, after bool, args ...string) outcome {
	s.t.Helper()
	cmd := s.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	s.gate.mu.Lock()
	err := cmd.Start()
	if err != nil {
		s.gate.mu.Unlock()
		s.t.Fatal(err)
	}
	s.gate.aim(at, after, func() {
		if err := syscall.Kill(cmd.Process.Pid, syscall.SIGKILL); err != nil {
			s.t.Errorf("kill gild: %v", err)
		}
	})
	s.gate.mu.Unlock()
	err = cmd.Wait()
	s.gate.mu.Lock()
	s.gate.at = point{}
	s.gate.mu.Unlock()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("run gild: %v", err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// pointsOf returns the calls of an undisturbed build.
func pointsOf(t *testing.T, s *awsSite, args ...string) []point {
	t.Helper()
	if out := s.killedAt(point{}, false, args...); out.code != 0 {
		t.Fatalf("an undisturbed build ended with %d:\n%s", out.code, lastLines([]byte(out.stderr), 40))
	}
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.points
}
