// Package python_test runs the Python plugin through plugins/host, as gild runs it.
package python_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/host"
	"github.com/gildhq/gild/plugins/proto/pluginv1"
	"github.com/gildhq/gild/plugins/store"
	"github.com/gildhq/gild/steps/steptest"
)

func TestMain(m *testing.M) { steptest.Main(m) }

// build makes the plugin's folder.
func build(t *testing.T) string {
	t.Helper()
	for module, pkg := range map[string]string{"grpc": "python3-grpcio", "google.protobuf": "python3-protobuf", "cryptography": "python3-cryptography"} {
		if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import "+module).CombinedOutput(); err != nil {
			t.Fatalf("this test needs %s: apt-get install %s\n%s", module, pkg, out)
		}
	}
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "./build", dir).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// plugin is the installed plugin and its only step.
type plugin struct {
	*host.Host
	content store.Content
	step    step.Step
	state   string
}

func install(t *testing.T, tls string) *plugin {
	t.Helper()
	dir := build(t)
	manifest, err := os.OpenFile(filepath.Join(dir, "plugin.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(manifest, "tls: "+tls+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := manifest.Close(); err != nil {
		t.Fatal(err)
	}
	p, log := &plugin{state: t.TempDir()}, &steptest.Log{}
	s, err := store.Open(filepath.Join(p.state, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if p.content, err = s.Add(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if p.Host, err = host.New(host.Config{Dir: filepath.Join(p.state, "host"), Store: s, Version: "0.0.0", Grace: 5 * time.Second, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if left := processes(t, p.state); len(left) > 0 {
			t.Errorf("processes %q are left", left)
		}
		if t.Failed() {
			t.Logf("the plugin's log:\n%s", log)
		}
	})
	steps, err := p.Steps(t.Context(), p.content)
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 1 {
		t.Fatalf("the plugin has %d steps", len(steps))
	}
	p.step = steps[0]
	return p
}

// processes lists those whose command line has text in it.
func processes(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		// One that ends meanwhile is none.
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(text)) {
			found = append(found, f)
		}
	}
	return found
}

// claims records what a step claims and settles.
type claims struct {
	mu   sync.Mutex
	list []string
}

func (c *claims) claim(_ context.Context, r step.Resource) (func(context.Context) error, error) {
	c.add(fmt.Sprintf("claim %s %s: %s", r.Kind, filepath.Base(r.ID), r.Note))
	return func(context.Context) error {
		c.add("settle " + filepath.Base(r.ID))
		return nil
	}, nil
}

func (c *claims) add(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, line)
}

// TestPlugin has all of it done with and without TLS.
func TestPlugin(t *testing.T) {
	t.Parallel()
	for _, tls := range []string{"auto", "none"} {
		t.Run(tls, func(t *testing.T) {
			t.Parallel()
			p := install(t, tls)
			t.Run("describe", p.testDescribe)
			t.Run("validate", p.testValidate)
			t.Run("run", p.testRun)
			t.Run("guest", p.testGuest)
			t.Run("fail", p.testFail)
			t.Run("cancel", p.testCancel)
			t.Run("side by side", p.testSideBySide)
			t.Run("cleanup", p.testCleanup)
		})
	}
}

func (p *plugin) testDescribe(t *testing.T) {
	if p.step.Name != "gild/leaks" || p.step.Summary == "" || !strings.Contains(p.step.Doc, "uses: gild/leaks") || !p.step.Cacheable || p.step.KeyParts != nil {
		t.Errorf("the step is %+v", p.step)
	}
	if d := cmp.Diff([]step.Section{step.Tests}, p.step.Sections); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func (p *plugin) testValidate(t *testing.T) {
	got, err := p.step.Validate(t.Context(), []byte(`{"except":["/ok","*.key"],"report":"here.json"}`))
	want := []step.Problem{
		{Pointer: "/except/1", Message: "'*.key' matches no path", Hint: "paths of the machine begin with /"},
		{Pointer: "/report", Message: "'here.json' is not an absolute path", Hint: "a plugin doesn't know which folder it would be relative to"},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
}

// leaky leaves on a machine what no image should have.
const leaky = `
mkdir -p /root/.ssh /home/me/.aws /etc/ssh /srv/app
echo key >/root/.ssh/authorized_keys
: >/root/.bash_history
echo ls >/home/me/.zsh_history
echo x >/home/me/.aws/credentials
printf -- '-----BEGIN OPENSSH PRIVATE KEY-----\n' | tee /etc/ssh/ssh_host_rsa_key >'/srv/app/my
key'`

func (p *plugin) testRun(t *testing.T) {
	target, record := steptest.NewTarget(steptest.New(t, steptest.Tree(t))), &claims{}
	target.Claim = record.claim
	var progress []string
	target.Progress = func(done, total int64, unit string) {
		progress = append(progress, fmt.Sprint(done, "/", total, " ", unit))
	}
	out, err := target.Run(t.Context(), p.step, `{}`)
	if d := cmp.Diff(step.Outputs{"files": 0.0}, out); d != "" || err != nil {
		t.Fatalf("a clean machine: %v (-want +got)\n%s", err, d)
	}
	if target.Log.String() != "0 files found\n" || len(progress) != 5 || progress[4] != "4/5 searches" {
		t.Errorf("log %q, progress %q", target.Log, progress)
	}
	target.Sh(t, leaky)
	report := filepath.Join(t.TempDir(), "report.json")
	_, err = target.Run(t.Context(), p.step, `{"except":["/root/.ssh/*"],"report":"`+report+`"}`)
	want := []string{
		"host key: /etc/ssh/ssh_host_rsa_key",
		"credentials: /home/me/.aws/credentials",
		"history of a shell: /home/me/.zsh_history",
		"private key: /srv/app/my\nkey",
	}
	if d := cmp.Diff(want, steptest.FailedChecks(t, err)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if text, err := os.ReadFile(report); err != nil || !bytes.Contains(text, []byte(`"path": "/home/me/.zsh_history"`)) {
		t.Errorf("the report is %s, %v", text, err)
	}
	if d := cmp.Diff([]string{"claim file report.json.part: an unfinished report", "settle report.json.part"}, record.list); d != "" {
		t.Errorf("claims (-want +got)\n%s", d)
	}
}

// testGuest looks at a guest, where what is newer than its start isn't the image's.
func (p *plugin) testGuest(t *testing.T) {
	machine := steptest.New(t, steptest.Tree(t))
	target := steptest.NewTarget(machine)
	target.Sh(t, leaky)
	for _, tc := range []struct {
		started time.Time
		want    int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), 5}} {
		target.Machine = &steptest.Guest{MachineHandle: machine, Started: tc.started}
		_, err := target.Run(t.Context(), p.step, `{}`)
		var failed *step.TestFailed
		if errors.As(err, &failed); tc.want == 0 && err != nil || tc.want > 0 && (failed == nil || len(failed.Checks) != tc.want) {
			t.Errorf("started %v: got %v, want %d files", tc.started, err, tc.want)
		}
	}
}

// broken is a machine without commands.
type broken struct{ step.MachineHandle }

func (broken) Exec(context.Context, step.Cmd) error { return errors.New("the disk is full") }

// testFail has the machine, and then the host, fail.
func (p *plugin) testFail(t *testing.T) {
	_, err := steptest.NewTarget(broken{}).Run(t.Context(), p.step, `{}`)
	steptest.WantError(t, err, "the disk is full")
	target := steptest.NewTarget(steptest.New(t, steptest.Tree(t)))
	target.Claim = (&claims{}).claim
	_, err = target.Run(t.Context(), p.step, `{"report":"/no/such/folder/report"}`)
	steptest.WantError(t, err, "FileNotFoundError", "/no/such/folder/report.part")
}

// stuck is a machine whose commands end only when they are cancelled.
type stuck struct {
	step.MachineHandle
	running, ended chan struct{}
}

func (s *stuck) Exec(ctx context.Context, _ step.Cmd) error {
	close(s.running)
	<-ctx.Done()
	close(s.ended)
	return context.Cause(ctx)
}

func (p *plugin) testCancel(t *testing.T) {
	machine := &stuck{running: make(chan struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	before := processes(t, p.state)
	go func() {
		_, err := steptest.NewTarget(machine).Run(ctx, p.step, `{}`)
		done <- err
	}()
	<-machine.running
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	<-machine.ended
	// One that listens to Cancel goes on serving.
	if after := processes(t, p.state); !slices.Equal(before, after) || len(after) != 1 {
		t.Errorf("processes %q, before it %q", after, before)
	}
}

func (p *plugin) testSideBySide(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err := steptest.NewTarget(broken{}).Run(t.Context(), p.step, `{}`)
			steptest.WantError(t, err, "the disk is full")
		})
	}
	wg.Wait()
}

func (p *plugin) testCleanup(t *testing.T) {
	part := filepath.Join(t.TempDir(), "report.part")
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Cleanup(t.Context(), p.content, step.Resource{Kind: "file", ID: part}); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	err := p.Cleanup(t.Context(), p.content, step.Resource{Kind: "moon", ID: "x"})
	steptest.WantError(t, err, "this plugin makes no moon")
}

// TestConformance holds the plugin against the contract, and its own fixtures.
func TestConformance(t *testing.T) {
	t.Parallel()
	report, err := conformance.Check(t.Context(), conformance.Options{Path: build(t), Fixtures: conformance.FixturesName, Version: "0.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Error(report.Text())
	}
}

// TestOrphan starts the plugin as one whose gild is gone: it ends by itself.
func TestOrphan(t *testing.T) {
	t.Parallel()
	dir := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "gild-plugin-leaks"))
	cmd.Env = []string{pluginv1.CookieKey + "=" + pluginv1.CookieValue, "PLUGIN_UNIX_SOCKET_DIR=" + t.TempDir(), pluginv1.ParentEnv + "=1"}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.HasPrefix(out, []byte("1|1|unix|")) {
		t.Errorf("it said %q and ended with %v, want status 1", out, err)
	}
}

// TestByHand starts the plugin as a user might.
func TestByHand(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), filepath.Join(build(t), "gild-plugin-leaks"))
	out, err := cmd.CombinedOutput()
	if err == nil || string(out) != "gild/leaks is a plugin of gild, which starts it when a pipeline uses it.\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
