package ui

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/term"

	"github.com/gildhq/gild/engine/event"
)

// TestMain lets the test binary be the program that draws in a terminal under test:
// GILD_UI_REPLAY names a stream, GILD_UI_SECONDS how much of it to tell.
func TestMain(m *testing.M) {
	if stream := os.Getenv("GILD_UI_REPLAY"); stream != "" {
		if err := replay(stream, os.Getenv("GILD_UI_SECONDS")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// replay draws a recorded stream with its clock stopped at the end of what is told, so
// that the last picture is always the same. It waits for a line on stdin, then closes.
func replay(stream, seconds string) error {
	f, err := os.Open(filepath.Join("testdata", stream+".jsonl"))
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	var events []event.Event
	if err := readEvents(f, func(e event.Event) { events = append(events, e) }); err != nil {
		return err
	}
	now := events[0].Time.Add(time.Duration(n) * time.Second)
	size := func() (int, int) {
		w, h, err := term.GetSize(2)
		if err != nil {
			return 80, 24
		}
		return w, h
	}
	live := NewLive(os.Stderr, size, LookOf(true, false, os.Getenv), func() time.Time { return now })
	for _, e := range events {
		if !e.Time.After(now) {
			live.Emit(e)
			time.Sleep(15 * time.Millisecond)
		}
	}
	var line string
	if _, err := fmt.Scanln(&line); err != nil {
		return err
	}
	err = live.Close()
	fmt.Println("END")
	return err
}

// terminal is a tmux session of its own.
type terminal struct {
	t    *testing.T
	args []string
}

// inTerminal starts a replay in a real terminal of the given size.
func inTerminal(t *testing.T, width, height int, stream string, seconds int, env ...string) terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Fatalf("this test draws in a real terminal and needs tmux, of the package tmux: %v", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gild-ui") // short: a socket's path is limited to about 100 bytes
	if err != nil {
		t.Fatal(err)
	}
	term := terminal{t, []string{"-u", "-S", filepath.Join(dir, "s"), "-f", "/dev/null"}}
	t.Cleanup(func() {
		term.tmux("kill-server")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	command := []string{"new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height), "env", "-u", "NO_COLOR",
		"LC_ALL=C.UTF-8", "GILD_UI_REPLAY=" + stream, "GILD_UI_SECONDS=" + strconv.Itoa(seconds)}
	command = append(command, env...)
	// The session outlives the program, so that what stays on the screen can be looked at.
	term.tmux(append(command, "sh", "-c", `echo BEGIN; "$0"; sleep 60`, self)...)
	return term
}

func (term terminal) tmux(args ...string) string {
	term.t.Helper()
	cmd := exec.Command("tmux", append(term.args[:len(term.args):len(term.args)], args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TMUX=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// want waits until everything on the screen, and above it, is what is wanted.
func (term terminal) want(want string) {
	term.t.Helper()
	term.waitFor(want, func() string {
		return strings.TrimRight(term.tmux("capture-pane", "-p", "-S", "-"), "\n")
	})
}

// wantScreen is want without what is above the screen.
func (term terminal) wantScreen(want string) {
	term.t.Helper()
	term.waitFor(want, func() string {
		return strings.TrimPrefix(strings.TrimRight(term.tmux("capture-pane", "-p"), "\n"), "BEGIN\n")
	})
}

func (term terminal) waitFor(want string, get func() string) {
	term.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		got := get()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("screen (-want +got):\n%s", cmp.Diff(want, got))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// drawn is what should be on the screen: the frame, with nothing before it but BEGIN.
func drawn(t *testing.T, stream string, seconds, width, height int) string {
	t.Helper()
	events := recorded(t, stream)
	now := events[0].Time.Add(time.Duration(seconds) * time.Second)
	s := &Story{}
	for _, e := range events {
		if !e.Time.After(now) {
			s.Emit(e)
		}
	}
	lines := append([]string{"BEGIN"}, s.frame(now, width-1, height-1, Look{Unicode: true})...)
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

func TestLiveInTerminal(t *testing.T) {
	t.Parallel()
	for _, size := range []struct{ width, height int }{{80, 24}, {80, 12}, {200, 50}} {
		for stream, seconds := range map[string]int{"success": 74, "fleet": 21} {
			t.Run(fmt.Sprintf("%s-%dx%d", stream, size.width, size.height), func(t *testing.T) {
				t.Parallel()
				term := inTerminal(t, size.width, size.height, stream, seconds)
				term.want(drawn(t, stream, seconds, size.width, size.height))
			})
		}
	}
}

// A narrower window makes tmux wrap what is on the screen and push the top of it out of
// sight, where it can't be taken back; the screen itself must be in order.
func TestLiveResized(t *testing.T) {
	t.Parallel()
	term := inTerminal(t, 120, 40, "success", 74)
	for _, size := range []struct{ width, height int }{{120, 40}, {80, 40}, {200, 40}, {60, 40}, {80, 30}} {
		term.tmux("resize-window", "-x", strconv.Itoa(size.width), "-y", strconv.Itoa(size.height))
		term.wantScreen(strings.TrimPrefix(drawn(t, "success", 74, size.width, size.height), "BEGIN\n"))
	}
}

func TestLiveKeepsWhatWasSaid(t *testing.T) {
	t.Parallel()
	term := inTerminal(t, 80, 24, "interrupted", 60)
	s := tell(recorded(t, "interrupted"))
	want := append([]string{
		"BEGIN",
		"interrupted: stopping web/web-server",
		"could not remove process 4711: kill 4711: operation not permitted",
	}, s.lastFrame(time.Time{}, 79, 20, Look{Unicode: true})...)
	term.want(strings.Join(want, "\n"))
	term.tmux("send-keys", "x", "Enter")
	// The terminal itself shows what was typed, below the frame.
	term.want(strings.Join(append(want, "x", "END"), "\n"))
}

func TestLiveColors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, env string
		colors    bool
	}{{"default", "GILD_UI=", true}, {"no color", "NO_COLOR=1", false}, {"dumb", "TERM=dumb", false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			term := inTerminal(t, 80, 24, "success", 74, c.env)
			term.want(drawn(t, "success", 74, 80, 24))
			if got := strings.Contains(term.tmux("capture-pane", "-p", "-e"), "\x1b["); got != c.colors {
				t.Errorf("colours: got %t, want %t", got, c.colors)
			}
		})
	}
}

// screenless is a size that never changes.
func screenless() (int, int) { return 80, 24 }

func TestLiveDrawsOnlyChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		live := NewLive(&out, screenless, Look{}, time.Now)
		live.Emit(event.Event{Kind: event.RunStarted, Run: "r", Time: time.Now(), Graph: []event.Node{{ID: "web/base"}}})
		time.Sleep(10*time.Second + frameEvery/2)
		if err := live.Close(); err != nil {
			t.Fatal(err)
		}
		// One frame per second of the clock in the heading, and no more.
		if got := strings.Count(out.String(), beginFrame); got != 11 {
			t.Errorf("frames in ten quiet seconds: got %d, want 11", got)
		}
		if got := out.String(); !strings.HasSuffix(got, endFrame) {
			t.Errorf("output ends in %q, want a whole frame", got[len(got)-20:])
		}
	})
}

// broken is a writer that can't be written to.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("pipe closed") }

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	start := event.Event{Kind: event.RunStarted, Run: "r", Graph: []event.Node{{ID: "web/base"}}}
	live := NewLive(broken{}, screenless, Look{}, time.Now)
	plain := NewPlain(broken{}, time.Now)
	for want, view := range map[string]interface {
		event.Sink
		Close() error
	}{
		"draw the live view: pipe closed": live,
		"write the log: pipe closed":      plain,
	} {
		view.Emit(start)
		if err := view.Close(); err == nil || err.Error() != want {
			t.Errorf("close: got %v, want %s", err, want)
		}
	}
}
