package ui

import (
	"strings"
	"time"

	"github.com/gildhq/gild/engine/event"
)

// Story is what a stream of events has told so far. It is an [event.Sink]; the zero
// Story is empty and ready to use. Not safe for concurrent use.
type Story struct {
	run      string
	started  time.Time
	nodes    []*node
	byID     map[string]*node
	groups   []*group
	byGroup  map[string]*group
	tally    tally
	failures []*node // in the order in which they failed: the first is the root cause
	undone   []undo
	stuck    []undo // what could not be removed
	finished bool
	state    event.State
	elapsed  time.Duration
	exitCode int
}

// node is one node of the graph with all that is known of it.
type node struct {
	event.Node
	group    *group
	state    event.State
	reason   string
	attempt  int
	started  time.Time
	elapsed  time.Duration
	lastLine string
	heard    time.Time // when the node last said anything
	progress progress
	failure  *event.Failure
}

// progress is work done out of a total; a total of 0 is unknown.
type progress struct {
	done, total int64
	unit        string
}

// group is the nodes of one image: those whose ids share what is before the last slash.
type group struct {
	name  string
	nodes []*node
	tally tally
}

// undo is something that was removed again, or could not be.
type undo struct{ node, what, err string }

// tally counts nodes by state.
type tally map[event.State]int

func (t tally) move(from, to event.State) {
	t[from]--
	t[to]++
}

// ended is how many nodes will not change any more.
func (t tally) ended() int {
	n := 0
	for state, count := range t {
		if state.Final() {
			n += count
		}
	}
	return n
}

// Emit adds an event to the story.
func (s *Story) Emit(e event.Event) {
	switch e.Kind {
	case event.RunStarted:
		s.begin(e)
	case event.NodeState:
		s.change(s.node(e.Node), e)
	case event.NodeLog:
		n := s.node(e.Node)
		n.heard = e.Time
		if line := clean(e.Text); strings.TrimSpace(line) != "" {
			n.lastLine = line
		}
	case event.NodeProgress:
		s.node(e.Node).progress = progress{e.Done, e.Total, e.Unit}
	case event.NodeUndone:
		s.undo(e)
	case event.RunFinished:
		s.finished, s.state = true, e.State
		s.elapsed = time.Duration(e.ElapsedMS) * time.Millisecond
		if e.ExitCode != nil {
			s.exitCode = *e.ExitCode
		}
	}
}

func (s *Story) begin(e event.Event) {
	*s = Story{run: e.Run, started: e.Time, byID: map[string]*node{}, byGroup: map[string]*group{}, tally: tally{}}
	for _, n := range e.Graph {
		s.add(n)
	}
}

func (s *Story) add(en event.Node) *node {
	en.Title = clean(en.Title)
	n := &node{Node: en, state: event.Pending}
	name, _ := splitID(en.ID)
	g, ok := s.byGroup[name]
	if !ok {
		g = &group{name: name, tally: tally{}}
		s.byGroup[name] = g
		s.groups = append(s.groups, g)
	}
	n.group = g
	g.nodes = append(g.nodes, n)
	g.tally[event.Pending]++
	s.tally[event.Pending]++
	s.nodes = append(s.nodes, n)
	s.byID[en.ID] = n
	return n
}

// node finds a node; one that the graph didn't name is added, so that no event is lost.
func (s *Story) node(id string) *node {
	if n, ok := s.byID[id]; ok {
		return n
	}
	if s.byID == nil {
		s.begin(event.Event{})
	}
	return s.add(event.Node{ID: id})
}

func (s *Story) change(n *node, e event.Event) {
	if n.started.IsZero() && e.State == event.Running {
		n.started = e.Time
	}
	if e.State == event.Running || e.State.Final() {
		n.heard = e.Time
	}
	if e.Failure != nil {
		if n.failure == nil {
			s.failures = append(s.failures, n)
		}
		n.failure = e.Failure
	}
	if e.ElapsedMS > 0 {
		n.elapsed = time.Duration(e.ElapsedMS) * time.Millisecond
	}
	n.reason, n.attempt = clean(e.Reason), max(n.attempt, e.Attempt)
	s.tally.move(n.state, e.State)
	n.group.tally.move(n.state, e.State)
	n.state = e.State
}

func (s *Story) undo(e event.Event) {
	u := undo{node: e.Node, what: clean(e.Text)}
	if e.Failure == nil {
		s.undone = append(s.undone, u)
		return
	}
	u.err = strings.TrimPrefix(clean(e.Failure.Error), "remove "+u.what+": ")
	s.stuck = append(s.stuck, u)
}

// Run is the run's id; empty before it has begun.
func (s *Story) Run() string { return s.run }

// Running lists the ids of the steps that are running.
func (s *Story) Running() []string {
	var ids []string
	for _, n := range s.nodes {
		if n.state == event.Running {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// running is how long a node has been running at a time.
func (n *node) running(now time.Time) time.Duration { return max(0, now.Sub(n.started)) }

// failed tells a node at fault from one that others stopped.
func (n *node) failed() bool {
	return n.state == event.Failed || n.state == event.Undone && n.failure != nil
}

// halted tells a node that was stopped while it ran.
func (n *node) halted() bool {
	return !n.started.IsZero() && (n.state == event.Cancelled || n.state == event.Undone && n.failure == nil)
}

// splitID cuts a node's id into the image's name and the step's.
func splitID(id string) (image, step string) {
	// A matrix value may hold a slash, so only what follows the bracket counts.
	from := strings.LastIndexByte(id, ']') + 1
	if i := strings.LastIndexByte(id[from:], '/'); i >= 0 {
		return id[:from+i], id[from+i+1:]
	}
	return "", id
}
