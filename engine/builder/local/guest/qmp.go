package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// qmp talks to QEMU's monitor. Safe for concurrent use.
type qmp struct {
	conn net.Conn
	gone chan struct{} // closed when QEMU has hung up

	replies chan qmpMessage
	ready   bool // capabilities are negotiated; of the reader
	// resets and shutdowns have room for one: what nobody has taken yet is seen once.
	resets, shutdowns chan struct{}

	mu sync.Mutex // one command at a time

	reasonMu sync.Mutex
	reason   string
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// newQMP may be called before QEMU runs.
func newQMP(conn net.Conn) (*qmp, error) {
	// QEMU takes no other command, and reports no events, before this one.
	if _, err := conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n")); err != nil {
		return nil, fmt.Errorf("QEMU's monitor: %w", err)
	}
	q := &qmp{
		conn: conn, gone: make(chan struct{}), replies: make(chan qmpMessage, 1),
		resets: make(chan struct{}, 1), shutdowns: make(chan struct{}, 1),
	}
	go q.read()
	return q, nil
}

func (q *qmp) read() {
	defer close(q.gone)
	for dec := json.NewDecoder(q.conn); ; {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			// The end of QEMU; whoever waits for a reply sees gone.
			return
		}
		switch {
		case m.Event == "SHUTDOWN":
			q.reasonMu.Lock()
			q.reason = m.Data.Reason
			q.reasonMu.Unlock()
			note(q.shutdowns)
		case m.Event == "RESET":
			note(q.resets)
		case m.Event == "" && !q.ready:
			q.ready = m.Return != nil
		case m.Return != nil || m.Error != nil:
			q.replies <- m
		}
	}
}

func note(event chan<- struct{}) {
	select {
	case event <- struct{}{}:
	default:
	}
}

// shutdownReason says why a QEMU that ended in order did.
func (q *qmp) shutdownReason() string {
	<-q.gone
	q.reasonMu.Lock()
	defer q.reasonMu.Unlock()
	switch q.reason {
	case "guest-shutdown":
		return "the guest switched itself off"
	case "guest-reset":
		return "the guest restarted, which a test machine isn't made for"
	case "guest-panic":
		return "the guest's kernel panicked"
	case "":
		return "QEMU ended"
	default:
		return "QEMU ended: " + q.reason
	}
}

// human runs a command of the human monitor and returns what it prints.
func (q *qmp) human(line string) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	raw, err := q.do("human-monitor-command", map[string]string{"command-line": line})
	if err != nil {
		return "", err
	}
	var printed string
	if err := json.Unmarshal(raw, &printed); err != nil {
		return "", fmt.Errorf("QEMU's monitor: %w", err)
	}
	return printed, nil
}

// run runs a command; arguments may be nil.
func (q *qmp) run(command string, arguments any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.do(command, arguments)
}

// replyTimeout is far beyond what QEMU needs: a reply that is later isn't waited for by
// anyone, and would be taken for that of the next command.
const replyTimeout = 30 * time.Second

func (q *qmp) do(command string, arguments any) (json.RawMessage, error) {
	message := map[string]any{"execute": command}
	if arguments != nil {
		message["arguments"] = arguments
	}
	line, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("QEMU's monitor: %w", err)
	}
	select {
	case m := <-q.replies:
		if m.Error != nil {
			return nil, fmt.Errorf("QEMU's monitor: %s: %s", command, m.Error.Description)
		}
		return m.Return, nil
	case <-q.gone:
		return nil, fmt.Errorf("QEMU's monitor: %w", io.ErrUnexpectedEOF)
	case <-time.After(replyTimeout):
		return nil, errors.Join(fmt.Errorf("QEMU's monitor: no reply to %s within %s", command, replyTimeout), q.conn.Close())
	}
}
