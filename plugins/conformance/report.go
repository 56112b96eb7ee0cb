package conformance

import (
	"fmt"
	"strings"

	"github.com/gildhq/gild/engine/diag"
)

// Status is how a check came out.
type Status string

// The outcomes of a check.
const (
	OK Status = "ok"
	// Warning holds, but people should know.
	Warning Status = "warning"
	Failed  Status = "failed"
	// Skipped had nothing to be checked with; the detail says what is missing.
	Skipped Status = "skipped"
	// NotRun couldn't be checked on this host, or only a part of it; the detail says why.
	NotRun Status = "not run"
)

// Report is what a plugin was found to be.
type Report struct {
	// Path is what was tested, as it was named.
	Path string `json:"path"`
	// Plugin and Version are what the plugin says of itself; empty when it didn't.
	Plugin  string `json:"plugin,omitempty"`
	Version string `json:"version,omitempty"`
	// RealRuns counts the runs of the fixtures that were made on a real machine.
	RealRuns int `json:"real_runs"`
	// Checks are in the order in which they were made; always all of them.
	Checks []Result `json:"checks"`
}

// Result is one check of a [Report].
type Result struct {
	// Name is stable and kebab-case, such as "handshake".
	Name string `json:"name"`
	// Means says what must hold, in one line.
	Means  string `json:"means"`
	Status Status `json:"status"`
	// Detail says what was seen instead, or why it couldn't be checked; it may have
	// several lines, and is empty for most checks that hold.
	Detail string `json:"detail,omitempty"`
}

// OK reports whether no check failed.
func (r Report) OK() bool { return r.count(Failed) == 0 }

func (r Report) count(s Status) int {
	n := 0
	for _, c := range r.Checks {
		if c.Status == s {
			n++
		}
	}
	return n
}

// Text is the report for people, without colours and with control characters shown as
// escapes: a line for each check, details below it, and the sums last.
func (r Report) Text() string {
	var out strings.Builder
	if r.Plugin != "" {
		fmt.Fprintf(&out, "%s %s\n", diag.Printable(r.Plugin), diag.Printable(r.Version))
	}
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	last := ""
	for _, c := range r.Checks {
		fmt.Fprintf(&out, "  %-7s  %-*s  %s", c.Status, width, c.Name, c.Means)
		if c.Status == OK && c.Detail != "" && !strings.Contains(c.Detail, "\n") {
			fmt.Fprintf(&out, " (%s)\n", diag.Printable(c.Detail))
			continue
		}
		out.WriteString("\n")
		if c.Detail == last {
			continue // said already, as when the plugin doesn't start
		}
		last = c.Detail
		for line := range strings.Lines(c.Detail) {
			fmt.Fprintf(&out, "  %7s  %*s  %s\n", "", width, "", diag.Printable(strings.TrimRight(line, "\n")))
		}
	}
	fmt.Fprintf(&out, "%d checks: %d ok", len(r.Checks), r.count(OK))
	for _, s := range []Status{Warning, Failed, Skipped, NotRun} {
		if n := r.count(s); n > 0 {
			fmt.Fprintf(&out, ", %d %s", n, s)
		}
	}
	out.WriteString("\n")
	return out.String()
}
