package ui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gildhq/gild/engine/event"
)

// folding is how much of the graph is shown in short. Each level includes those before.
type folding int

const (
	whole       folding = iota
	foldImages          // an image that ended well takes one line
	foldEnded           // so do neighbouring steps that ended well
	foldWaiting         // and those that wait
	foldMany            // and neighbouring images of one kind
	foldLogs            // no last lines of output
	foldings
)

// row is one line of a frame: a node, its last line of output, an image's heading, or
// several nodes in short.
type row struct {
	node   *node
	log    bool
	group  *group
	short  tally
	images int // how many images are in short, beside that of group
	cut    int // how many rows didn't fit
	full   bool
}

// frame draws the graph as it is now in at most height lines of at most width cells.
func (s *Story) frame(now time.Time, width, height int, look Look) []string {
	p := painter{look: look, now: now, width: width, single: len(s.groups) <= 1}
	return p.frame(s, s.fold(height-1))
}

// frame draws a heading and rows below it, names in one column.
func (p painter) frame(s *Story, rows []row) []string {
	for _, r := range rows {
		if r.node != nil && !r.log {
			p.nameWidth = max(p.nameWidth, cells.String(p.name(r)))
		}
	}
	p.nameWidth = min(p.nameWidth, p.width*2/5)
	lines := []string{p.header(s)}
	for _, r := range rows {
		lines = append(lines, p.line(r))
	}
	return lines
}

// fold finds the least folding that fits, and cuts what no folding can make fit.
func (s *Story) fold(height int) []row {
	var rows []row
	for level := whole; level < foldings; level++ {
		if rows = s.rows(level, height); len(rows) <= height {
			return rows
		}
	}
	return cut(s.active(), max(1, height))
}

// rows lists the lines of the graph at a level of folding, or gives up with more than limit.
func (s *Story) rows(level folding, limit int) []row {
	var rows []row
	for _, g := range s.groups {
		if len(rows) > limit {
			break
		}
		switch ended, waiting := g.ended(), g.tally[event.Pending] == len(g.nodes); {
		case len(s.groups) == 1:
			rows = append(rows, g.rows(level)...)
		case level >= foldMany && (ended || waiting):
			rows = mergeImages(rows, g, waiting)
		case level >= foldImages && ended, level >= foldWaiting && waiting:
			rows = append(rows, row{group: g, short: g.tally})
		default:
			rows = append(rows, row{group: g})
			rows = append(rows, g.rows(level)...)
		}
	}
	return rows
}

// ended reports whether all of an image's nodes ended, and well.
func (g *group) ended() bool {
	return g.tally.ended() == len(g.nodes) &&
		g.tally[event.Failed]+g.tally[event.Cancelled]+g.tally[event.Undone] == 0
}

// mergeImages adds an image to the line of its neighbours of the same kind.
func mergeImages(rows []row, g *group, waiting bool) []row {
	if len(rows) > 0 {
		last := &rows[len(rows)-1]
		if last.short != nil && last.group != nil && (last.short[event.Pending] > 0) == waiting {
			last.images++
			addTally(last.short, g.tally)
			return rows
		}
	}
	merged := row{group: g, short: tally{}}
	addTally(merged.short, g.tally)
	return append(rows, merged)
}

func addTally(to, from tally) {
	for state, n := range from {
		to[state] += n
	}
}

func (g *group) rows(level folding) []row {
	var rows []row
	for i := 0; i < len(g.nodes); {
		n := g.nodes[i]
		same := 1
		if level >= foldEnded && n.endedWell() {
			same = runOf(g.nodes[i:], (*node).endedWell)
		} else if level >= foldWaiting && n.state == event.Pending {
			same = runOf(g.nodes[i:], func(n *node) bool { return n.state == event.Pending })
		}
		if same > 1 {
			short := tally{}
			for _, n := range g.nodes[i : i+same] {
				short[n.state]++
			}
			rows = append(rows, row{short: short})
			i += same
			continue
		}
		rows = append(rows, row{node: n})
		if n.state == event.Running && n.lastLine != "" && level < foldLogs {
			rows = append(rows, row{node: n, log: true})
		}
		i++
	}
	return rows
}

func (n *node) endedWell() bool {
	return n.state == event.Done || n.state == event.Cached || n.state == event.Skipped
}

// runOf counts the leading nodes for which ok holds.
func runOf(nodes []*node, ok func(*node) bool) int {
	if i := slices.IndexFunc(nodes, func(n *node) bool { return !ok(n) }); i >= 0 {
		return i
	}
	return len(nodes)
}

// active lists only what failed and what runs.
func (s *Story) active() []row {
	var rows []row
	for _, n := range s.failures {
		rows = append(rows, row{node: n, full: true})
	}
	for _, n := range s.nodes {
		if n.state == event.Running {
			rows = append(rows, row{node: n, full: true})
		}
	}
	return rows
}

func cut(rows []row, height int) []row {
	if len(rows) <= height {
		return rows
	}
	kept := height - 1
	return append(rows[:kept:kept], row{cut: len(rows) - kept})
}

// nodeWidth bounds a node's line, so that on a wide terminal the eye need not travel
// from its name to its time. Lines of output take the whole width.
const nodeWidth = 110

// painter turns rows into lines.
type painter struct {
	look      Look
	now       time.Time
	width     int
	nameWidth int
	single    bool // one image only: steps need no heading
}

func (p painter) header(s *Story) string {
	standing := string(s.state) + " " + Span(s.elapsed)
	if !s.finished {
		standing = clock(max(0, p.now.Sub(s.started)))
	}
	text := p.look.paint(bold, "gild "+s.run) + "  " + standing
	if counts := p.counts(s.tally); counts != "" {
		text += "  " + counts
	}
	return p.fit(text)
}

// counted is the order in which states are counted.
var counted = []event.State{
	event.Failed, event.Running, event.Done, event.Cached, event.Skipped, event.Cancelled, event.Undone, event.Pending,
}

func (p painter) counts(t tally) string {
	var parts []string
	for _, state := range counted {
		if n := t[state]; n > 0 {
			parts = append(parts, p.look.state(state, fmt.Sprintf("%d %s", n, stateWord(state))))
		}
	}
	return strings.Join(parts, ", ")
}

// stateWord names a state for people.
func stateWord(s event.State) string {
	if s == event.Pending {
		return "waiting"
	}
	return string(s)
}

func (p painter) line(r row) string {
	switch {
	case r.cut > 0:
		return p.fit(fmt.Sprintf("  %s and %d more", p.look.more(), r.cut))
	case r.log:
		return p.fit(p.indent() + "  " + p.look.bar() + " " + p.look.paint(dim, fit(r.node.lastLine, p.width-len(p.indent())-5, p.look.more())))
	case r.node != nil:
		return p.node(r)
	case r.images > 0:
		return p.fit(fmt.Sprintf("  %s %d images: %s", p.shortMark(r.short), r.images+1, p.counts(r.short)))
	case r.group != nil && r.short != nil:
		return p.fit(fmt.Sprintf("  %s %s: %s", p.shortMark(r.short), clean(r.group.name), p.counts(r.short)))
	case r.group != nil:
		return p.fit(fmt.Sprintf("  %s  %s", p.look.paint(bold, clean(r.group.name)), p.counts(r.group.tally)))
	default:
		return p.fit(p.indent() + p.shortMark(r.short) + " " + p.counts(r.short))
	}
}

func (p painter) indent() string {
	if p.single {
		return "  "
	}
	return "    "
}

// shortMark is the mark of several nodes: the state most worth knowing.
func (p painter) shortMark(t tally) string {
	for _, state := range []event.State{event.Pending, event.Done, event.Cached, event.Skipped} {
		if t[state] > 0 {
			return p.look.mark(state)
		}
	}
	return " "
}

func (p painter) name(r row) string {
	if _, step := splitID(r.node.ID); !r.full {
		return clean(step)
	}
	return clean(r.node.ID)
}

// node draws mark, name, title and, at the right edge, how it stands.
func (p painter) node(r row) string {
	n := r.node
	indent := p.indent()
	if r.full {
		indent = "  "
	}
	left := indent + p.look.mark(n.state) + " " + pad(fit(p.name(r), p.nameWidth, p.look.more()), p.nameWidth)
	right := p.standing(n)
	room := min(p.width, nodeWidth) - cells.String(left) - cells.String(right) - 4
	middle := ""
	if room >= 8 {
		middle = pad(fit(n.about(), room, p.look.more()), room)
	}
	return p.fit(left + "  " + p.look.paint(aboutColor(n), middle) + "  " + right)
}

// about is what to say of a node: why it ended as it did, or else its title.
func (n *node) about() string {
	if n.failed() && n.failure != nil {
		first, _, _ := strings.Cut(n.failure.Error, "\n")
		return clean(first)
	}
	return cmp.Or(n.reason, n.Title)
}

func aboutColor(n *node) string {
	if n.failed() {
		return red
	}
	return dim
}

// standing tells the state, with the time where there is one.
func (p painter) standing(n *node) string {
	text := stateWord(n.state)
	switch n.state {
	case event.Running:
		text = clock(n.running(p.now))
		if done := n.progress.String(); done != "" {
			text = done + "  " + text
		}
		if n.attempt > 1 {
			text = fmt.Sprintf("try %d  %s", n.attempt, text)
		}
	case event.Done, event.Failed, event.Undone:
		if !n.started.IsZero() {
			text += " " + Span(n.elapsed)
		}
	}
	return p.look.state(n.state, text)
}

func (p painter) fit(s string) string { return fit(s, p.width, p.look.more()) }
