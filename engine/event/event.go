// Package event is the one stream of what happens in a run. The terminal view, the
// plain log, JSONL files and reports are all drawn from it; nothing else prints.
package event

import "time"

// Version is the version of the stream's format, in every event.
const Version = 1

// Kind tells what an event is about, and which of its fields are set.
type Kind string

// The kinds of events.
const (
	// RunStarted opens a run; Graph is set.
	RunStarted Kind = "run.started"
	// NodeState is a change of a node's state; State is set, Reason, Failure, Attempt and ElapsedMS where they apply.
	NodeState Kind = "node.state"
	// NodeLog is a line of a node's output; Stream and Text are set.
	NodeLog Kind = "node.log"
	// NodeProgress is work done; Done, Total and Unit are set.
	NodeProgress Kind = "node.progress"
	// NodeUndone tells that something a node made was removed again; Text names it, Failure is set if it couldn't be.
	NodeUndone Kind = "node.undone"
	// Notice is a sentence for people about the run; Text is set.
	Notice Kind = "notice"
	// RunFinished closes a run; State, ElapsedMS and ExitCode are set.
	RunFinished Kind = "run.finished"
)

// State is a node's state, or a run's.
type State string

// The states. Done, Cached, Skipped, Failed, Cancelled and Undone are final.
const (
	Pending   State = "pending"
	Running   State = "running"
	Done      State = "done"
	Cached    State = "cached"
	Skipped   State = "skipped"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	// Undone is cancelled, with something already made and all of it removed again.
	// A node that failed stays failed, whatever was removed; one that was cancelled before
	// it made anything, or that left something behind, is cancelled.
	Undone State = "undone"
)

// Final reports whether a node in this state will not change any more.
func (s State) Final() bool { return s != Pending && s != Running }

// Event is one thing that happened. Texts are masked: no secret is in any event.
type Event struct {
	V    int       `json:"v"`
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Run  string    `json:"run"`
	Kind Kind      `json:"kind"`
	// Node is the node's id; empty for events of the run.
	Node      string   `json:"node,omitempty"`
	Graph     []Node   `json:"graph,omitempty"`
	State     State    `json:"state,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Attempt   int      `json:"attempt,omitempty"`
	ElapsedMS int64    `json:"elapsed_ms,omitempty"`
	Failure   *Failure `json:"failure,omitempty"`
	// Stream is "stdout" or "stderr".
	Stream string `json:"stream,omitempty"`
	Text   string `json:"text,omitempty"`
	Done   int64  `json:"done,omitempty"`
	Total  int64  `json:"total,omitempty"`
	// Unit of Done and Total, such as "bytes".
	Unit     string `json:"unit,omitempty"`
	ExitCode *int   `json:"exit_code,omitempty"`
}

// Node is a node of the graph as the stream shows it.
type Node struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Needs []string `json:"needs,omitempty"`
	// Place is file:line of the node in the pipeline file, or empty.
	Place string `json:"place,omitempty"`
}

// Failure says why a node failed.
type Failure struct {
	// Error is the whole chain, left to right from intent to cause.
	Error string `json:"error"`
	// Command and ExitStatus are set when a command failed.
	Command    []string `json:"command,omitempty"`
	ExitStatus int      `json:"exit_status,omitempty"`
	// Tail are the last lines of the node's log, at most 40.
	Tail []string `json:"tail,omitempty"`
	// LogPath is the file with the whole log.
	LogPath string `json:"log_path,omitempty"`
}

// Sink takes events. Emit must not block for long; it is called from one goroutine at a time.
type Sink interface {
	Emit(Event)
}
