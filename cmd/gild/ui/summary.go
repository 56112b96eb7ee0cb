package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gildhq/gild/engine/event"
)

// listedSteps bounds the table of times: of more steps, only the slowest are listed.
const listedSteps = 40

// Image is what the end table tells of an image.
type Image struct {
	// Name is the image's full name, such as "web-1.4.0-amd64".
	Name, Release string
	// Build is 0 for an image that wasn't published.
	Build int
	// Channels that point to it.
	Channels []string
	Files    []File
	Copies   []Copy
}

// File is one file of an image.
type File struct {
	Format, Path, SHA256 string
	// Size in bytes, and what it takes on disk.
	Size, Allocated int64
}

// Copy is a copy of an image in a region.
type Copy struct{ Region, Location string }

// Outcome is what a run gave, beside what its events tell.
type Outcome struct {
	Images []Image
	// Retired tells, one line each, which older builds were removed and why.
	Retired []string
	// Locks are the lock files that were written.
	Locks []string
}

// Summary writes the end table: every image, what was retired, and the time of every
// step that ran.
func (s *Story) Summary(w io.Writer, look Look, width int, o Outcome) error {
	t := &report{look: look, width: max(20, width)}
	for _, image := range o.Images {
		t.image(image)
		t.WriteByte('\n')
	}
	t.list("retired", o.Retired)
	t.list("locked", o.Locks)
	if len(o.Retired)+len(o.Locks) > 0 {
		t.WriteByte('\n')
	}
	t.times(s)
	_, err := io.WriteString(w, t.String())
	return err
}

func (r *report) image(image Image) {
	r.row("image", r.look.paint(bold, clean(image.Name)))
	r.row("release", clean(image.Release))
	if image.Build > 0 {
		r.row("build", fmt.Sprint(image.Build))
	}
	r.row("channel", clean(strings.Join(image.Channels, ", ")))
	for _, f := range image.Files {
		r.row(f.Format, clean(f.Path))
		r.row("  sha-256", f.SHA256)
		r.row("  size", fmt.Sprintf("%s, %s on disk", Size(f.Size), Size(f.Allocated)))
	}
	copies := make([]string, len(image.Copies))
	for i, c := range image.Copies {
		copies[i] = c.Region + ": " + c.Location
	}
	r.list("copies", copies)
}

// list writes lines under one name.
func (r *report) list(name string, lines []string) {
	for _, line := range lines {
		r.add(name, clean(line))
		name = ""
	}
}

// row writes a name and its value, unless that is empty.
func (r *report) row(name, value string) {
	if value != "" {
		r.add(name, value)
	}
}

func (r *report) add(name, value string) {
	r.WriteString(r.look.paint(dim, pad(name, 10)) + " " + value + "\n")
}

func (r *report) times(s *Story) {
	if s.state == event.Done && s.tally[event.Done] == 0 {
		r.WriteString("nothing to do: everything is built\n")
	}
	ran := slices.DeleteFunc(slices.Clone(s.nodes), func(n *node) bool { return n.started.IsZero() || n.state == event.Cached })
	left := 0
	if len(ran) > listedSteps {
		left = len(ran) - listedSteps
		ran = slowest(ran, listedSteps)
	}
	nameWidth := len("total")
	for _, n := range ran {
		nameWidth = max(nameWidth, cells.String(clean(n.ID)))
	}
	nameWidth = min(nameWidth, r.width-22)
	for _, n := range ran {
		r.WriteString(r.timeLine(clean(n.ID), Span(n.elapsed), r.look.state(n.state, stateWord(n.state)), nameWidth))
	}
	if left > 0 {
		fmt.Fprintf(r, "and %d faster ones\n", left)
	}
	counts := painter{look: r.look}.counts(s.tally)
	r.WriteString(r.timeLine("total", Span(s.elapsed), counts, nameWidth))
}

func (r *report) timeLine(name, took, state string, nameWidth int) string {
	line := pad(fit(name, nameWidth, r.look.more()), nameWidth) + "  " + fmt.Sprintf("%7s", took) + "  " + state
	return strings.TrimRight(fit(line, r.width, r.look.more()), " ") + "\n"
}

// slowest keeps the n nodes that took longest, in their order.
func slowest(nodes []*node, n int) []*node {
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(a, b *node) int { return int(b.elapsed - a.elapsed) })
	keep := map[*node]bool{}
	for _, node := range sorted[:n] {
		keep[node] = true
	}
	return slices.DeleteFunc(nodes, func(node *node) bool { return !keep[node] })
}
