package e2e_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// grep looks for text in all that a build leaves: logs, journal, layers, disks.
func (s *site) grep(text string) (string, error) {
	out, err := exec.Command("grep", "-rlaF", "--", text, s.state, filepath.Join(s.project, "events.jsonl")).CombinedOutput()
	return string(out), err
}

// shellPipeline has one shell step on the template's base.
func (s *site) shellPipeline(script, more string) {
	s.t.Helper()
	s.write("run.sh", "#!/bin/sh\nset -eu\n"+script+"\n")
	s.write("shell.yaml", `gild: 1
name: shell
release: 1.0.0
base: debian/12
builders: {local: {disk: {size: 1GiB}, formats: [raw], firmware: [bios]}}
customize:
  - id: it
    uses: shell
    with: {run: ./run.sh}
`+more)
}

// TestStepsThatMisbehave: each must end in a clear error, leave nothing behind, and
// leave what was finished before.
func TestStepsThatMisbehave(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, script, more string
		wants              []string
	}{
		{"exit status", "echo before it fails >&2; exit 7", "", []string{"before it fails", "exit status 7", "shell.yaml:7", "gild resume"}},
		{"never ends", "sleep 3600 & sleep 3600", "    timeout: 2s\n", []string{"timed out after 2s"}},
		{"1 GB of output", "yes 0123456789012345678901234567890123456789 | head -c 1000000000", "", []string{"128 MiB"}},
		{"no network", "exec 3<>/dev/null; getent hosts example.org || { echo 'Could not resolve host' >&2; exit 6; }", "", []string{"network: true"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.shellPipeline(c.script, c.more)
			out := s.gild("build", "shell.yaml")
			if out.code != 1 {
				t.Errorf("it ended with %d", out.code)
			}
			contains(t, "the failure", out.stderr, c.wants...)
			s.noDebris("after the failure")
			if ran := s.build("small.yaml").ran(); len(ran) > 0 {
				t.Errorf("the failure lost what was finished: %v ran again", ran)
			}
		})
	}
}

// TestImageThatDoesNotBoot: its test fails, like any other test, and says what was seen.
func TestImageThatDoesNotBoot(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shellPipeline(`rm /sbin/init
printf '#!/bin/sh\necho init has had enough\nexit 1\n' > /sbin/init
chmod +x /sbin/init`, `tests:
  - uses: boot
publish: {name: shell}
`)
	out := s.gild("build", "shell.yaml")
	if out.code != 3 {
		t.Errorf("it ended with %d", out.code)
	}
	contains(t, "the failure", out.stderr, "Attempted to kill init", "shell-console-bios")
	if images := s.ok("images").stdout; strings.Contains(images, "shell") {
		t.Errorf("the image was published:\n%s", images)
	}
	s.noDebris("after the failure")
}

// TestBackgroundProcessesEnd: what a step leaves running ends with the step.
func TestBackgroundProcessesEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shellPipeline("setsid sleep 98765 >/dev/null 2>&1 & echo started", "")
	began := time.Now()
	s.ok("build", "shell.yaml", "--until", "it")
	if d := time.Since(began); d > time.Minute {
		t.Errorf("the build waited %s for a process in the background", d)
	}
	if out, err := exec.Command("pgrep", "-f", "sleep 98765").Output(); err == nil {
		t.Errorf("it is still running: %s", out)
	}
}

// TestMissingMirror names a mirror that isn't there.
func TestMissingMirror(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit("small.yaml", "base: debian/12", "base: {debian: {suite: bookworm, mirror: \"http://127.0.0.1:9/debian\"}}")
	out := s.gild("build", "small.yaml")
	if out.code != 2 {
		t.Errorf("it ended with %d", out.code)
	}
	contains(t, "the diagnostic", out.stderr, "small.yaml:8:", "127.0.0.1:9")
	s.noDebris("after the failure")
}

// TestWrongChecksum downloads a file that isn't what the pipeline says.
func TestWrongChecksum(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "other bytes") }))
	defer server.Close()
	s := newSite(t)
	want := strings.Repeat("0", 64)
	s.write("get.yaml", `gild: 1
name: get
release: 1.0.0
base: debian/12
customize:
  - uses: download
    with: {url: "`+server.URL+`/x", sha256: "`+want+`", to: /opt/x, allow-private: true}
`)
	out := s.gild("build", "get.yaml", "--until", "download")
	if out.code != 1 {
		t.Errorf("it ended with %d", out.code)
	}
	contains(t, "the failure", out.stderr, want, "a3ead5eedad5df82318c51685dbc1c147a36d1ff8584fc82de6b08d0bf63a795")
}

// TestCorruptJournal flips bytes in the middle of the database.
func TestCorruptJournal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	db := filepath.Join(s.state, "gild.db")
	text, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096; i < len(text); i += 64 {
		text[i] ^= 0xff
	}
	if err := os.WriteFile(db, text, 0o644); err != nil {
		t.Fatal(err)
	}
	s.must("rm", "-f", db+"-wal", db+"-shm")
	out := s.gild("build", "small.yaml")
	if out.code == 0 || out.code == -1 {
		t.Errorf("it ended with %d", out.code)
	}
	contains(t, "the error", out.stderr, "damaged")
	if strings.Contains(out.stderr, "goroutine") {
		t.Errorf("it panicked:\n%s", out.stderr)
	}
	// What was finished isn't lost: a new database finds the layers and the image.
	s.must("mv", db, db+".damaged")
	ran := s.build("small.yaml", "--only", "files").ran()
	if len(ran) > 0 {
		t.Errorf("with a new database these ran again: %v", ran)
	}
}

// TestReadOnlyState runs on a state folder that can't be written.
func TestReadOnlyState(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	// Root may write whatever the mode says, so the folder is mounted read-only, in a
	// mount namespace that only the child has.
	script := `mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" --state "$1" build small.yaml`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "-", s.state, gild)
	cmd.Dir = s.project
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("it built on a read-only state folder:\n%s", out)
	}
	contains(t, "the error", string(out), "can't be written", "--state")
}

// TestFullDisk builds on a file system with too little room for what a step writes.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.must("sh", "-c", `rm -rf "$1"/images/* "$1"/regions/*`, "-", s.state)
	s.shellPipeline("dd if=/dev/zero of=/opt/big bs=1M count=900", "")
	script := `mount --make-rprivate / && mount -t tmpfs -o size=900m none "$3" && cp -a "$1"/. "$3" &&
"$2" --state "$3" build shell.yaml; code=$?
"$2" --state "$3" gc --json; ls -A "$3/tmp"
"$2" --state "$3" build small.yaml --until seal || code=99
exit $code`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "-", s.state, gild, t.TempDir())
	cmd.Dir = s.project
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v, %d:\n%s", err, cmd.ProcessState.ExitCode(), lastLines(out, 40))
	}
	contains(t, "the failure", string(out), "No space left on device")
}

// TestInterrupt sends the signal of Ctrl-C: the build stops cleanly and can be resumed.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shellPipeline("echo working; sleep 6001", "")
	cmd := s.command("build", "shell.yaml")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.waitFor("sleep 6001")
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %d, %v", cmd.ProcessState.ExitCode(), err)
	}
	contains(t, "what it said", stderr.String(), "gild resume")
	s.noDebris("after Ctrl-C")
	s.write("run.sh", "#!/bin/sh\necho done > /opt/done\n")
	s.ok("resume", s.lastRun())
	s.noDebris("after resume")
}

// TestSecondInterrupt sends it twice: gild ends at once, and gc removes what it left.
func TestSecondInterrupt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.shellPipeline("trap '' TERM INT; sleep 6002", "")
	cmd := s.command("build", "shell.yaml")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.waitFor("sleep 6002")
	for range 2 {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			break // it ended at the first one, which is quick enough
		}
		time.Sleep(time.Millisecond)
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("it ended with %d", cmd.ProcessState.ExitCode())
	}
	s.settled()
	s.ok("gc")
	s.noDebris("after gc")
}

// waitFor waits until a process with these arguments has been started.
func (s *site) waitFor(args string) {
	s.t.Helper()
	for range 600 {
		if exec.Command("pgrep", "-f", "^"+args).Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatalf("no process %q was started within 30 s", args)
}
