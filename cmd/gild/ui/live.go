package ui

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gildhq/gild/engine/event"
)

const (
	// frameEvery is how often the live view may be drawn.
	frameEvery = 100 * time.Millisecond
	// planningAfter is how long planning may take before it is shown.
	planningAfter = time.Second
	// lastFrameRows bounds the frame that stays on the screen after the run.
	lastFrameRows = 20

	beginFrame = "\x1b[?2026h" // the terminal shows what follows in one piece, if it can
	endFrame   = "\x1b[?2026l"
	clearRight = "\x1b[K"
	clearBelow = "\x1b[J"
)

// Live draws the graph on a terminal and keeps it up to date. It is an [event.Sink],
// safe for concurrent use. It only moves the cursor over lines that it wrote itself and
// leaves it below them after every frame, so the terminal is in order at any moment.
type Live struct {
	out  io.Writer
	size func() (width, height int)
	look Look
	now  func() time.Time
	made time.Time

	mu    sync.Mutex
	story Story
	above []string // lines to leave above the graph for good
	shown []string // the frame on the screen
	width int      // what it was drawn for
	err   error

	stop chan struct{}
	done chan struct{}
}

// NewLive starts a live view on out. size tells the terminal's columns and rows at any
// time, so that a resized window is noticed. The caller must call Close.
func NewLive(out io.Writer, size func() (width, height int), look Look, now func() time.Time) *Live {
	l := &Live{out: out, size: size, look: look, now: now, made: now(), stop: make(chan struct{}), done: make(chan struct{})}
	go l.tick()
	return l
}

func (l *Live) tick() {
	defer close(l.done)
	ticker := time.NewTicker(frameEvery)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

// Emit takes an event into the view.
func (l *Live) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.story.Emit(e)
	if e.Kind == event.Notice {
		l.above = append(l.above, clean(e.Text))
	}
	if e.Kind == event.NodeUndone && e.Failure != nil {
		l.above = append(l.above, couldNotRemove(l.story.stuck[len(l.story.stuck)-1]))
	}
}

// Say leaves a sentence above the graph.
func (l *Live) Say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.above = append(l.above, clean(text))
	l.draw()
}

// Run is the run's id; empty before it has begun.
func (l *Live) Run() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.story.Run()
}

// Running lists the ids of the steps that are running.
func (l *Live) Running() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.story.Running()
}

// Close stops drawing. After a finished run it leaves a summary with what went wrong;
// before that, the last frame as it is. It returns the first error of writing.
func (l *Live) Close() error {
	l.mu.Lock()
	if !l.closing() {
		close(l.stop)
	}
	l.mu.Unlock()
	<-l.done

	l.mu.Lock()
	defer l.mu.Unlock()
	l.draw()
	return l.err
}

// draw replaces the frame on the screen, in one write, if anything changed.
func (l *Live) draw() {
	width, height := l.size()
	// The last column stays free: writing into it makes some terminals wrap.
	lines := l.lines(max(20, width-1), max(3, height-1))
	if len(l.above) == 0 && width == l.width && slices.Equal(lines, l.shown) {
		return
	}
	var buf bytes.Buffer
	buf.WriteString(beginFrame)
	if up := rowsTaken(l.shown, width); up > 0 {
		fmt.Fprintf(&buf, "\x1b[%dA\r", up)
	}
	var above []string
	for _, text := range l.above {
		above = append(above, strings.Split(wrap(strings.Fields(text), width-1, ""), "\n")...)
	}
	for _, line := range slices.Concat(above, lines) {
		buf.WriteString(line + clearRight + "\r\n")
	}
	buf.WriteString(clearBelow + endFrame)
	l.above, l.shown, l.width = nil, lines, width
	if _, err := l.out.Write(buf.Bytes()); err != nil && l.err == nil {
		l.err = fmt.Errorf("draw the live view: %w", err)
	}
}

func (l *Live) lines(width, height int) []string {
	if len(l.story.nodes) == 0 {
		return l.planning()
	}
	if l.story.finished {
		return l.story.lastFrame(l.now(), width, min(height, lastFrameRows), l.look)
	}
	return l.story.frame(l.now(), width, height, l.look)
}

// planning is shown before the graph is known, when that takes a while.
func (l *Live) planning() []string {
	waited := l.now().Sub(l.made)
	if l.closing() || waited < planningAfter {
		return nil
	}
	return []string{l.look.paint(bold, "gild") + "  planning " + clock(waited)}
}

// closing reports whether Close was called.
func (l *Live) closing() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// rowsTaken is how many rows of the screen lines take up at a width: a terminal that
// became narrower has wrapped those that don't fit any more.
func rowsTaken(lines []string, width int) int {
	rows := 0
	for _, line := range lines {
		rows += max(1, (cells.String(line)+width-1)/max(1, width))
	}
	return rows
}

// lastFrame is what stays on the screen: the count, and the steps that were stopped while
// they ran, with their last line of output. The rest is in the failure report and the end table.
func (s *Story) lastFrame(now time.Time, width, height int, look Look) []string {
	var rows []row
	for _, n := range s.nodes {
		if n.halted() {
			rows = append(rows, row{node: n, full: true})
			if n.lastLine != "" {
				rows = append(rows, row{node: n, log: true})
			}
		}
	}
	p := painter{look: look, now: now, width: width, single: true}
	return p.frame(s, cut(rows, height-1))
}
