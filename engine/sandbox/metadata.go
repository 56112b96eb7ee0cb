package sandbox

import (
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tokenHeader    = "X-aws-ec2-metadata-token"
	tokenTTLHeader = "X-aws-ec2-metadata-token-ttl-seconds"
	// maxTokenTTL is six hours, in seconds.
	maxTokenTTL = 21600
	// maxTokens is how many session tokens of one instance are valid at a time.
	maxTokens = 1000
)

// metadataService is the instance metadata service of one instance. It says what the state
// says at the moment of each request.
type metadataService struct {
	s  *Server
	id string

	mu      sync.Mutex
	tokens  map[string]time.Time
	session credential // of the instance's role
}

// metadata returns the metadata service of an instance. It needs the lock.
func (s *Server) metadata(id string) http.Handler {
	if s.imds[id] == nil {
		s.imds[id] = &metadataService{s: s, id: id, tokens: map[string]time.Time{}}
	}
	return s.imds[id]
}

// ServeHTTP answers as 169.254.169.254 does.
func (m *metadataService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.s.mu.Lock()
	i, now := m.s.instances.get(m.id), m.s.now()
	var options metadataOptions
	if i != nil {
		options = i.Metadata
	}
	m.s.mu.Unlock()
	w.Header().Set("Server", "EC2ws")
	switch {
	case i == nil || options.Endpoint == "disabled":
		refuse(w, http.StatusForbidden)
	case r.URL.Path == "/latest/api/token":
		m.giveToken(w, r, now)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "OPTIONS, GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed)
	case !m.admits(r, options, now):
		refuse(w, http.StatusUnauthorized)
	default:
		m.tell(w, r)
	}
}

func refuse(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

// giveToken makes a session token. A request that came through a proxy gets none.
func (m *metadataService) giveToken(w http.ResponseWriter, r *http.Request, now time.Time) {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", "OPTIONS, PUT")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	if r.Header.Get("X-Forwarded-For") != "" {
		refuse(w, http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(tokenTTLHeader))
	if err != nil || ttl < 1 || ttl > maxTokenTTL {
		refuse(w, http.StatusBadRequest)
		return
	}
	b := make([]byte, 40)
	rand.Read(b)
	text := base64.URLEncoding.EncodeToString(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	for old, until := range m.tokens {
		if !now.Before(until) || len(m.tokens) >= maxTokens {
			delete(m.tokens, old)
		}
	}
	m.tokens[text] = now.Add(time.Duration(ttl) * time.Second)
	w.Header().Set(tokenTTLHeader, strconv.Itoa(ttl))
	w.Header().Set("Content-Type", "text/plain")
	writeText(w, text)
}

// admits checks the session token, which version 1 of the service does without. A wrong one
// is refused also where none is needed.
func (m *metadataService) admits(r *http.Request, o metadataOptions, now time.Time) bool {
	text := r.Header.Get(tokenHeader)
	if text == "" {
		return o.Tokens != "required"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.tokens[text]
	return ok && now.Before(until)
}

var metadataVersions = []string{"1.0", "2009-04-04", "2011-01-01", "2012-01-12", "2014-11-05", "2016-09-02", "2018-09-24",
	"2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23", "2021-07-15", "2022-09-24", "latest"}

func (m *metadataService) tell(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	path := strings.Trim(r.URL.Path, "/")
	version, rest, _ := strings.Cut(path, "/")
	if path == "" {
		writeText(w, strings.Join(metadataVersions, "\n"))
		return
	}
	if !slices.Contains(metadataVersions, version) {
		refuse(w, http.StatusNotFound)
		return
	}
	entries, err := m.entries(rest)
	if err != nil {
		m.s.cfg.Log.Error("sandbox: metadata", "instance", m.id, "error", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	text, ok := lookUp(entries, rest)
	if !ok {
		refuse(w, http.StatusNotFound)
		return
	}
	writeText(w, text)
}

// lookUp finds a value, or lists a folder.
func lookUp(entries map[string]string, path string) (string, bool) {
	if path == "meta-data/public-keys" {
		name, ok := entries[keyNameEntry]
		return "0=" + name, ok
	}
	if text, ok := entries[path]; ok && path != keyNameEntry {
		return text, true
	}
	prefix := path + "/"
	if path == "" {
		prefix = ""
	}
	names := map[string]bool{}
	for at := range entries {
		if rest, ok := strings.CutPrefix(at, prefix); ok && at != keyNameEntry {
			name, _, folder := strings.Cut(rest, "/")
			if folder {
				name += "/"
			}
			names[name] = true
		}
	}
	var out []string
	for name := range names {
		out = append(out, name)
	}
	slices.Sort(out)
	return strings.Join(out, "\n"), len(out) > 0
}

func writeText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	if _, err := w.Write([]byte(text)); err != nil {
		return // the reader has gone
	}
}
