package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
	"github.com/google/go-cmp/cmp"
)

// boot starts a guest of the Debian disk that ends with the test.
func boot(tb testing.TB, firmware string) *Guest {
	tb.Helper()
	return bootDisk(tb, debianDisk(tb), firmware)
}

func bootDisk(tb testing.TB, raw, firmware string) *Guest {
	tb.Helper()
	g, err := Start(tb.Context(), Config{
		Disk: raw, Arch: "amd64", Firmware: firmware, Dir: tb.TempDir(), Token: tb.Name(), Accel: TCG,
	})
	must(tb, err)
	tb.Cleanup(func() { must(tb, g.Close()) })
	return g
}

// output runs a command that must succeed and returns what it printed.
func output(tb testing.TB, g *Guest, argv ...string) string {
	tb.Helper()
	var out, complaints bytes.Buffer
	if err := g.Exec(tb.Context(), step.Cmd{Argv: argv, Stdout: &out, Stderr: &complaints}); err != nil {
		tb.Fatalf("%v\n%s", err, complaints.String())
	}
	return out.String()
}

// TestBIOS boots one guest and uses it for all that a guest can do; the last test ends it.
func TestBIOS(t *testing.T) {
	t.Parallel()
	before := digest(t, debianDisk(t))
	g := boot(t, "bios")
	for _, test := range []struct {
		name string
		run  func(*testing.T, *Guest)
	}{
		{"early", testEarly},
		{"running", testRunning},
		{"hostile words", testHostileWords},
		{"environment", testEnvironment},
		{"exit status", testExitStatus},
		{"output", testOutput},
		{"input", testInput},
		{"input not read", testInputNotRead},
		{"failing streams", testFailingStreams},
		{"leftovers", testLeftovers},
		{"cancel", testCancel},
		{"put and get", testPutGet},
		{"put refused", testPutRefused},
		{"facts", testFacts},
		{"dial", testDial},
		{"no way out", testNoWayOut},
		{"agent restarts", testAgentRestarts},
		{"panic", testPanic},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, g) })
	}
	if after := digest(t, debianDisk(t)); after != before {
		t.Errorf("the image changed from %s to %s", before, after)
	}
}

// testEarly checks that commands run while the boot is under way.
func testEarly(t *testing.T, g *Guest) {
	if jobs := output(t, g, "systemctl", "list-jobs"); !strings.Contains(jobs, "multi-user.target") {
		t.Errorf("jobs of the boot:\n%s\nwant multi-user.target waiting", jobs)
	}
	if up := time.Since(g.PoweredOn()); up <= 0 || up > 10*time.Minute {
		t.Errorf("powered on %s ago", up)
	}
}

// testRunning checks that the agent neither holds the boot up nor counts as a fault.
func testRunning(t *testing.T, g *Guest) {
	if state := output(t, g, "systemctl", "is-system-running", "--wait"); state != "running\n" {
		t.Errorf("state %q; failed units:\n%s", state, output(t, g, "systemctl", "--failed"))
	}
	if !strings.Contains(g.Console(), "Linux version 6.1") {
		t.Errorf("no kernel on the console:\n%s", g.Console())
	}
	if strings.ContainsAny(g.Console(), "\x1b\r\x07") {
		t.Error("control characters on the console")
	}
}

func testHostileWords(t *testing.T, g *Guest) {
	every := make([]byte, 0, 255)
	for b := 1; b < 256; b++ {
		every = append(every, byte(b))
	}
	words := []string{
		"", " ", "a b", "'", `"`, "`id`", "$(id)", "$HOME", "${x:-y}", `\`, `\n`, `\0101`, "%s%n", "*", "~", "-n", "--",
		"\n", "a\n\n", "\r\n", "\t", "ünïcödé ☃", "; touch /pwned #", "|", "&", ">/pwned", "!", "+", "=", "A=B",
		string(every), strings.Repeat("x", 100_000), "",
	}
	got := output(t, g, append([]string{"printf", `%s\0`}, words...)...)
	if diff := cmp.Diff(words, strings.Split(strings.TrimSuffix(got, "\x00"), "\x00")); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	env := map[string]string{}
	for i, w := range words[:len(words)-2] {
		env[fmt.Sprintf("W%d", i)] = w
	}
	var out bytes.Buffer
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"env", "-0"}, Env: env, Stdout: &out}))
	seen := map[string]string{}
	for entry := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\x00"), "\x00") {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "W") {
			seen[name] = value
		}
	}
	if diff := cmp.Diff(env, seen); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	output(t, g, "test", "!", "-e", "/pwned")
}

func testEnvironment(t *testing.T, g *Guest) {
	var out bytes.Buffer
	// Names that the agent uses itself.
	env := map[string]string{"group": "1", "work": "2", "IFS": "3", "LANG": "C", "PWD": "4", "_x": "5"}
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"/usr/bin/env"}, Env: env, Dir: "/usr/share", Stdout: &out}))
	want := map[string]string{
		"group": "1", "work": "2", "IFS": "3", "LANG": "C", "PWD": "4", "_x": "5",
		"HOME": "/root", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
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
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", script}, Dir: "/usr/share", Stdout: &out}))
	// Three streams and the one that ls reads the folder with; no signal is ignored.
	if want := "/usr/share\n0022\n0\n4\nleader\n"; out.String() != want {
		t.Errorf("surroundings of a command: %q, want %q", out.String(), want)
	}
	ignored := output(t, g, "sed", "-n", "s/^SigIgn:\\t//p", "/proc/self/status")
	if ignored != "0000000000000000\n" {
		t.Errorf("ignored signals %q, want none", ignored)
	}
}

func testExitStatus(t *testing.T, g *Guest) {
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
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := g.Exec(t.Context(), step.Cmd{Argv: test.argv, Dir: test.dir})
			var exit *step.ExitError
			if !errors.As(err, &exit) || exit.Status != test.status {
				t.Errorf("Exec: %v, want status %d", err, test.status)
			}
		})
	}
}

func testOutput(t *testing.T, g *Guest) {
	var out, complaints bytes.Buffer
	const script = `head -c 5000000 /dev/urandom >/tmp/five; cat /tmp/five & head -c 1000000 /tmp/five >&2; wait; exit 3`
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", script}, Stdout: &out, Stderr: &complaints})
	var exit *step.ExitError
	if !errors.As(err, &exit) || exit.Status != 3 {
		t.Errorf("Exec: %v, want status 3", err)
	}
	if out.Len() != 5_000_000 || !bytes.Equal(complaints.Bytes(), out.Bytes()[:min(out.Len(), 1_000_000)]) {
		t.Errorf("%d bytes of output, %d of complaints: not what was written", out.Len(), complaints.Len())
	}
	sum := output(t, g, "sha256sum", "/tmp/five")
	if want := digestOf(out.Bytes()); !strings.HasPrefix(sum, want) {
		t.Errorf("digest %s of the output, %s in the guest", want, sum)
	}
}

func testInput(t *testing.T, g *Guest) {
	data := randomBytes(3<<20 + 17)
	var out bytes.Buffer
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: bytes.NewReader(data), Stdout: &out}))
	if !bytes.Equal(out.Bytes(), data) {
		t.Errorf("%d bytes back of %d", out.Len(), len(data))
	}
	if got := output(t, g, "wc", "-c"); got != "0\n" {
		t.Errorf("without input a command reads %q bytes, want 0", got)
	}
}

// testInputNotRead checks that input nobody reads is in no one's way.
func testInputNotRead(t *testing.T, g *Guest) {
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"true"}, Stdin: bytes.NewReader(randomBytes(3 << 20))}))
	r, w := io.Pipe()
	defer w.Close()
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"true"}, Stdin: r}))
	var out bytes.Buffer
	must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: strings.NewReader("next"), Stdout: &out}))
	if out.String() != "next" {
		t.Errorf("the next command read %q", out.String())
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Read([]byte) (int, error)  { return 0, f.err }

func testFailingStreams(t *testing.T, g *Guest) {
	broken := errors.New("the pipe is broken")
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"cat", "/dev/zero"}, Stdout: failing{broken}})
	if !errors.Is(err, broken) {
		t.Errorf("Exec: %v, want the writer's error", err)
	}
	err = g.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: failing{broken}})
	if !errors.Is(err, broken) {
		t.Errorf("Exec: %v, want the reader's error", err)
	}
}

// testLeftovers checks that what a command leaves running ends with it.
func testLeftovers(t *testing.T, g *Guest) {
	output(t, g, "sh", "-c", "setsid sleep 4711 & sleep 4711 & exit 0")
	noProcess(t, g, "4711")
}

func testCancel(t *testing.T, g *Guest) {
	cause := errors.New("enough of it")
	ctx, cancel := context.WithCancelCause(t.Context())
	started := &signal{when: "started", do: func() { cancel(cause) }}
	err := g.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "trap '' TERM; (setsid sleep 4712 &) ; echo started; sleep 4712"}, Stdout: started})
	if !errors.Is(err, cause) {
		t.Errorf("Exec: %v, want the cause", err)
	}
	noProcess(t, g, "4712")
	if err := g.Exec(ctx, step.Cmd{Argv: []string{"true"}}); !errors.Is(err, cause) {
		t.Errorf("Exec with a context that has ended: %v, want the cause", err)
	}
	for range 3 {
		// Before the guest has even begun.
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := g.Exec(ctx, step.Cmd{Argv: []string{"sleep", "4713"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Exec: %v, want that the time is over", err)
		}
		cancel()
	}
	if got := output(t, g, "echo", "still here"); got != "still here\n" {
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

// noProcess checks that no process of the guest has the argument.
func noProcess(t *testing.T, g *Guest, argument string) {
	t.Helper()
	// The pattern doesn't find itself.
	pattern := argument[:len(argument)-1] + "[" + argument[len(argument)-1:] + "]"
	const script = `grep -zxsl "$1" /proc/[0-9]*/cmdline; :`
	if left := output(t, g, "sh", "-c", script, "sh", pattern); left != "" {
		t.Errorf("still running: %q", left)
	}
}

func testPutGet(t *testing.T, g *Guest) {
	modTime := time.Unix(1_700_000_000, 250_000_000)
	binary := randomBytes(2<<20 + 3)
	tests := []struct {
		name    string
		file    step.PutFile
		content []byte
		stat    string
	}{
		{"plain", step.PutFile{Path: "/root/plain"}, []byte("hello\n"), "644 root root"},
		{"all set", step.PutFile{Path: "/opt/a/b/file", Mode: 0o4750, Owner: "daemon", Group: "adm", ModTime: modTime, Parents: true}, binary, "750 daemon adm"},
		{"setuid", step.PutFile{Path: "/root/suid", Mode: fs.ModeSetuid | 0o755, Owner: "1234", Group: "5678"}, nil, "4755 UNKNOWN UNKNOWN"},
		{"odd name", step.PutFile{Path: "/root/-a 'b' $(c)\n\n"}, []byte("odd"), "644 root root"},
		{"again", step.PutFile{Path: "/root/plain", Mode: 0o600}, []byte("shorter"), "600 root root"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			must(t, g.Put(t.Context(), test.file, bytes.NewReader(test.content)))
			var got bytes.Buffer
			must(t, g.Get(t.Context(), test.file.Path, &got))
			if !bytes.Equal(got.Bytes(), test.content) {
				t.Errorf("%d bytes back of %d", got.Len(), len(test.content))
			}
			if stat := output(t, g, "stat", "-c", "%a %U %G", test.file.Path); stat != test.stat+"\n" {
				t.Errorf("stat %q, want %q", stat, test.stat)
			}
		})
	}
	if got := output(t, g, "stat", "-c", "%.2Y", "/opt/a/b/file"); got != "1700000000.25\n" {
		t.Errorf("modification time %s", got)
	}
	if got := output(t, g, "stat", "-c", "%a %U", "/opt/a"); got != "755 root\n" {
		t.Errorf("a parent is %s", got)
	}
	output(t, g, "ln", "-s", "plain", "/root/link")
	must(t, g.Put(t.Context(), step.PutFile{Path: "/root/link"}, strings.NewReader("through")))
	if got := output(t, g, "sh", "-c", "cat /root/plain; readlink /root/link; ls -A /root | grep -c gild-; :"); got != "throughplain\n0\n" {
		t.Errorf("a link, what it leads to, and temporary files: %q", got)
	}
}

func testPutRefused(t *testing.T, g *Guest) {
	must(t, g.Put(t.Context(), step.PutFile{Path: "/root/kept"}, strings.NewReader("kept")))
	broken := errors.New("no more of it")
	if err := g.Put(t.Context(), step.PutFile{Path: "/root/kept"}, io.MultiReader(strings.NewReader("half"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("Put: %v, want the reader's error", err)
	}
	if got := output(t, g, "cat", "/root/kept"); got != "kept" {
		t.Errorf("after half a file: %q, want the old content", got)
	}
	for name, err := range map[string]error{
		"no parent":    g.Put(t.Context(), step.PutFile{Path: "/root/no/file"}, nil),
		"a folder":     g.Put(t.Context(), step.PutFile{Path: "/root"}, nil),
		"no such user": g.Put(t.Context(), step.PutFile{Path: "/root/x", Owner: "nobody-such"}, nil),
		"relative":     g.Put(t.Context(), step.PutFile{Path: "x"}, nil),
		"get a folder": g.Get(t.Context(), "/root", io.Discard),
		"get relative": g.Get(t.Context(), "x", io.Discard),
	} {
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	if err := g.Get(t.Context(), "/root/missing", io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of what isn't there: %v, want fs.ErrNotExist", err)
	}
}

func testFacts(t *testing.T, g *Guest) {
	got, err := g.Facts(t.Context())
	must(t, err)
	want := step.Facts{OS: "debian", Version: "12", Arch: "amd64", PackageManager: "apt"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func testDial(t *testing.T, g *Guest) {
	output(t, g, "systemd-run", "--unit=echo", "systemd-socket-activate", "-l", "7007", "--accept", "--inetd", "cat")
	output(t, g, "timeout", "60", "sh", "-c", "until hostname -I | grep -F 10.0.2.15; do sleep 0.5; done")
	for range 2 {
		eventually(t, "the guest's service answers", func() bool { return echo(t, g, 7007) == "ping" })
	}
	if got := echo(t, g, 7008); got != "" {
		t.Errorf("read %q from a port on which nothing listens", got)
	}
	if n := len(g.forwards.byPort); n != 2 {
		t.Errorf("%d ports are forwarded, want 2", n)
	}
	for _, port := range []int{0, -1, 65536} {
		if _, err := g.Dial(t.Context(), port); err == nil {
			t.Errorf("Dial of port %d: no error", port)
		}
	}
}

// echo returns what a service of the guest answers to "ping".
func echo(t *testing.T, g *Guest, port int) string {
	t.Helper()
	conn, err := g.Dial(t.Context(), port)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	if _, err := io.WriteString(conn, "ping"); err != nil {
		return ""
	}
	buf := make([]byte, 4)
	n, err := io.ReadFull(conn, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// testNoWayOut checks that the guest can't reach what listens on the host.
func testNoWayOut(t *testing.T, g *Guest) {
	for _, try := range []struct{ network, listen, guestSees string }{
		{"tcp", "127.0.0.1:0", "10.0.2.2"},
		{"udp", "127.0.0.1:0", "10.0.2.2"},
		{"tcp", "[::1]:0", "fec0::2"},
		{"udp", "[::1]:0", "fec0::2"},
	} {
		t.Run(try.network+" "+try.guestSees, func(t *testing.T) {
			port, reached := listen(t, try.network, try.listen)
			const script = `timeout 5 bash -c 'echo hello >"/dev/$0/$1/$2"' "$1" "$2" "$3"; :`
			output(t, g, "sh", "-c", script, "sh", try.network, try.guestSees, port)
			select {
			case <-reached:
				t.Error("the guest reached the host")
			case <-time.After(500 * time.Millisecond):
			}
		})
	}
	if routes := output(t, g, "sh", "-c", "cat /proc/net/route"); strings.Contains(routes, "\t00000000\t0202000A") {
		t.Errorf("the guest has a default route:\n%s", routes)
	}
}

// listen waits for a connection or a packet on a port of the host.
func listen(t *testing.T, network, address string) (port string, reached <-chan struct{}) {
	t.Helper()
	c := make(chan struct{})
	var at net.Addr
	if network == "tcp" {
		l, err := net.Listen(network, address)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		at = l.Addr()
		go func() {
			if conn, err := l.Accept(); err == nil {
				conn.Close()
				close(c)
			}
		}()
	} else {
		l, err := net.ListenPacket(network, address)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		at = l.LocalAddr()
		go func() {
			if _, _, err := l.ReadFrom(make([]byte, 16)); err == nil {
				close(c)
			}
		}()
	}
	_, port, err := net.SplitHostPort(at.String())
	must(t, err)
	return port, c
}

// testAgentRestarts checks that the agent can be killed under a command, and that what
// was half sent then is in no one's way.
func testAgentRestarts(t *testing.T, g *Guest) {
	const suicide = "kill -KILL $(systemctl show --property MainPID --value gild-agent.service); sleep 60"
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", suicide}, Stdin: &endless{left: 100 << 20}})
	if !errors.Is(err, errRestarted) {
		t.Errorf("Exec: %v, want that the agent was restarted", err)
	}
	for range 3 {
		var out bytes.Buffer
		must(t, g.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: strings.NewReader("again"), Stdout: &out}))
		if out.String() != "again" {
			t.Errorf("after a restart: %q", out.String())
		}
	}
	// Between two commands.
	session := g.agent.currentSession()
	output(t, g, "systemd-run", "--no-block", "sh", "-c", "sleep 1; systemctl kill --signal=KILL gild-agent.service")
	eventually(t, "another agent says hello", func() bool { return g.agent.currentSession() != session })
	if got := output(t, g, "echo", "again"); got != "again\n" {
		t.Errorf("after a restart between commands: %q", got)
	}
	if failed := output(t, g, "systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("failed units: %s", failed)
	}
}

// endless is input that looks like the host's own lines.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, strings.Repeat("in x 0\nexec y 1 z 1 0 none\n+true\n", len(p)/30+1))
	e.left -= n
	return n, nil
}

// testPanic ends the guest.
func testPanic(t *testing.T, g *Guest) {
	begin := time.Now()
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}})
	var fault *BootError
	if !errors.As(err, &fault) || fault.Reason != "the guest's kernel panicked" || !strings.Contains(fault.Console, "Kernel panic") {
		t.Errorf("Exec: %v, want that the kernel panicked", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %s to notice", took)
	}
	if err := g.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}); !errors.As(err, &fault) {
		t.Errorf("Exec in a guest that is gone: %v, want why", err)
	}
	if _, err := g.Dial(t.Context(), 80); !errors.As(err, &fault) {
		t.Errorf("Dial of a guest that is gone: %v, want why", err)
	}
	eventually(t, "QEMU ends", func() bool { return len(guests(t, "TestBIOS")) == 0 })
}

// TestUEFI boots the same disk with the other firmware, until it switches itself off.
func TestUEFI(t *testing.T) {
	t.Parallel()
	g := boot(t, "uefi")
	if got := output(t, g, "sh", "-c", "test -d /sys/firmware/efi && echo efi"); got != "efi\n" {
		t.Errorf("firmware: %q", got)
	}
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"systemctl", "poweroff", "--force", "--force"}})
	var fault *BootError
	if !errors.As(err, &fault) || fault.Reason != "the guest switched itself off" {
		t.Errorf("Exec: %v, want that the guest switched itself off", err)
	}
	must(t, g.Close())
	must(t, g.Close())
}

// TestEmergency boots a disk whose boot ends in emergency mode: it can be asked why.
func TestEmergency(t *testing.T) {
	t.Parallel()
	fstab := filepath.Join(t.TempDir(), "fstab")
	must(t, os.WriteFile(fstab, []byte("LABEL=nowhere /data ext4 x-systemd.device-timeout=1s 0 2\n"), 0o600))
	g := bootDisk(t, changedDisk(t, "rm /etc/fstab", "cd /etc", "write "+fstab+" fstab"), "bios")
	eventually(t, "the console speaks of emergency mode", func() bool { return strings.Contains(g.Console(), "emergency mode") })
	time.Sleep(2 * faultDelay)
	var state bytes.Buffer
	err := g.Exec(t.Context(), step.Cmd{Argv: []string{"systemctl", "is-system-running", "--wait"}, Stdout: &state})
	var exit *step.ExitError
	if !errors.As(err, &exit) || state.String() != "maintenance\n" {
		t.Errorf("state %q, %v, want maintenance", state.String(), err)
	}
	if got := output(t, g, "systemctl", "is-active", "emergency.target"); got != "active\n" {
		t.Errorf("emergency.target is %q", got)
	}
}

func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	data := make([]byte, n)
	_, _ = r.Read(data)
	return data
}
