// Package e2e_test uses gild as its users do: the built program, real archives, real
// disks, real boots, and SIGKILL.
package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
)

// The programs under test, and a state folder in which testdata/small.yaml has been
// built and booted. Tests copy it, so that each starts from a base that is there.
var (
	gild      string
	crashGild string
	template  string
)

// TestMain also is the helper that the local builder starts for engines in this process.
func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gild-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer exec.Command("rm", "-rf", dir).Run()
	gild, crashGild, template = filepath.Join(dir, "gild"), filepath.Join(dir, "gild-crash"), filepath.Join(dir, "template")
	for _, args := range [][]string{
		{"go", "build", "-o", gild, "github.com/gildhq/gild/cmd/gild"},
		{"go", "build", "-tags", "crashtest", "-o", crashGild, "github.com/gildhq/gild/cmd/gild"},
		{"cp", "-r", "testdata/project", template + "-project"},
		{gild, "--state", template, "build", template + "-project/small.yaml"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n%s", strings.Join(args, " "), err, lastLines(out, 60))
			return 1
		}
	}
	return m.Run()
}

func lastLines(out []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// site is a state folder and a project of one test.
type site struct {
	t              testing.TB
	state, project string
	program        string
	env            []string
	credential     *syscall.Credential // nil for the caller's own
}

// newSite copies the template. Layers never change, so their files are linked.
func newSite(t testing.TB) *site {
	t.Helper()
	s := emptySite(t)
	s.must("cp", "-al", template, s.state)
	for _, name := range []string{"gild.db", "gild.db-wal", "gild.db-shm"} {
		if _, err := os.Stat(filepath.Join(template, name)); err != nil {
			continue
		}
		s.must("cp", "--remove-destination", filepath.Join(template, name), filepath.Join(s.state, name))
	}
	return s
}

// emptySite has the template's project, with its lock, and nothing built.
func emptySite(t testing.TB) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "gild-site-")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, state: filepath.Join(dir, "state"), project: filepath.Join(dir, "project"), program: gild}
	t.Cleanup(func() { s.must("rm", "-rf", dir) })
	s.must("cp", "-r", template+"-project", s.project)
	return s
}

func (s *site) must(args ...string) {
	s.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// command is gild in the project's folder, with the site's state.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.program, append([]string{"--state", s.state}, args...)...)
	cmd.Dir = s.project
	cmd.Env = append(os.Environ(), s.env...)
	if s.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
	}
	return cmd
}

type outcome struct {
	stdout, stderr string
	code           int
}

// gild runs a command and returns how it ended; a death by signal has the code -1.
func (s *site) gild(args ...string) outcome {
	s.t.Helper()
	cmd := s.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("run gild: %v", err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed.
func (s *site) ok(args ...string) outcome {
	s.t.Helper()
	out := s.gild(args...)
	if out.code != 0 {
		s.t.Fatalf("gild %s: exit status %d\n%s\n%s", strings.Join(args, " "), out.code, out.stdout, lastLines([]byte(out.stderr), 60))
	}
	return out
}

// report is the part of `gild build --json` that the tests read.
type report struct {
	Run   string
	State string
	Nodes []struct {
		ID, State, Reason string
		ElapsedMS         int64 `json:"elapsed_ms"`
	}
	Images []struct {
		Name  string
		Built bool
		Files []struct{ Format, Path, SHA256 string }
	}
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
	return v
}

// build builds and returns the report.
func (s *site) build(args ...string) report {
	s.t.Helper()
	return decode[report](s.t, s.ok(append([]string{"build", "--json"}, args...)...).stdout)
}

// ran lists the nodes that did work, without the pipeline's name.
func (r report) ran() []string {
	var ids []string
	for _, n := range r.Nodes {
		if n.State == "done" {
			ids = append(ids, n.ID[strings.LastIndex(n.ID, "/")+1:])
		}
	}
	return ids
}

// digest returns the SHA-256 of the first image's raw disk.
func (r report) digest(t *testing.T) string {
	t.Helper()
	for _, f := range r.Images[0].Files {
		if f.Format == "raw" {
			return f.SHA256
		}
	}
	t.Fatalf("the report has no raw disk: %+v", r)
	return ""
}

// noDebris fails when anything is left that a build should have removed.
func (s *site) noDebris(when string) {
	s.t.Helper()
	if left, err := filepath.Glob(filepath.Join(s.state, "tmp", "*")); err != nil || len(left) > 0 {
		s.t.Errorf("%s: temporary folders are left: %v, %v", when, left, err)
	}
	if p := s.processes(); len(p) > 0 {
		s.t.Errorf("%s: processes are left: %v", when, p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.state) {
		s.t.Errorf("%s: something is mounted from the state folder", when)
	}
}

// processes lists processes that have the state folder among their arguments or as
// their working folder, this test's own children included.
func (s *site) processes() []string {
	var found []string
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range pids {
		cmdline, err := os.ReadFile(p + "/cmdline")
		if err != nil {
			continue // it has ended
		}
		cwd, err := os.Readlink(p + "/cwd")
		if err == nil && strings.HasPrefix(cwd, s.state) || bytes.Contains(cmdline, []byte(s.state)) {
			found = append(found, p+": "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// settled waits until the killed gild's sandboxes have ended too: the kernel ends them
// when their pipe to gild closes, which is soon and not at once.
func (s *site) settled() {
	s.t.Helper()
	for range 100 {
		if len(s.processes()) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("2 s after gild was killed these processes are still there: %v", s.processes())
}

// lastRun returns the id of the newest run, or "".
func (s *site) lastRun() string {
	s.t.Helper()
	runs := decode[[]struct{ ID string }](s.t, s.ok("runs", "--json").stdout)
	if len(runs) == 0 {
		return ""
	}
	return runs[0].ID
}

// edit replaces text in a file of the project.
func (s *site) edit(name, old, with string) {
	s.t.Helper()
	path := filepath.Join(s.project, name)
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		s.t.Fatalf("%s has no %q", name, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, with, 1)), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// write makes a file of the project.
func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.project, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func contains(t *testing.T, what, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", what, want, lastLines([]byte(text), 50))
		}
	}
}

// forget removes what the template's build made, but not the base: what crash tests
// build anew each time.
func (s *site) forget() {
	s.t.Helper()
	plan := decode[struct {
		Nodes []struct{ Kind, Key string }
	}](s.t, s.ok("plan", "--json", "small.yaml").stdout)
	for _, n := range plan.Nodes {
		if slices.Contains([]string{"step", "seal"}, n.Kind) {
			s.must("rm", "-rf", filepath.Join(s.state, "layers", n.Key))
		}
	}
	s.must("sh", "-c", `rm -rf "$1"/images/* "$1"/regions/*`, "-", s.state)
}
