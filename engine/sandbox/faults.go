package sandbox

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// FaultKind is something that goes wrong.
type FaultKind string

// What can go wrong with a call.
const (
	// Throttle refuses the call for too many of them, in the service's own words.
	Throttle FaultKind = "throttle"
	// Unavailable fails it with a status 503 or 500 before anything has happened.
	Unavailable FaultKind = "unavailable"
	// Lost does what was asked and closes the connection without an answer.
	Lost FaultKind = "lost"
	// Slow answers after Fault.For.
	Slow FaultKind = "slow"
	// Stuck makes what the call makes stay in its pending state for ever.
	Stuck FaultKind = "stuck"
	// Capacity refuses RunInstances and StartInstances with InsufficientInstanceCapacity.
	Capacity FaultKind = "capacity"
	// SpotInterruption takes the spot instances of a RunInstances away: they are told after
	// Fault.For, and terminated two minutes later, on the sandbox's clock.
	SpotInterruption FaultKind = "spot-interruption"
)

// Fault is one thing that goes wrong with certain calls.
type Fault struct {
	// Service and Action select calls; empty selects all. The same names as in [Call].
	Service string `json:"service,omitempty"`
	Action  string `json:"action,omitempty"`
	// Where selects calls by parameters: "InstanceType": "t3.small". A dot goes into a
	// structure: "Placement.AvailabilityZone".
	Where map[string]string `json:"where,omitempty"`
	// Nth is which of the selected calls it is, from 1, counted since the faults were set;
	// 0 is every one.
	Nth  int       `json:"nth,omitempty"`
	Kind FaultKind `json:"kind"`
	// For is a duration: see the kinds. 0 means 2 s for a slow call, and at once for an interruption.
	For time.Duration `json:"for,omitempty"`
}

// Faults is what goes wrong. The zero value is a world without faults.
type Faults struct {
	// Seed of the rates: the same calls in the same order get the same faults.
	Seed uint64 `json:"seed,omitempty"`
	// Throttle, Unavailable, Lost and Slow are the parts of all calls, 0 to 1, that get
	// this fault. A call gets at most one of the first three.
	Throttle    float64 `json:"throttle,omitempty"`
	Unavailable float64 `json:"unavailable,omitempty"`
	Lost        float64 `json:"lost,omitempty"`
	Slow        float64 `json:"slow,omitempty"`
	// Lag is for how many lookups a new id isn't found: EC2 is eventually consistent. Each
	// call that names the id, or lists its kind, is one lookup.
	Lag int `json:"lag,omitempty"`
	// List are faults of certain calls.
	List []Fault `json:"list,omitempty"`
}

type faultState struct {
	Faults
	random *rand.Rand
	counts []int // of matching calls, by entry of List
}

// SetFaults replaces what goes wrong, and starts its counts and its random numbers anew.
func (s *Server) SetFaults(f Faults) error {
	for _, e := range f.List {
		switch e.Kind {
		case Throttle, Unavailable, Lost, Slow, Stuck, Capacity, SpotInterruption:
		default:
			return fmt.Errorf("set faults: there is no kind %q", e.Kind)
		}
	}
	for _, rate := range []float64{f.Throttle, f.Unavailable, f.Lost, f.Slow} {
		if rate < 0 || rate > 1 {
			return fmt.Errorf("set faults: the rate %v isn't between 0 and 1", rate)
		}
	}
	f.List = slices.Clone(f.List)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faultState{Faults: f, random: rand.New(rand.NewPCG(f.Seed, 1)), counts: make([]int, len(f.List))}
	return nil
}

// pick chooses the faults of a call.
func (f *faultState) pick(c *call) (out []Fault) {
	for i, e := range f.List {
		if !e.matches(c) {
			continue
		}
		if f.counts[i]++; e.Nth == 0 || e.Nth == f.counts[i] {
			out = append(out, e)
		}
	}
	if f.random == nil {
		return out
	}
	// Both numbers are drawn for every call, so that one rate doesn't shift the other's.
	one, slow := f.random.Float64(), f.random.Float64()
	switch {
	case one < f.Throttle:
		out = append(out, Fault{Kind: Throttle})
	case one < f.Throttle+f.Unavailable:
		out = append(out, Fault{Kind: Unavailable})
	case one < f.Throttle+f.Unavailable+f.Lost:
		out = append(out, Fault{Kind: Lost})
	}
	if slow < f.Slow {
		out = append(out, Fault{Kind: Slow})
	}
	return out
}

func (e Fault) matches(c *call) bool {
	if e.Service != "" && e.Service != c.r.Service || e.Action != "" && e.Action != c.r.Action {
		return false
	}
	for path, want := range e.Where {
		var at any = map[string]any(c.p)
		for name := range strings.SplitSeq(path, ".") {
			m, _ := at.(map[string]any)
			at = m[name]
		}
		if at == nil || fmt.Sprint(at) != want {
			return false
		}
	}
	return true
}

// has returns the fault of a kind that the call has.
func (c *call) has(kind FaultKind) (Fault, bool) {
	for _, f := range c.faults {
		if f.Kind == kind {
			return f, true
		}
	}
	return Fault{}, false
}

// suffer waits, fails, or marks the answer as lost.
func (c *call) suffer() error {
	if f, ok := c.has(Slow); ok {
		d := f.For
		if d == 0 {
			d = 2 * time.Second
		}
		select {
		case <-time.After(d):
		case <-c.ctx.Done():
		case <-c.s.ctx.Done():
		}
	}
	if _, ok := c.has(Throttle); ok {
		return throttled(c.r.Service)
	}
	if _, ok := c.has(Unavailable); ok {
		return unavailable(c.r.Service)
	}
	if _, ok := c.has(Lost); ok {
		if lost, ok := c.ctx.Value(lostKey{}).(*bool); ok {
			*lost = true
		}
	}
	return nil
}

func throttled(service string) *wire.Error {
	switch service {
	case "ec2":
		return &wire.Error{Code: "RequestLimitExceeded", Message: "Request limit exceeded.", Status: http.StatusServiceUnavailable}
	case "ebs":
		return &wire.Error{Code: "RequestThrottledException", Message: "Rate exceeded", Status: http.StatusBadRequest,
			Detail: map[string]any{"Reason": "ACCOUNT_THROTTLED"}}
	case "sts", "iam":
		return &wire.Error{Code: "Throttling", Message: "Rate exceeded", Status: http.StatusBadRequest}
	}
	return &wire.Error{Code: "ThrottlingException", Message: "Rate exceeded", Status: http.StatusBadRequest}
}

func unavailable(service string) *wire.Error {
	switch service {
	case "ec2":
		return &wire.Error{Code: "Unavailable", Message: "The service is unavailable. Please try again shortly.", Status: http.StatusServiceUnavailable}
	case "sts", "iam":
		return &wire.Error{Code: "ServiceUnavailable", Message: "The request has failed due to a temporary failure of the server.", Status: http.StatusServiceUnavailable}
	case "ssm":
		return &wire.Error{Code: "InternalServerError", Message: "An error occurred on the server side.", Status: http.StatusInternalServerError}
	}
	return &wire.Error{Code: "InternalServerException", Message: "An internal error has occurred.", Status: http.StatusInternalServerError}
}

type lostKey struct{}

// losing drops the answers that a fault marked as lost: the connection is closed, and not a
// byte of the answer was sent.
func losing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lost := new(bool)
		ctx := context.WithValue(r.Context(), lostKey{}, lost)
		next.ServeHTTP(&losingWriter{ResponseWriter: w, lost: lost}, r.WithContext(ctx))
	})
}

type losingWriter struct {
	http.ResponseWriter
	lost *bool
}

func (w *losingWriter) WriteHeader(status int) {
	if *w.lost {
		panic(http.ErrAbortHandler)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *losingWriter) Write(b []byte) (int, error) {
	if *w.lost {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (w *losingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
