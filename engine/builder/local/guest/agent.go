package guest

import (
	"bufio"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// agent is the host's side of the conversation that agent.sh describes.
type agent struct {
	ports ports
	hello chan struct{} // closed when the agent spoke first
	says  chan message
	last  int // id of the last command
	// broken is why no further command can be run.
	broken error

	mu      sync.Mutex
	session string        // what the agent that is running calls itself
	there   chan struct{} // closed when an agent has said hello since the system started
}

// message is a line of the agent.
type message struct {
	word       string // "hello", "exit", "done" or "killed"
	id, status int
	session    string // of hello
}

func newAgent(p ports) *agent {
	a := &agent{ports: p, hello: make(chan struct{}), says: make(chan message, 16), there: make(chan struct{})}
	go a.listen(p.control)
	go a.listen(p.kill)
	return a
}

func (a *agent) answered() bool {
	select {
	case <-a.hello:
		return true
	default:
		return false
	}
}

// listen reads one of the ports on which the agent speaks in lines until QEMU ends.
func (a *agent) listen(port io.Reader) {
	lines := bufio.NewScanner(port)
	for lines.Scan() {
		m, ok := parseMessage(lines.Text())
		if !ok {
			continue
		}
		if m.word == "hello" && !a.greet(m.session) {
			continue
		}
		a.tell(m)
	}
}

// tell passes a message on to the command that runs, if one does.
func (a *agent) tell(m message) {
	select {
	case a.says <- m:
	default:
		// No honest agent says that much: a guest isn't to be trusted.
	}
}

// greet notes an agent, and reports whether it has taken the place of another.
func (a *agent) greet(session string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	other := a.session != ""
	a.session = session
	if !other {
		close(a.there)
	}
	if !a.answered() {
		close(a.hello)
	}
	return other
}

// lost notes that the system restarts, and its agent with it.
func (a *agent) lost() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != "" {
		a.session, a.there = "", make(chan struct{})
	}
	a.tell(message{word: "hello"})
}

// present is closed when there is an agent to talk to.
func (a *agent) present() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.there
}

func (a *agent) currentSession() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

var sessionRE = regexp.MustCompile(`^[0-9a-f-]{36}$`)

func parseMessage(line string) (message, bool) {
	var m message
	f := strings.Fields(line)
	switch {
	case len(f) == 2 && f[0] == "hello" && sessionRE.MatchString(f[1]):
		return message{word: f[0], session: f[1]}, true
	case len(f) == 2 && (f[0] == "done" || f[0] == "killed"):
		id, err := strconv.Atoi(f[1])
		return message{word: f[0], id: id}, err == nil
	case len(f) == 3 && f[0] == "exit":
		id, err := strconv.Atoi(f[1])
		status, err2 := strconv.Atoi(f[2])
		return message{word: f[0], id: id, status: status}, err == nil && err2 == nil
	default:
		return m, false
	}
}

// forget drops what was said before the next command.
func (a *agent) forget() {
	for {
		select {
		case <-a.says:
		default:
			return
		}
	}
}
