package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gildhq/gild/engine/event"
)

const (
	// tailLines is how many of the last lines of a step's log a report shows.
	tailLines = 40
	// shownCommand is how much of a command is shown, in bytes.
	shownCommand = 400
	// listed is how many stopped steps are named one by one.
	listed = 12
)

// Failure writes what went wrong in a run: the first cause whole, then other causes,
// what they stopped, what was removed again or couldn't be, and how to go on. It writes
// nothing about a run that ended well. width is that of the place written to.
func (s *Story) Failure(w io.Writer, look Look, width int) error {
	r := report{look: look, width: max(20, width)}
	for i, n := range s.failures {
		r.cause(n, i == 0)
	}
	r.stopped(s)
	r.undone(s)
	if s.run != "" && s.state != event.Done && (len(s.failures) > 0 || s.state == event.Cancelled) {
		r.field("resume", "gild resume "+s.run)
	}
	if r.Len() > 0 {
		r.WriteByte('\n')
	}
	_, err := io.WriteString(w, r.String())
	return err
}

// report collects the lines of a failure report.
type report struct {
	strings.Builder
	look  Look
	width int
}

func (r *report) cause(n *node, first bool) {
	took := ""
	if !n.started.IsZero() {
		took = " after " + Span(n.elapsed)
	}
	word := "failed"
	if !first {
		word = "also failed"
	}
	r.WriteString("\n" + r.look.mark(event.Failed) + " " + r.look.paint(bold, clean(n.ID)+" "+word+took) + "\n")
	title := clean(n.Title)
	if n.Place != "" {
		title = strings.TrimPrefix(title+", "+clean(n.Place), ", ")
	}
	r.field("step", title)
	r.error(n.failure.Error)
	if len(n.failure.Command) > 0 {
		r.field("command", shorten(quote(n.failure.Command)))
		r.field("exit status", fmt.Sprint(n.failure.ExitStatus))
	}
	r.tail(n.failure.Tail)
	r.field("whole log", n.failure.LogPath)
}

// field writes "  name         text"; an empty text writes nothing. Texts that people
// copy (paths, commands) are never cut or wrapped.
func (r *report) field(name, text string) {
	if text == "" {
		return
	}
	r.WriteString("  " + r.look.paint(dim, pad(name, 12)) + " ")
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			r.WriteString(strings.Repeat(" ", 15))
		}
		r.WriteString(clean(line) + "\n")
	}
}

// error writes the chain of an error, which may have several lines, in red.
func (r *report) error(text string) {
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		name := "cause"
		if i > 0 {
			name = ""
		}
		r.WriteString("  " + r.look.paint(dim, pad(name, 12)) + " " + r.look.paint(red, clean(line)) + "\n")
	}
}

func (r *report) tail(lines []string) {
	if len(lines) == 0 {
		return
	}
	lines = lines[max(0, len(lines)-tailLines):]
	r.WriteString("  " + r.look.paint(dim, "last "+count(len(lines), "line")+" of its log") + "\n")
	for _, line := range lines {
		r.WriteString(strings.TrimRight("    "+r.look.bar()+" "+clean(line), " ") + "\n")
	}
}

// stopped lists what didn't run because something else failed or the run was stopped.
func (r *report) stopped(s *Story) {
	if !s.finished {
		return
	}
	var names []string
	stopped := map[string]bool{}
	for _, n := range s.nodes {
		if s.wasStopped(n, stopped) {
			names = append(names, clean(n.ID))
		}
	}
	if len(names) == 0 {
		return
	}
	more := ""
	if len(names) > listed {
		more = fmt.Sprintf(" and %d more", len(names)-listed)
		names = names[:listed]
	}
	r.WriteByte('\n')
	r.field("stopped", wrap(names, r.width-15, ",")+more)
}

// wasStopped tells a node that ended, or never began, through no fault of its own.
// A skipped one counts when a node it needs failed or was stopped. known remembers answers.
func (s *Story) wasStopped(n *node, known map[string]bool) bool {
	if answer, ok := known[n.ID]; ok {
		return answer
	}
	answer := false
	switch n.state {
	case event.Cancelled, event.Pending:
		answer = true
	case event.Undone:
		answer = n.failure == nil
	case event.Skipped:
		known[n.ID] = false // a graph with a cycle must not keep us here
		answer = slices.ContainsFunc(n.Needs, func(id string) bool {
			need, ok := s.byID[id]
			return ok && (need.failed() || s.wasStopped(need, known))
		})
	}
	known[n.ID] = answer
	return answer
}

func (r *report) undone(s *Story) {
	if len(s.failures) == 0 && s.state != event.Cancelled && len(s.stuck) == 0 {
		return
	}
	var removed, stuck []string
	for _, u := range s.undone {
		removed = append(removed, u.what)
	}
	for _, n := range s.nodes {
		if n.halted() && !slices.ContainsFunc(s.stuck, func(u undo) bool { return u.node == n.ID }) {
			removed = append(removed, clean(n.ID)+": nothing of it was kept")
		}
	}
	for _, u := range s.stuck {
		stuck = append(stuck, u.what+": "+u.err)
	}
	if len(stuck) > 0 && r.Len() == 0 {
		r.WriteByte('\n')
	}
	r.field("undone", strings.Join(removed, "\n"))
	r.field("left behind", strings.Join(stuck, "\n"))
	if len(stuck) > 0 {
		r.field("clean up", "gild gc")
	}
}

// shorten cuts the middle out of a long command and shows its line ends.
func shorten(s string) string {
	s = strings.ReplaceAll(s, "\n", `\n`)
	if len(s) <= shownCommand {
		return s
	}
	head, tail := s[:shownCommand*3/4], s[len(s)-shownCommand/4:]
	for !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	for !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return fmt.Sprintf("%s [%d bytes more] %s", head, len(s)-len(head)-len(tail), tail)
}

// wrap joins words into lines of at most width cells, with a separator after all but the last.
func wrap(words []string, width int, separator string) string {
	var out strings.Builder
	used := 0
	for i, word := range words {
		if i < len(words)-1 {
			word += separator
		}
		need := cells.String(word)
		switch {
		case used == 0:
		case used+1+need > width:
			out.WriteByte('\n')
			used = 0
		default:
			out.WriteByte(' ')
			used++
		}
		out.WriteString(word)
		used += need
	}
	return out.String()
}
