package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gildhq/gild/engine/sandbox/wire"
)

// keptCalls is how many calls the audit log remembers, the newest ones.
const keptCalls = 20_000

// maxBlob is how many bytes of a binary parameter the audit log keeps.
const maxBlob = 64 << 10

// Call is an entry of the audit log.
type Call struct {
	// At is when the call began, by the sandbox's clock.
	At time.Time `json:"at"`
	// ID is the request's id, as the caller sees it.
	ID      string `json:"id"`
	Service string `json:"service"`
	Action  string `json:"action"`
	Region  string `json:"region"`
	Account string `json:"account"`
	// Params are the parameters by the model's names. No credential is among them; the
	// streaming body of PutSnapshotBlock isn't kept.
	Params map[string]any `json:"params"`
	// Error is the code of the error that was answered, or empty.
	Error string `json:"error,omitempty"`
	// Faults that were injected.
	Faults []FaultKind `json:"faults,omitempty"`
}

// Calls returns the audit log: every call whose signature and parameters were valid, in
// the order in which they ended, the newest 20,000 of this process.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// finishCall adds a call to the audit log.
func (s *Server) finishCall(c *call, err error) {
	entry := Call{At: c.now, ID: c.r.ID, Service: c.r.Service, Action: c.r.Action,
		Region: c.region, Account: c.account, Params: withoutBlobs(c.p)}
	var known *wire.Error
	switch {
	case errors.As(err, &known):
		entry.Error = known.Code
	case err != nil:
		entry.Error = internal().Code
	}
	for _, f := range c.faults {
		entry.Faults = append(entry.Faults, f.Kind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.calls) >= keptCalls {
		s.calls = slices.Delete(s.calls, 0, keptCalls/10)
	}
	s.calls = append(s.calls, entry)
}

func withoutBlobs(p params) map[string]any {
	out := make(map[string]any, len(p))
	for name, v := range p {
		if b, ok := v.([]byte); ok && len(b) > maxBlob {
			v = fmt.Sprintf("%d bytes", len(b))
		}
		out[name] = v
	}
	return out
}
