package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// maxControl is how many bytes a request to the control endpoint may have.
const maxControl = 1 << 20

// control serves /_gild/: what tests and users may do with a running sandbox that AWS has no
// operation for. It answers callers on loopback only, and none that came through a browser
// from another site or through a proxy.
//
//	GET  /_gild/state    what there is, in numbers, and the time
//	GET  /_gild/calls    the audit log
//	POST /_gild/faults   Faults as JSON
//	POST /_gild/clock    {"advance": "90s"}
//	POST /_gild/policy   {"accessKey": "...", "document": {...}}; without a document none
//	POST /_gild/export   {"region": "...", "id": "ami-... or snap-...", "path": "/absolute/path.raw"}
func (s *Server) control() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /_gild/state":   s.controlState,
		"GET /_gild/calls":   func(*http.Request) (any, error) { return s.Calls(), nil },
		"POST /_gild/faults": s.controlFaults,
		"POST /_gild/clock":  s.controlClock,
		"POST /_gild/policy": s.controlPolicy,
		"POST /_gild/export": s.controlExport,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			out, err := serve(r)
			status := http.StatusOK
			if err != nil {
				out, status = map[string]string{"error": err.Error()}, http.StatusBadRequest
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			if err := json.NewEncoder(w).Encode(out); err != nil {
				s.cfg.Log.Debug("sandbox: control", "error", err)
			}
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r) {
			http.Error(w, "the sandbox is controlled from its own machine only", http.StatusForbidden)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxControl)
		mux.ServeHTTP(w, r)
	})
}

// fromLoopback reports whether a request was made on this machine by a program. A page in a
// browser could be made to send one too; its Origin, or a name that was bent to loopback,
// gives it away.
func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	if err != nil || ip == nil || !ip.IsLoopback() || r.Header.Get("Origin") != "" || r.Header.Get("X-Forwarded-For") != "" {
		return false
	}
	name := r.Host
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		name = h
	}
	ip = net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

func decode(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	return nil
}

func (s *Server) controlState(*http.Request) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return map[string]any{"now": s.now(), "pending": len(s.moving), "images": len(s.images.rows), "snapshots": len(s.snapshots.rows),
		"volumes": len(s.volumes.rows), "instances": len(s.instances.rows), "machines": len(s.machines),
		"groups": len(s.groups.rows), "keys": len(s.keys.rows), "calls": len(s.calls)}, nil
}

func (s *Server) controlFaults(r *http.Request) (any, error) {
	var f Faults
	if err := decode(r, &f); err != nil {
		return nil, err
	}
	return struct{}{}, s.SetFaults(f)
}

func (s *Server) controlClock(r *http.Request) (any, error) {
	var in struct{ Advance string }
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	d, err := time.ParseDuration(in.Advance)
	if err == nil {
		err = s.Advance(d)
	}
	return map[string]any{"now": s.Now()}, err
}

func (s *Server) controlPolicy(r *http.Request) (any, error) {
	var in struct {
		AccessKey string
		Document  json.RawMessage
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return struct{}{}, s.SetPolicy(in.AccessKey, string(in.Document))
}

func (s *Server) controlExport(r *http.Request) (any, error) {
	var in struct{ Region, ID, Path string }
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(in.Path) {
		return nil, errors.New("give the path to export to as an absolute one")
	}
	return map[string]string{"path": in.Path}, s.Export(r.Context(), in.Region, in.ID, in.Path)
}
