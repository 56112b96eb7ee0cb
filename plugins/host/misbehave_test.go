package host

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/store"
)

// runningStep starts a step and returns when it logs that it runs. The function that it returns
// waits for its end.
func runningStep(t *testing.T, ctx context.Context, s step.Step, config json.RawMessage, says string) (wait func() error) {
	t.Helper()
	ended := make(chan error, 1)
	target, logged := newTarget()
	go func() {
		_, err := s.Run(ctx, target, config)
		ended <- err
	}()
	eventually(t, "the step says "+says, func() bool { return strings.Contains(logged.String(), says) })
	return func() error { return <-ended }
}

// current is the process that takes further calls.
func current(h *Host, c store.Content) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.slots[c.Digest].current; p != nil && !p.prog.over() {
		return p
	}
	return nil
}

// What a step does wrong fails it and no other: neither one of the same plugin nor one of
// another, even if the process must be replaced. What ends the process ends its steps.
func TestMisbehaviour(t *testing.T) {
	t.Parallel()
	brief := func(cfg *Config) { cfg.Grace = time.Second }
	cases := []struct {
		name     string
		config   json.RawMessage
		change   func(*Config)
		manifest string
		ends     bool // the process, and with it the plugin's other step
		keeps    bool // the process serves further calls
		want     []string
	}{
		{"crash", do("crash", 3), nil, "", true, false, []string{"its process exited with status 3; last lines of its output:", "\n  [31mout of cheese\n  redo from start"}},
		{"exit with status 0", do("crash", 0), nil, "", true, false, []string{"its process exited with status 0; last lines of its output:", "redo from start"}},
		{"signal", do("abort"), nil, "", true, false, []string{"its process exited with status 2", "SIGABRT: abort"}},
		{"memory", do("memory", 1<<30), nil, "limits: {memory: 200MiB}", true, false, []string{"its process was killed: it used ", " MiB of memory, and may use 200.0 MiB; `limits: {memory: ...}` in its plugin.yaml sets how much"}},
		{"shared memory", do("shared-memory", 300<<20), nil, "limits: {memory: 200MiB}", true, false, []string{"its process was killed: it used ", " MiB of memory, and may use 200.0 MiB"}},
		{"memory of a process that has left", do("away", 300<<20), nil, "limits: {memory: 200MiB}", true, false, []string{"its process was killed: it used ", " MiB of memory, and may use 200.0 MiB"}},
		{"100 MB of outputs", do("huge", 100_000_000), nil, "", false, false, []string{"it sent a message of 95.4 MiB, of at most 4.0 MiB"}},
		{"too much output", do("huge", 512<<10), nil, "", false, true, []string{"it returned outputs of 512.0 KiB, of at most 512.0 KiB"}},
		{"100 MB of log", do("flood", 100_000_000), nil, "", false, true, []string{"its log has more than 64.0 MiB"}},
		{"100 MB of log and no end", do("flood-wait", 100_000_000), brief, "", false, false, []string{"its log has more than 64.0 MiB", "it went on for 1s after it was asked to stop"}},
		{"no result", do("no-result"), nil, "", false, false, []string{"it ended the call without a result"}},
		{"more than a result", do("more"), nil, "", false, false, []string{"it sent more after its result"}},
		{"a call that doesn't end", do("unended"), brief, "", false, false, []string{"it sent a result and didn't end the call"}},
		{"no JSON", do("raw", "{"), nil, "", false, true, []string{"it returned outputs that are no JSON object"}},
		{"no object", do("raw", "[]"), nil, "", false, true, []string{"it returned outputs that are no JSON object"}},
		{"missing output", do("raw", "{}"), nil, "", false, true, []string{`it returned no output "text", which it declares`}},
		{"unknown output", do("raw", `{"text":"","more":1}`), nil, "", false, true, []string{`it returned the output "more", which it doesn't declare`}},
		{"wrong type", do("raw", `{"text":1}`), nil, "", false, true, []string{`it returned the output "text", which isn't a string as it declares`}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, c.change)
			s, content := started(t, h, plugin{manifest: c.manifest})
			other, _ := started(t, h, plugin{salt: "other"})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			beside := runningStep(t, ctx, s, do("wait"), "waiting")
			elsewhere := runningStep(t, ctx, other, do("wait"), "waiting")
			target, _ := newTarget()
			_, err := s.Run(context.Background(), target, c.config)
			wantError(t, err, append(c.want, "plugin acme/test 1.2.3: run acme/test: ")...)

			if c.ends {
				wantError(t, beside(), c.want...)
			}
			process := current(h, content)
			if kept := process != nil; kept != c.keeps {
				t.Errorf("the process takes further calls: %v, want %v", kept, c.keeps)
			}
			if _, err := s.Run(context.Background(), target, do("echo")); err != nil {
				t.Errorf("the plugin's next step: %v", err)
			}
			cancel()
			if !c.ends {
				wantError(t, beside(), "stopped as asked")
			}
			wantError(t, elsewhere(), "stopped as asked")
		})
	}
}

// Output that nobody asked for doesn't hold the plugin up, and isn't all kept.
func TestFloodOfStandardError(t *testing.T) {
	t.Parallel()
	shown := &buffer{}
	h := newHost(t, func(cfg *Config) { cfg.Log = shown })
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("flood-stderr", 100_000_000)); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	const last = "acme/test 1.2.3: it has written 16 MiB; its further output is not shown\n"
	if text := shown.String(); !strings.HasSuffix(text, last) || len(text) > 20<<20 {
		t.Errorf("%d bytes are shown, the last of them %q; want %q", len(text), text[max(0, len(text)-100):], last)
	}
}

// What a Go plugin prints while it serves goes through go-plugin.
func TestPrint(t *testing.T) {
	t.Parallel()
	shown := &buffer{}
	h := newHost(t, func(cfg *Config) { cfg.Log = shown })
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	if _, err := s.Run(context.Background(), target, do("print", "printed")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both streams are shown", func() bool { return strings.Count(shown.String(), ": printed\n") == 2 })
}

// What a process writes by itself comes to the log of the step that runs, if it is alone.
func TestPrintInLog(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	target, logged := newTarget()
	if _, err := s.Run(context.Background(), target, do("crash", 3)); err == nil {
		t.Fatal("a crash is no error")
	}
	if text := logged.String(); !strings.Contains(text, "out of cheese\nredo from start\n") {
		t.Errorf("the log is %q", text)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	why := errors.New("the user has had enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	wait := runningStep(t, ctx, s, do("wait"), "waiting")
	cancel(why)
	err := wait()
	if wantError(t, err, "plugin acme/test 1.2.3: run acme/test: stopped as asked"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v is not cancelled", err)
	}
	if current(h, c) == nil {
		t.Error("the process was replaced, although its step stopped as asked")
	}
}

// A step that doesn't stop is cut off. Its process takes no more calls, is kept for the
// calls it has, and is ended after them.
func TestIgnoresCancel(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *Config) { cfg.Grace = 500 * time.Millisecond })
	s, c := started(t, h, plugin{})
	otherCtx, stopOther := context.WithCancel(context.Background())
	other := runningStep(t, otherCtx, s, do("wait"), "waiting")
	why := errors.New("the user has had enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	wait := runningStep(t, ctx, s, do("ignore"), "ignoring")
	process := current(h, c)
	cancel(why)
	err := wait()
	if wantError(t, err, "it went on for 500ms after it was asked to stop; it was cut off"); !errors.Is(err, why) {
		t.Errorf("%v doesn't wrap the cause", err)
	}
	target, _ := newTarget()
	out, err := s.Run(context.Background(), target, do("pid"))
	if err != nil || out["text"] == process.prog.ID() {
		t.Errorf("the next step ran in process %v, %v; want one other than %s", out["text"], err, process.prog.ID())
	}
	if process.prog.over() {
		t.Error("the process has ended, although it has another call")
	}
	stopOther()
	wantError(t, other(), "stopped as asked")
	<-process.done
}

// A process that does nothing any more can be neither asked nor told to end.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *Config) { cfg.Grace, cfg.CallTimeout = 500*time.Millisecond, 500*time.Millisecond })
	s, c := started(t, h, plugin{})
	ctx, cancel := context.WithCancel(context.Background())
	wait := runningStep(t, ctx, s, do("wait"), "waiting")
	process := current(h, c)
	if err := unix.Kill(process.prog.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process is stopped", func() bool { return state(process.prog.pid) == "T" })
	_, err := s.Validate(context.Background(), do(""))
	wantError(t, err, "plugin acme/test 1.2.3: validate acme/test: it gave no answer within 500ms")
	cancel()
	wantError(t, wait(), "it went on for 500ms")
	<-process.done
}

func TestHangInValidate(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *Config) { cfg.CallTimeout = time.Second })
	s, c := started(t, h, plugin{})
	_, err := s.Validate(context.Background(), do("hang"))
	wantError(t, err, "it gave no answer within 1s")
	if current(h, c) != nil {
		t.Error("the process still takes calls")
	}
	if _, err := s.Validate(context.Background(), do("")); err != nil {
		t.Error(err)
	}
}

func TestCrashInValidate(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	_, err := s.Validate(context.Background(), do("crash"))
	wantError(t, err, "plugin acme/test 1.2.3: validate acme/test: its process exited with status 2", "\n  ")
}

// go-plugin gives a process 2 s to end, and no more; a cleanup isn't done at its end but by
// a call of its own.
func TestSlowCleanup(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	_, c := started(t, h, plugin{})
	mark := filepath.Join(t.TempDir(), "removed")
	if err := h.Cleanup(context.Background(), c, step.Resource{Kind: "lease", ID: "3s", Note: mark}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Error(err)
	}
	err := h.Cleanup(context.Background(), c, step.Resource{Kind: "lease", ID: "soon"})
	wantError(t, err, "plugin acme/test 1.2.3: cleanup: ", `invalid duration "soon"`)
}

// A plugin reads nothing of what is meant for gild.
func TestStandardInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	was := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = was }()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	if _, err := w.WriteString("for gild"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	target, _ := newTarget()
	out, err := s.Run(context.Background(), target, do("stdin"))
	if err != nil || out["text"] != "" {
		t.Errorf("the plugin read %q, %v", out["text"], err)
	}
	if text, err := io.ReadAll(r); err != nil || string(text) != "for gild" {
		t.Errorf("gild read %q, %v", text, err)
	}
	link, err := os.Readlink(filepath.Join("/proc", current(h, c).prog.ID(), "fd", "0"))
	if err != nil || link != os.DevNull {
		t.Errorf("its standard input is %s, %v", link, err)
	}
}

// What a plugin starts ends with it, although it has left the process group and holds the
// plugin's pipes open.
func TestChildrenEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	target, _ := newTarget()
	out, err := s.Run(context.Background(), target, do("child"))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(out["text"].(string))
	if err != nil || !alive(child) {
		t.Fatalf("there is no child %v, %v", out["text"], err)
	}
	process := current(h, c)
	_, err = s.Run(context.Background(), target, do("crash", 3))
	wantError(t, err, "its process exited with status 3")
	<-process.done
	eventually(t, "the child has ended", func() bool { return !alive(child) })
}

// alive tells a process from none, and from one that has ended and was not waited for.
func alive(pid int) bool { s := state(pid); return s != "" && s != "Z" }

// state is the letter that the kernel has for what a process does; empty for none.
func state(pid int) string {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	return rest[:1]
}

// Close ends steps that run.
func TestCloseWhileRunning(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	waiting := runningStep(t, context.Background(), s, do("wait"), "waiting")
	ignoring := runningStep(t, context.Background(), s, do("ignore"), "ignoring")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	wantError(t, waiting(), "gild is ending")
	wantError(t, ignoring(), "gild is ending")
}

// A log that can't be written ends the step, and the plugin isn't at fault. The step is over
// when its error is there: then what it claimed is removed.
func TestLogCantBeWritten(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, c := started(t, h, plugin{})
	target, _ := newTarget()
	target.Log = full{}
	mark := filepath.Join(t.TempDir(), "stopped")
	_, err := s.Run(context.Background(), target, do("finish", mark))
	if !errors.Is(err, errFull) {
		t.Errorf("%v, want %v", err, errFull)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the step was still working: %v", err)
	}
	if current(h, c) == nil {
		t.Error("the process was replaced, although its step stopped as asked")
	}
}

// A step that goes on although its log can't be written has its process ended.
func TestLogCantBeWrittenAndStepGoesOn(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(cfg *Config) { cfg.Grace = 500 * time.Millisecond })
	s, c := started(t, h, plugin{})
	process := current(h, c)
	target, _ := newTarget()
	target.Log = full{}
	_, err := s.Run(context.Background(), target, do("ignore"))
	if wantError(t, err, "it went on for 500ms after it was asked to stop"); !errors.Is(err, errFull) {
		t.Errorf("%v, want %v", err, errFull)
	}
	if current(h, c) != nil {
		t.Error("the process takes further calls")
	}
	<-process.done
}

func TestProgressIsBounded(t *testing.T) {
	t.Parallel()
	h := newHost(t, nil)
	s, _ := started(t, h, plugin{})
	target, _ := newTarget()
	var progress []any
	target.Progress = func(done, total int64, unit string) { progress = append(progress, done, total, unit) }
	target.Env, target.SecretEnv = map[string]string{"TOKEN": "SECRETVALUE"}, []string{"TOKEN"}
	if _, err := s.Run(context.Background(), target, do("progress", "\x1b[2J\u202e"+long(50)+"SECRETVALUE"+long(1000))); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{int64(0), int64(0), "[2J" + long(50) + "***"}, progress); diff != "" {
		t.Errorf("the progress (-want +got):\n%s", diff)
	}
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }
