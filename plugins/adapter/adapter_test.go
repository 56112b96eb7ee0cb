package adapter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/adapter"
	"github.com/gildhq/gild/plugins/manifest"
	"github.com/gildhq/gild/steps/steptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const plugin = `gild-plugin: 1
name: acme/motd
version: 1.0.0
kind: exec
command: [./motd, fixed]
environment: [SEEN, MISSING]
steps:
  - name: acme/motd
    summary: writes the message of the day
    doc: Long.
    sections: [customize]
    cacheable: true
    validates: true
    keyed: true
    schema: {type: object}
    outputs: {path: string, size: integer, list: list}
  - name: acme/motd/check
    summary: looks at it
    sections: [tests]
    schema: {type: object}
  - name: acme/motd/push
    summary: takes it away
    sections: [publish]
    schema: {type: object}
`

// targets stands for a broker where no program calls it.
type targets struct {
	mu   sync.Mutex
	open int
}

func (t *targets) Address() string { return "/the/socket" }

func (t *targets) Open(*step.Target) (string, func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return "the-token", func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open--
	}
}

// fixture is an adapter for a plugin whose program is a shell script.
type fixture struct {
	*adapter.Adapter
	dir, temp string
	log       *steptest.Log
	targets   *targets
}

func newFixture(t *testing.T, script string) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir(), temp: t.TempDir(), log: &steptest.Log{}, targets: &targets{}}
	writeScript(t, filepath.Join(f.dir, "motd"), "#!/bin/sh\n"+script)
	m, err := manifest.Parse("plugin.yaml", []byte(plugin))
	if err != nil {
		t.Fatal(err)
	}
	f.Adapter, err = adapter.New(f.dir, m, adapter.Config{
		Gild: "/usr/bin/gild", Targets: f.targets, Temp: f.temp, Log: f.log, Grace: 300 * time.Millisecond,
		Environ: []string{"SEEN=yes", "UNSEEN=secret", "GILD_PLUGIN_RUN=r1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		if left, err := os.ReadDir(f.temp); err != nil || len(left) > 0 {
			t.Errorf("left in the folder for temporary files: %v %v", left, err)
		}
		if f.targets.open != 0 {
			t.Errorf("%d targets are still open", f.targets.open)
		}
	})
	return f
}

// writeScript makes an executable while no other goroutine starts a process: that would
// hold the file open for writing, and so keep it from being executed.
func writeScript(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) step(t *testing.T) step.Step {
	t.Helper()
	return f.Steps()[0]
}

func TestSteps(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "")
	type seen struct {
		Name, Summary, Doc           string
		Effect                       step.Effect
		Cacheable                    bool
		Run, Validate, Key, Cleaning bool
	}
	var got []seen
	for _, s := range f.Steps() {
		got = append(got, seen{s.Name, s.Summary, s.Doc, s.Effect, s.Cacheable, s.Run != nil, s.Validate != nil, s.KeyParts != nil, s.Cleanup != nil})
	}
	want := []seen{
		{"acme/motd", "writes the message of the day", "Long.", step.Machine, true, true, true, true, true},
		{"acme/motd/check", "looks at it", "", step.Image, false, true, false, false, false},
		{"acme/motd/push", "takes it away", "", step.None, false, true, false, false, false},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestNewWantsExec(t *testing.T) {
	t.Parallel()
	_, err := adapter.New("x", manifest.Single("x"), adapter.Config{})
	steptest.WantError(t, err, "the plugin in x is not of kind exec")
}

// TestRequest has the program give back what it was given.
func TestRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `cat >&2; echo >&2; echo "$0 $*" >&2; pwd >&2; env | sort | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= >&2; ls -A "$TMPDIR" >&2`)
	target := steptest.NewTarget(nil)
	target.Machine = &steptest.Guest{Started: steptest.Clock}
	target.Attempt, target.Token = 2, "tok"
	target.Env["SECRET"], target.Env["GILD_TARGET"], target.Env["GILD_PLUGIN_RUN"] = "hush", "forged", "forged"
	target.Inputs["./b"], target.Inputs["./a"] = steptest.Folder("b"), steptest.Folder("a")
	target.Image = &step.ImageInfo{Key: "k", ID: "ami-1", Region: "north", Size: 5, Files: []step.ImageFile{{Format: "raw", Path: "/i", Size: 4, Allocated: 3, SHA256: "ab"}}}
	if _, err := target.Run(t.Context(), f.step(t), `{"text":"hi"}`); err != nil {
		t.Fatal(err)
	}
	request, rest, _ := strings.Cut(target.Log.String(), "\n")
	const want = `{"gild":1,"step":"acme/motd","config":{"text":"hi"},"inputs":["./a","./b"],"clock":"2026-09-21T14:13:20Z",` +
		`"pipeline":{"name":"web","release":"1.4.0","arch":"amd64"},` +
		`"image":{"key":"k","id":"ami-1","region":"north","size":5,"files":[{"format":"raw","path":"/i","size":4,"allocated":3,"sha256":"ab"}]},` +
		`"machine":{"guest":true,"powered_on":"2026-09-21T14:13:20Z"},"attempt":2,"token":"tok"}`
	if d := cmp.Diff(want, request); d != "" {
		t.Errorf("request (-want +got)\n%s", d)
	}
	rest = strings.NewReplacer(f.dir, "DIR", f.temp, "TEMP").Replace(rest)
	var seen strings.Builder
	for line := range strings.Lines(rest) {
		line, _, _ = strings.Cut(line, "/call-")
		if name, _, ok := strings.Cut(line, "="); ok && name == "GILD_PLUGIN_CALL" {
			line = name
		}
		seen.WriteString(strings.TrimSpace(line) + "\n")
	}
	const wantRest = `DIR/motd fixed run
DIR
GILD=/usr/bin/gild
GILD_PLUGIN_CALL
GILD_PLUGIN_DIR=DIR
GILD_PLUGIN_RUN=r1
GILD_TARGET=/the/socket
GILD_TARGET_TOKEN=the-token
HOME=TEMP
LANG=C.UTF-8
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
SECRET=hush
SEEN=yes
TMPDIR=TEMP
`
	if d := cmp.Diff(wantRest, seen.String()); d != "" {
		t.Errorf("the rest (-want +got)\n%s", d)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `
echo '{"log": "one"}'
echo '{"progress": {"done": 1, "total": 2, "unit": "files"}}'
echo '{"output": {"path": "/a", "size": 3}}'
echo '{"output": {"path": "/b", "list": ["x"]}}'
printf '{"result": {"outcome": "ok"}}'
`)
	target := steptest.NewTarget(nil)
	var progress string
	target.Progress = func(done, total int64, unit string) { progress = fmt.Sprint(done, total, unit) }
	got, err := target.Run(t.Context(), f.step(t), `{}`)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(step.Outputs{"path": "/b", "size": 3.0, "list": []any{"x"}}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if target.Log.String() != "one\n" || progress != "1 2files" {
		t.Errorf("log %q, progress %q", target.Log, progress)
	}
}

// TestFailures has each way in which a program fails and what the step then says.
func TestFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ script, want string }{
		"exit status":          {"exit 3", "motd: exit status 3"},
		"last words":           {"echo first >&2; printf 'no such\\033[31m thing\\n\\n' >&2; exit 3", "motd: exit status 3: no such [31m thing"},
		"killed by a signal":   {"kill -9 $$", "motd: exit status 137"},
		"status against ok":    {`echo '{"result": {"outcome": "ok"}}'; exit 4`, "motd: exit status 4"},
		"failed":               {`echo '{"result": {"outcome": "failed", "message": "no luck"}}'`, "no luck"},
		"failed and status":    {`echo '{"result": {"outcome": "failed", "message": "no luck"}}'; exit 1`, "no luck"},
		"garbage":              {"echo hello; sleep 100", `motd: line 1 of its standard output: "hello" is no event: invalid character 'h' looking for beginning of value; text for people belongs on standard error`},
		"late garbage":         {`echo '{"log": "x"}'; echo`, `motd: line 2 of its standard output: "" is no event: it ends too early; text for people belongs on standard error`},
		"half an event":        {`echo '{"log": "x'`, `motd: line 1 of its standard output: "{\"log\": \"x" is no event: it ends too early; text for people belongs on standard error`},
		"two values":           {`echo '{"log": "x"} {"log": "y"}'`, `motd: line 1 of its standard output: "{\"log\": \"x\"} {\"log\": \"y\"}" has more than one JSON value`},
		"unknown event":        {`echo '{"lgo": "x"}'`, `motd: line 1 of its standard output: "{\"lgo\": \"x\"}" is no event: unknown field "lgo"; text for people belongs on standard error`},
		"two events":           {`echo '{"log": "x", "key": {}}'`, `motd: line 1 of its standard output: "{\"log\": \"x\", \"key\": {}}" is no event: it has 2 of the keys log, progress, output, diagnostic, key and result, not one`},
		"empty event":          {`echo '{}'`, `motd: line 1 of its standard output: "{}" is no event: it has 0 of the keys log, progress, output, diagnostic, key and result, not one`},
		"no UTF-8":             {`printf '{"log": "\377"}\n'`, `motd: line 1 of its standard output: "{\"log\": \"\xff\"}" is not valid UTF-8`},
		"event of another":     {`echo '{"diagnostic": {"message": "x"}}'`, `motd: line 1 of its standard output: the event "diagnostic" can't be an answer to run`},
		"after the result":     {`echo '{"result": {"outcome": "ok"}}'; echo '{"log": "x"}'`, `motd: line 2 of its standard output: an event "log" comes after the result`},
		"undeclared output":    {`echo '{"output": {"pth": 1}}'`, `motd: line 1 of its standard output: the manifest declares no output "pth"; did you mean "path"?`},
		"outcome":              {`echo '{"result": {"outcome": "fine"}}'`, `motd: line 1 of its standard output: the outcome "fine" is none of ok, failed, permanent, test-failed and skipped`},
		"no message":           {`echo '{"result": {"outcome": "failed"}}'`, `motd: line 1 of its standard output: the result "failed" has no message`},
		"no checks":            {`echo '{"result": {"outcome": "test-failed"}}'`, `motd: line 1 of its standard output: the result "test-failed" has no message`},
		"checks that are none": {`echo '{"result": {"outcome": "ok", "checks": ["x"]}}'`, `motd: line 1 of its standard output: the result "ok" can't have checks`},
		"progress":             {`echo '{"progress": {"done": -1}}'`, `motd: line 1 of its standard output: a progress of -1 of 0 can't be`},
		"an endless line":      {"echo '{\"log\": \"x\"}'; tr '\\0' x </dev/zero", `motd: line 2 of its standard output is longer than 1048576 bytes`},
		"huge outputs":         {`while :; do printf '{"output": {"path": "%01000d"}}\n' 0; done`, `motd: line 65 of its standard output: its outputs come to more than 65536 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, tc.script)
			out, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{}`)
			if err == nil || err.Error() != tc.want || out != nil {
				t.Errorf("got %v, %v\nwant %s", out, err, tc.want)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	run := func(result string) error {
		f := newFixture(t, `echo '{"result": `+result+`}'; exit 1`)
		_, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{}`)
		return err
	}
	var permanent *step.Permanent
	if err := run(`{"outcome": "permanent", "message": "never"}`); !errors.As(err, &permanent) || err.Error() != "never" {
		t.Errorf("permanent: %v", err)
	}
	var skipped *step.Skipped
	if err := run(`{"outcome": "skipped", "message": "there already"}`); !errors.As(err, &skipped) || skipped.Reason != "there already" {
		t.Errorf("skipped: %v", err)
	}
	checks := steptest.FailedChecks(t, run(`{"outcome": "test-failed", "checks": ["a", "b"]}`))
	if d := cmp.Diff([]string{"a", "b"}, checks); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	checks = steptest.FailedChecks(t, run(`{"outcome": "test-failed", "message": "all of it"}`))
	if d := cmp.Diff([]string{"all of it"}, checks); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	var exit *step.ExitError
	f := newFixture(t, "echo why >&2; exit 9")
	_, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{}`)
	if !errors.As(err, &exit) || exit.Status != 9 || cmp.Diff([]string{"motd", "fixed", "run"}, exit.Argv) != "" {
		t.Errorf("exit status: %#v", err)
	}
}

func TestDoesNotStart(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"#!/no/interpreter\n": "start motd: fork/exec DIR/motd: no such file or directory: it isn't there, or the interpreter that its first line names isn't",
		"echo hello\n":        "start motd: fork/exec DIR/motd: exec format error: a script needs a first line such as #!/bin/sh",
	} {
		f := newFixture(t, "")
		writeScript(t, filepath.Join(f.dir, "motd"), text)
		_, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{}`)
		if got := strings.ReplaceAll(fmt.Sprint(err), f.dir, "DIR"); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `
[ "$2" = validate ] && [ -z "$GILD_TARGET" ] || exit 9
case $(cat) in
*fine*) ;;
*broken*) echo "can't look" >&2; exit 1 ;;
*) echo '{"diagnostic": {"message": "too long", "hint": "cut it", "pointer": "/text"}}'
   echo '{"diagnostic": {"severity": "warning", "message": "odd"}}' ;;
esac`)
	validate := func(config string) ([]step.Problem, error) {
		return f.step(t).Validate(t.Context(), json.RawMessage(config))
	}
	got, err := validate(`{"text":"x"}`)
	want := []step.Problem{{Pointer: "/text", Message: "too long", Hint: "cut it"}, {Message: "odd", Warning: true}}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if got, err := validate(`{"text":"fine"}`); len(got) > 0 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := validate(`{"text":"broken"}`); len(got) > 0 || err == nil || err.Error() != "validate: motd: exit status 1: can't look" {
		t.Errorf("got %v, %v", got, err)
	}
	if !strings.Contains(f.log.String(), "can't look\n") {
		t.Errorf("the log is %q", f.log)
	}
}

func TestBadDiagnostics(t *testing.T) {
	t.Parallel()
	for diagnostic, want := range map[string]string{
		`{"pointer": "/a"}`:                    "the diagnostic has no message",
		`{"message": "x", "pointer": "a"}`:     `"a" is no JSON Pointer such as /text`,
		`{"message": "x", "severity": "fata"}`: `the severity "fata" is neither error nor warning`,
	} {
		f := newFixture(t, `echo '{"diagnostic": `+diagnostic+`}'`)
		_, err := f.step(t).Validate(t.Context(), json.RawMessage("{}"))
		steptest.WantError(t, err, "validate: motd: line 1 of its standard output: "+want)
	}
	f := newFixture(t, `echo '{"result": {"outcome": "skipped", "message": "x"}}'`)
	_, err := f.step(t).Validate(t.Context(), json.RawMessage("{}"))
	steptest.WantError(t, err, `the outcome "skipped" can't be an answer to validate`)
}

func TestKeyParts(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `echo '{"key": {"tool": "1"}}'; echo '{"key": {"tool": "2", "data": ""}}'`)
	got, err := f.step(t).KeyParts(t.Context(), json.RawMessage(`{}`))
	if d := cmp.Diff(map[string]string{"tool": "2", "data": ""}, got); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
}

func TestCleanup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `cat >&2; echo " $2" >&2; exit 1`)
	err := f.step(t).Cleanup(t.Context(), step.Resource{Kind: "dir", ID: "/x", Note: "n"})
	steptest.WantError(t, err, "cleanup: motd: exit status 1: ")
	const want = `{"gild":1,"resource":{"kind":"dir","id":"/x","note":"n"}} cleanup` + "\n"
	if d := cmp.Diff(want, f.log.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A log event never lands in the middle of a line of standard error.
func TestLogLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := newFixture(t, fmt.Sprintf(`
printf half >&2
until [ -e %[1]s/seen ]; do sleep 0.01; done
printf '%%s\n' '{"log": "whole\n"}'
`, dir))
	target := steptest.NewTarget(nil)
	log := &signalling{Log: target.Log, seen: filepath.Join(dir, "seen")}
	target.Target.Log = log
	if _, err := target.Run(t.Context(), f.step(t), `{}`); err != nil {
		t.Fatal(err)
	}
	if got := target.Log.String(); got != "half\nwhole\n" {
		t.Errorf("got %q", got)
	}
}

// signalling is a log that makes a file when something was written.
type signalling struct {
	*steptest.Log
	seen string
}

func (s *signalling) Write(p []byte) (int, error) {
	n, err := s.Log.Write(p)
	return n, errors.Join(err, os.WriteFile(s.seen, nil, 0o600))
}

// A log that can't be written stops the program, and is the error.
func TestLogFails(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"events": `while :; do echo '{"log": "x"}'; done`,
		"stderr": `while :; do echo x >&2; done`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, script)
			target := steptest.NewTarget(nil)
			target.Target.Log = full{}
			_, err := target.Run(t.Context(), f.step(t), `{}`)
			if err == nil || err.Error() != "motd: no space for the log" {
				t.Errorf("got %v", err)
			}
		})
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space for the log") }

func TestCancel(t *testing.T) {
	t.Parallel()
	cause := errors.New("not wanted any more")
	for name, tc := range map[string]struct{ script, log string }{
		"asked":  {`trap 'echo asked >&2; exit 0' TERM; echo '{"log": "started"}'; while :; do sleep 0.01; done`, "asked\n"},
		"killed": {`trap 'echo asked >&2' TERM; echo '{"log": "started"}'; while :; do sleep 0.01; done`, "asked\n"},
		"deaf":   {`trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo '{"log": "started"}'; while :; do sleep 1; done`, "started\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, tc.script)
			target := steptest.NewTarget(nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error)
			go func() {
				_, err := target.Run(ctx, f.step(t), `{}`)
				done <- err
			}()
			eventually(t, "the start", func() bool { return strings.Contains(target.Log.String(), "started") })
			cancel(cause)
			if err := <-done; !errors.Is(err, cause) {
				t.Errorf("got %v, want the cause", err)
			}
			if got := target.Log.String(); !strings.Contains(got, tc.log) {
				t.Errorf("the log is %q, without %q", got, tc.log)
			}
		})
	}
}

// Close ends what is running, without a grace.
func TestClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `trap '' TERM; echo '{"log": "started"}'; while :; do sleep 1; done`)
	target := steptest.NewTarget(nil)
	done := make(chan error)
	go func() {
		_, err := target.Run(t.Context(), f.step(t), `{}`)
		done <- err
	}()
	eventually(t, "the start", func() bool { return target.Log.String() != "" })
	f.Close()
	steptest.WantError(t, <-done, "the plugin is being stopped")
	_, err := target.Run(t.Context(), f.step(t), `{}`)
	steptest.WantError(t, err, "the plugin is being stopped")
}

// What a program leaves in the background is gone when its call returns, and doesn't hold
// the call up, whether it hides in a session of its own or not.
func TestBackground(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"same group":  `sleep 1000 & echo $! >&2`,
		"own session": `setsid sh -c 'echo $$ >&2; exec sleep 1000' & sleep 0.2`,
		"a family":    `setsid sh -c 'echo $$ >&2; setsid sleep 1000 & setsid sleep 1000 & wait' & sleep 0.2`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, script)
			target := steptest.NewTarget(nil)
			if _, err := target.Run(t.Context(), f.step(t), `{}`); err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(target.Log.String()))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the end of the process", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
		})
	}
}

// A process that can't be found may keep the output open; the call ends all the same.
func TestHiddenBackground(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `env -i /usr/bin/setsid /bin/sleep 7.531 & sleep 0.2`)
	begin := time.Now()
	if _, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{}`); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("the call took %v, as long as the process that was left", took)
	}
}

// A program needn't read its request.
func TestUnreadRequest(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "exec <&-; exit 0")
	config, err := json.Marshal(map[string]string{"text": strings.Repeat("x", 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), string(config)); err != nil {
		t.Fatal(err)
	}
}

func TestSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t, `sed 's/.*"text":"\([^"]*\)".*/{"output": {"path": "\1"}}/'`)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			want := "t" + strconv.Itoa(i)
			got, err := steptest.NewTarget(nil).Run(t.Context(), f.step(t), `{"text":"`+want+`"}`)
			if err != nil || got["path"] != want {
				t.Errorf("got %v, %v, want %s", got, err, want)
			}
		})
	}
	wg.Wait()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"log": "x"}` + "\n" + `{"progress": {"done": 1}}` + "\n" + `{"output": {"path": [1]}}`))
	f.Add([]byte(`{"result": {"outcome": "test-failed", "checks": ["a"]}}`))
	f.Add([]byte("{\"diagnostic\": {\"message\": \"x\"}}\n{\"key\": {\"a\": \"b\"}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, verb := range []string{"run", "validate", "key", "cleanup"} {
			n := bytes.Count(text, []byte("\n")) + 1
			if err := adapter.ReadEvents(verb, text); err != nil && !strings.Contains(err.Error(), "line ") {
				t.Errorf("an error that names no line of %d: %v", n, err)
			}
		}
	})
}

func BenchmarkCall(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motd"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		b.Fatal(err)
	}
	m, err := manifest.Parse("plugin.yaml", []byte(plugin))
	if err != nil {
		b.Fatal(err)
	}
	a, err := adapter.New(dir, m, adapter.Config{Gild: "/usr/bin/gild", Targets: &targets{}, Temp: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	s := a.Steps()[0]
	for b.Loop() {
		if _, err := s.Validate(b.Context(), json.RawMessage(`{}`)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLog measures log events, for lines a second.
func BenchmarkLog(b *testing.B) {
	line := []byte(`{"log": "a line of a hundred bytes, more or less, as programs write them when they are at work on it"}` + "\n")
	text := bytes.Repeat(line, b.N)
	b.SetBytes(int64(len(line)))
	b.ResetTimer()
	if err := adapter.ReadEvents("run", text); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
}

// However much a program says, no piece of a secret is in the error that cuts it.
func TestSecretsAreNotCut(t *testing.T) {
	t.Parallel()
	const secret = "SECRETVALUE"
	for name, script := range map[string]string{
		"end of what is shown":  `printf '%*s%s%s\n' 295 . "$TOKEN" "$TOKEN" >&2; exit 1`,
		"beginning of the tail": `printf '%s%*s' "$TOKEN" 2043 . >&2; exit 1`,
		"tail of many":          `for i in $(seq 500); do printf %s "$TOKEN"; done >&2; exit 1`,
		"no event":              `printf '%*s%s%s\n' 75 . "$TOKEN" "$TOKEN"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, script)
			target := &step.Target{Log: &steptest.Log{}, Env: map[string]string{"TOKEN": secret}, SecretEnv: []string{"TOKEN"}}
			_, err := f.step(t).Run(t.Context(), target, json.RawMessage(`{}`))
			if err == nil {
				t.Fatal("the step succeeded")
			}
			if strings.Contains(err.Error(), "SEC") || strings.Contains(err.Error(), "VALUE") || strings.Contains(err.Error(), "ECRET") {
				t.Errorf("a piece of the secret is in: %v", err)
			}
		})
	}
}
