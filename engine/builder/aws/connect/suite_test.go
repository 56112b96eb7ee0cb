package connect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
)

// conform is what every connection must be able to do. restart cuts the machine's power and
// gives it back; Options.Env of the connection is testEnv.
func conform(t *testing.T, m *Machine, restart func()) {
	for _, test := range append(basics,
		part{"many words", testManyWords},
		part{"environment", testEnvironment},
		part{"refused", testRefused},
		part{"one writer", testOneWriter},
		part{"chatty", testChatty},
		part{"failing streams", testFailingStreams},
		part{"facts", testFacts},
		part{"dial", testDial},
		part{"reboot", func(t *testing.T, m *Machine) { testReboot(t, m, restart) }},
	) {
		t.Run(test.name, func(t *testing.T) { test.run(t, m) })
	}
}

type part struct {
	name string
	run  func(*testing.T, *Machine)
}

// basics are the parts that a bad day of SSM must not harm either.
var basics = []part{
	{"hostile words", testHostileWords},
	{"exit status", testExitStatus},
	{"output", testOutput},
	{"input", testInput},
	{"input not read", testInputNotRead},
	{"dialogue", testDialogue},
	{"leftovers", testLeftovers},
	{"cancel", testCancel},
	{"side by side", testSideBySide},
	{"put and get", testPutGet},
	{"put refused", testPutRefused},
}

var testEnv = map[string]string{"CLOCK": "17"}

// output runs a command that must succeed and returns what it printed.
func output(tb testing.TB, m *Machine, argv ...string) string {
	tb.Helper()
	var out, complaints bytes.Buffer
	if err := m.Exec(tb.Context(), step.Cmd{Argv: argv, Stdout: &out, Stderr: &complaints}); err != nil {
		tb.Fatalf("%v\n%s", err, complaints.String())
	}
	return out.String()
}

var everyByte = func() string {
	every := make([]byte, 0, 255)
	for b := 1; b < 256; b++ {
		every = append(every, byte(b))
	}
	return string(every)
}()

func testHostileWords(t *testing.T, m *Machine) {
	words := []string{
		"", " ", "a b", "'", `"`, "`id`", "$(id)", "$HOME", "${x:-y}", `\`, `\n`, `\0101`, "%s%n", "*", "~", "-n", "--",
		"\n", "a\n\n", "\r\n", "\t", "ünïcödé ☃", "\xff\xfe", "; touch /pwned #", "|", "&", ">/pwned", "!", "+", "=", "A=B",
		"{{ssm:secret}}", "_GILD_", "\n_GILD_\n", "'\\''", everyByte, string(randomBytesWithoutNUL(5000)), strings.Repeat("x", 100_000), "",
	}
	got := output(t, m, append([]string{"printf", `%s\0`}, words...)...)
	if diff := cmp.Diff(words, strings.Split(strings.TrimSuffix(got, "\x00"), "\x00")); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	env := map[string]string{}
	for i, w := range words[:len(words)-2] {
		env[fmt.Sprintf("W%d", i)] = w
	}
	var out bytes.Buffer
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"env", "-0"}, Env: env, Stdout: &out}))
	seen := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\x00"), "\x00") {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "W") {
			seen[name] = value
		}
	}
	if diff := cmp.Diff(env, seen); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	output(t, m, "test", "!", "-e", "/pwned")
}

func randomBytesWithoutNUL(n int) []byte {
	return bytes.ReplaceAll(randomBytes(n), []byte{0}, []byte("'"))
}

func testManyWords(t *testing.T, m *Machine) {
	argv := append([]string{"sh", "-c", "echo $#", "sh"}, strings.Fields(strings.Repeat("argument ", 50_000))...)
	if got := output(t, m, argv...); got != "50000\n" {
		t.Errorf("%q words arrived, want 50000", got)
	}
}

func testEnvironment(t *testing.T, m *Machine) {
	var out bytes.Buffer
	// Names that the agent uses itself.
	env := map[string]string{"group": "1", "work": "2", "IFS": "/", "LANG": "C", "PWD": "4", "job": "5", "LC_ALL": "POSIX", "merge": "1"}
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"/usr/bin/env"}, Env: env, Dir: "/usr/share", Stdout: &out}))
	want := map[string]string{
		"group": "1", "work": "2", "IFS": "/", "LANG": "C", "PWD": "4", "job": "5", "LC_ALL": "POSIX", "merge": "1",
		"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "CLOCK": "17",
	}
	got := map[string]string{}
	for line := range strings.Lines(out.String()) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		got[name] = value
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the whole environment (-want +got):\n%s", diff)
	}
	const script = `pwd; umask; id -u; ls /proc/self/fd | wc -l; ps=$(cut -d" " -f5,6 </proc/$$/stat); [ "$ps" = "$$ $$" ] && echo leader; trap`
	out.Reset()
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", script}, Dir: "/usr/share", Stdout: &out}))
	// Three streams and the one that ls reads the folder with; no signal is ignored.
	if want := "/usr/share\n0022\n0\n4\nleader\n"; out.String() != want {
		t.Errorf("surroundings of a command: %q, want %q", out.String(), want)
	}
	// The machine is a child of the test, which may have been started with ignored signals.
	const status = "/proc/self/status"
	own, err := os.ReadFile(status)
	must(t, err)
	if got := ignored(t, output(t, m, "cat", status)) &^ ignored(t, string(own)); got != 0 {
		t.Errorf("ignored signals %016x, want none", got)
	}
	out.Reset()
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"printf", "x"}, Env: map[string]string{"PATH": "/nowhere:/usr/bin"}, Stdout: &out}))
	if out.String() != "x" {
		t.Errorf("a program in another path printed %q", out.String())
	}
}

// ignored is the set of ignored signals in a status file of /proc.
func ignored(t *testing.T, status string) (signals uint64) {
	t.Helper()
	_, value, _ := strings.Cut(status, "\nSigIgn:\t")
	value, _, _ = strings.Cut(value, "\n")
	signals, err := strconv.ParseUint(value, 16, 64)
	must(t, err)
	return signals
}

func testRefused(t *testing.T, m *Machine) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	tests := []struct {
		name string
		ctx  context.Context
		cmd  step.Cmd
		want string
	}{
		{"nothing", t.Context(), step.Cmd{}, "no program"},
		{"folder", t.Context(), step.Cmd{Argv: []string{"true"}, Dir: "x"}, `folder "x" isn't absolute`},
		{"variable", t.Context(), step.Cmd{Argv: []string{"true"}, Env: map[string]string{"A B": "x"}}, `variable "A B" can't be set`},
		{"agent's variable", t.Context(), step.Cmd{Argv: []string{"true"}, Env: map[string]string{"_gild_setsid": "x"}}, "can't be set"},
		{"NUL", t.Context(), step.Cmd{Argv: []string{"true", "a\x00b"}}, "NUL byte"},
		{"too long", t.Context(), step.Cmd{Argv: []string{"true", strings.Repeat("x", 3<<20)}}, "put what is long in a file"},
		{"cancelled before", ended, step.Cmd{Argv: []string{"true"}}, "enough"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := m.Exec(test.ctx, test.cmd)
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.As(err, new(*step.ExitError)) {
				t.Errorf("Exec: %v, want %q", err, test.want)
			}
		})
	}
}

func testExitStatus(t *testing.T, m *Machine) {
	tests := []struct {
		name   string
		argv   []string
		dir    string
		status int
	}{
		{"failure", []string{"false"}, "", 1},
		{"status", []string{"sh", "-c", "exit 200"}, "", 200},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, "", 143},
		{"own group", []string{"sh", "-c", "kill -KILL 0"}, "", 137},
		{"no such program", []string{"no-such-program"}, "", 127},
		{"not a program", []string{"/etc/passwd"}, "", 126},
		{"no such folder", []string{"true"}, "/nowhere", 126},
		{"the agent's own", []string{"sh", "-c", "exit 44"}, "", 44},
		{"sudo's own", []string{"sh", "-c", "echo sudo: a password is required >&2; exit 1"}, "", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := m.Exec(t.Context(), step.Cmd{Argv: test.argv, Dir: test.dir})
			var exit *step.ExitError
			if !errors.As(err, &exit) || exit.Status != test.status {
				t.Errorf("Exec: %v, want status %d", err, test.status)
			}
		})
	}
}

func testOutput(t *testing.T, m *Machine) {
	var out, complaints bytes.Buffer
	const script = `head -c 5000000 /dev/urandom >/tmp/five; cat /tmp/five & head -c 1000000 /tmp/five >&2; wait; exit 3`
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", script}, Stdout: &out, Stderr: &complaints})
	var exit *step.ExitError
	if !errors.As(err, &exit) || exit.Status != 3 {
		t.Errorf("Exec: %v, want status 3", err)
	}
	if out.Len() != 5_000_000 || !bytes.Equal(complaints.Bytes(), out.Bytes()[:min(out.Len(), 1_000_000)]) {
		t.Errorf("%d bytes of output, %d of complaints: not what was written", out.Len(), complaints.Len())
	}
	sum := output(t, m, "sha256sum", "/tmp/five")
	if want := digestOf(out.Bytes()); !strings.HasPrefix(sum, want) {
		t.Errorf("digest %s of the output, %s on the machine", want, sum)
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func testOneWriter(t *testing.T, m *Machine) {
	var out bytes.Buffer
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "for i in $(seq 100); do echo 1; echo 2 >&2; done"}, Stdout: &out, Stderr: &out})
	must(t, err)
	if want := strings.Repeat("1\n2\n", 100); out.String() != want {
		t.Errorf("out of order: %q", out.String())
	}
}

// testChatty writes many small pieces, which must not cost a call each.
func testChatty(t *testing.T, m *Machine) {
	got := output(t, m, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done")
	lines := strings.Count(got, "\n")
	if lines != 20_000 || !strings.HasSuffix(got, "19999\n20000\n") {
		t.Errorf("%d lines, want 20000", lines)
	}
}

func testInput(t *testing.T, m *Machine) {
	data := randomBytes(5<<20 + 17)
	var out bytes.Buffer
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"sha256sum"}, Stdin: bytes.NewReader(data), Stdout: &out}))
	if want := digestOf(data); !strings.HasPrefix(out.String(), want) {
		t.Errorf("digest %s of the input, want %s", out.String(), want)
	}
	zeros := make([]byte, 4<<20)
	out.Reset()
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: bytes.NewReader(zeros), Stdout: &out}))
	if !bytes.Equal(out.Bytes(), zeros) {
		t.Errorf("%d bytes back of %d zeros", out.Len(), len(zeros))
	}
	if got := output(t, m, "wc", "-c"); got != "0\n" {
		t.Errorf("without input a command reads %q bytes, want 0", got)
	}
	out.Reset()
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"wc", "-c"}, Stdin: strings.NewReader(""), Stdout: &out}))
	if out.String() != "0\n" {
		t.Errorf("of empty input a command reads %q bytes, want 0", out.String())
	}
}

// testInputNotRead checks that input nobody reads is in no one's way.
func testInputNotRead(t *testing.T, m *Machine) {
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}, Stdin: bytes.NewReader(randomBytes(3 << 20))}))
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}, Stdin: endless{}}))
	r, w := io.Pipe()
	defer w.Close()
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}, Stdin: r}))
	var out bytes.Buffer
	must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: strings.NewReader("next"), Stdout: &out}))
	if out.String() != "next" {
		t.Errorf("the next command read %q", out.String())
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// testDialogue checks that both ways are open while the command runs.
func testDialogue(t *testing.T, m *Machine) {
	in, typed := io.Pipe()
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := m.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: in, Stdout: out})
		out.CloseWithError(err)
		done <- err
	}()
	line := make([]byte, 5)
	for range 3 {
		if _, err := io.WriteString(typed, "ping\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(said, line); err != nil || string(line) != "ping\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	typed.Close()
	must(t, <-done)
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

func testFailingStreams(t *testing.T, m *Machine) {
	broken := errors.New("the pipe is broken")
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"cat", "/dev/zero"}, Stdout: failing{broken}})
	if !errors.Is(err, broken) {
		t.Errorf("Exec: %v, want the writer's error", err)
	}
	err = m.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: failing{broken}})
	if !errors.Is(err, broken) {
		t.Errorf("Exec: %v, want the reader's error", err)
	}
	noProcess(t, m, "/dev/zero")
}

// testLeftovers checks that what a command leaves running ends with it.
func testLeftovers(t *testing.T, m *Machine) {
	for _, script := range []string{
		"setsid sleep 4711 & sleep 4711 & exit 0",
		"(trap '' TERM HUP INT QUIT; sleep 4711) & exit 0",
		"setsid -f sh -c 'sleep 4711; :' >/dev/null 2>&1 </dev/null",
		"for i in $(seq 50); do setsid sleep 4711 & done",
	} {
		output(t, m, "sh", "-c", script)
		noProcess(t, m, "4711")
	}
}

// noProcess checks that no process of the machine has the argument.
func noProcess(t *testing.T, m *Machine, argument string) {
	t.Helper()
	// The pattern doesn't find itself.
	pattern := argument[:len(argument)-1] + "[" + argument[len(argument)-1:] + "]"
	const script = `grep -zxsl "$1" /proc/[0-9]*/cmdline; :`
	if left := output(t, m, "sh", "-c", script, "sh", pattern); left != "" {
		t.Errorf("still running: %q", left)
	}
}

func testCancel(t *testing.T, m *Machine) {
	cause := errors.New("enough of it")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := &signal{when: "started", do: func() { cancel(cause) }}
	err := m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "trap '' TERM; (setsid sleep 4712 &) ; echo started; sleep 4712"}, Stdout: started})
	if !errors.Is(err, cause) {
		t.Errorf("Exec: %v, want the cause", err)
	}
	noProcess(t, m, "4712")
	for _, within := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 60 * time.Millisecond, 200 * time.Millisecond} {
		// Before the command has begun, or while it begins.
		ctx, cancel := context.WithTimeout(t.Context(), within)
		if err := m.Exec(ctx, step.Cmd{Argv: []string{"sleep", "4713"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Exec: %v, want that the time is over", err)
		}
		cancel()
		noProcess(t, m, "4713")
	}
	if got := output(t, m, "echo", "still here"); got != "still here\n" {
		t.Errorf("after a cancellation: %q", got)
	}
}

// signal calls do when it is written when.
type signal struct {
	when string
	do   func()
}

func (s *signal) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.when) {
		s.do()
	}
	return len(p), nil
}

func testSideBySide(t *testing.T, m *Machine) {
	const count = 6
	results := make(chan error, count)
	for i := range count {
		go func() {
			var out bytes.Buffer
			err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "read x; echo $x; exit $x"}, Stdin: strings.NewReader(fmt.Sprintln(i)), Stdout: &out})
			var exit *step.ExitError
			if i > 0 && errors.As(err, &exit) && exit.Status == i {
				err = nil
			}
			if err == nil && out.String() != fmt.Sprintln(i) {
				err = fmt.Errorf("command %d said %q", i, out.String())
			}
			results <- err
		}()
	}
	for range count {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func testPutGet(t *testing.T, m *Machine) {
	modTime := time.Unix(1_700_000_000, 250_000_000)
	binary := randomBytes(3<<20 + 3)
	tests := []struct {
		name    string
		file    step.PutFile
		content []byte
		stat    string
	}{
		{"plain", step.PutFile{Path: "/root/plain"}, []byte("hello\n"), "644 root root"},
		{"empty", step.PutFile{Path: "/root/empty"}, nil, "644 root root"},
		{"all set", step.PutFile{Path: "/opt/a/b/file", Mode: 0o750, Owner: "daemon", Group: "adm", ModTime: modTime, Parents: true}, binary, "750 daemon adm"},
		{"setuid", step.PutFile{Path: "/root/suid", Mode: fs.ModeSetuid | 0o755, Owner: "1234", Group: "5678"}, nil, "4755 UNKNOWN UNKNOWN"},
		{"odd name", step.PutFile{Path: "/root/-a 'b' $(c)\n\n"}, []byte("odd"), "644 root root"},
		{"again", step.PutFile{Path: "/root/plain", Mode: 0o600}, []byte("shorter"), "600 root root"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			must(t, m.Put(t.Context(), test.file, bytes.NewReader(test.content)))
			var got bytes.Buffer
			must(t, m.Get(t.Context(), test.file.Path, &got))
			if !bytes.Equal(got.Bytes(), test.content) {
				t.Errorf("%d bytes back of %d", got.Len(), len(test.content))
			}
			if stat := output(t, m, "stat", "-c", "%a %U %G", test.file.Path); stat != test.stat+"\n" {
				t.Errorf("stat %q, want %q", stat, test.stat)
			}
		})
	}
	if got := output(t, m, "stat", "-c", "%.2Y", "/opt/a/b/file"); got != "1700000000.25\n" {
		t.Errorf("modification time %s", got)
	}
	if got := output(t, m, "stat", "-c", "%a %U", "/opt/a"); got != "755 root\n" {
		t.Errorf("a parent is %s", got)
	}
	output(t, m, "sh", "-c", "ln -sf plain /root/link; ln -sf ../srv/new /root/dangling")
	must(t, m.Put(t.Context(), step.PutFile{Path: "/root/link"}, strings.NewReader("through")))
	must(t, m.Put(t.Context(), step.PutFile{Path: "/root/dangling"}, strings.NewReader("new")))
	if got := output(t, m, "sh", "-c", "cat /root/plain; readlink /root/link; cat /srv/new; ls -A /root | grep -c gild-; :"); got != "throughplain\nnew0\n" {
		t.Errorf("links, what they lead to, and temporary files: %q", got)
	}
}

func testPutRefused(t *testing.T, m *Machine) {
	must(t, m.Put(t.Context(), step.PutFile{Path: "/root/kept"}, strings.NewReader("kept")))
	broken := errors.New("no more of it")
	for _, half := range [][]byte{[]byte("half"), randomBytes(1 << 20)} {
		if err := m.Put(t.Context(), step.PutFile{Path: "/root/kept"}, io.MultiReader(bytes.NewReader(half), failing{broken})); !errors.Is(err, broken) {
			t.Errorf("Put: %v, want the reader's error", err)
		}
		if got := output(t, m, "cat", "/root/kept"); got != "kept" {
			t.Errorf("after half a file: %.20q, want the old content", got)
		}
	}
	for name, err := range map[string]error{
		"no parent":    m.Put(t.Context(), step.PutFile{Path: "/root/no/file"}, nil),
		"a folder":     m.Put(t.Context(), step.PutFile{Path: "/root"}, nil),
		"no such user": m.Put(t.Context(), step.PutFile{Path: "/root/x", Owner: "nobody-such"}, nil),
		"relative":     m.Put(t.Context(), step.PutFile{Path: "x"}, nil),
		"get a folder": m.Get(t.Context(), "/root", io.Discard),
		"get relative": m.Get(t.Context(), "x", io.Discard),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	if err := m.Get(t.Context(), "/root/missing", io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of what isn't there: %v, want fs.ErrNotExist", err)
	}
}

func testFacts(t *testing.T, m *Machine) {
	got, err := m.Facts(t.Context())
	must(t, err)
	want := step.Facts{OS: "debian", Version: "12", Arch: "amd64", PackageManager: "apt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// testDial asks a web server on the machine's loopback.
func testDial(t *testing.T, m *Machine) {
	big := randomBytes(200_000)
	must(t, m.Put(t.Context(), step.PutFile{Path: "/srv/web/big", Parents: true}, bytes.NewReader(big)))
	port := freePort(t)
	serving, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- m.Exec(serving, step.Cmd{
			Argv: []string{"/usr/bin/python3", "-m", "http.server", "--protocol", "HTTP/1.1", "--bind", "127.0.0.1", "--directory", "/srv/web", fmt.Sprint(port)},
		})
	}()
	defer func() {
		stop()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("the web server: %v", err)
		}
	}()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return m.Dial(ctx, port) }}}
	eventually(t, "the web server answers", func() bool {
		res, err := client.Get("http://machine/")
		return err == nil && res.Body.Close() == nil
	})
	for range 2 { // on one connection
		res, err := client.Get("http://machine/big")
		must(t, err)
		got, err := io.ReadAll(res.Body)
		must(t, errors.Join(err, res.Body.Close()))
		if !bytes.Equal(got, big) {
			t.Errorf("%d bytes of an answer, want %d", len(got), len(big))
		}
	}
	client.CloseIdleConnections()
	if c, err := m.Dial(t.Context(), freePort(t)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Dial of a closed port: %v, %v, want that it is refused", c, err)
	}
	for _, port := range []int{0, -1, 65536} {
		if _, err := m.Dial(t.Context(), port); err == nil {
			t.Errorf("Dial of port %d: no error", port)
		}
	}
}

// testReboot restarts the machine under a command, and then as a pipeline does.
func testReboot(t *testing.T, m *Machine, restart func()) {
	must(t, m.Put(t.Context(), step.PutFile{Path: "/root/stays"}, strings.NewReader("stays")))
	restarted := make(chan struct{})
	cut := &signal{when: "started", do: func() {
		go func() {
			defer close(restarted)
			restart()
		}()
	}}
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "echo started; sleep 4714"}, Stdout: cut})
	if err == nil || errors.As(err, new(*step.ExitError)) {
		t.Errorf("a command under which the machine was restarted: %v, want an error of the connection", err)
	}
	<-restarted
	if got := output(t, m, "cat", "/root/stays"); got != "stays" {
		t.Errorf("after a restart: %q", got)
	}
	before := output(t, m, "cat", bootIDFile)
	must(t, m.Reboot(t.Context(), func(context.Context) error {
		go func() {
			time.Sleep(300 * time.Millisecond) // EC2 doesn't do it at once
			restart()
		}()
		return nil
	}))
	if after := output(t, m, "cat", bootIDFile); after == before {
		t.Error("Reboot returned before the machine was restarted")
	}
	refused := errors.New("not allowed")
	if err := m.Reboot(t.Context(), func(context.Context) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("Reboot: %v, want what the caller's function said", err)
	}
}
