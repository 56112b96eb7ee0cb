package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/sdk"
	"github.com/gildhq/gild/plugins/sdk/sdktest"
	"github.com/gildhq/gild/steps/steptest"
)

// The tests' program is the connection's helper too, as the plugin's is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == helperArg {
		os.Exit(connect())
	}
	sdktest.Main(m, plugin())
}

// newTarget returns a machine with python3 and an input "./play" with the files given.
func newTarget(t *testing.T, files map[string]string) sdktest.Target {
	t.Helper()
	return sdktest.Target{Machine: sdktest.Local(t, "python3"), Inputs: map[string]string{"./play": folderOf(t, files)}}
}

func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// one is a playbook of one play on all hosts, with the tasks given as YAML.
func one(tasks string) map[string]string {
	return map[string]string{"site.yml": "- hosts: all\n  gather_facts: false\n  tasks:\n" + tasks}
}

// sh runs a shell command on the target's machine and returns what it printed, trimmed.
func sh(t *testing.T, target sdktest.Target, command string) string {
	t.Helper()
	var out bytes.Buffer
	if err := target.Machine.Exec(t.Context(), sdk.Cmd{Argv: []string{"/bin/sh", "-eu", "-c", command}, Stdout: &out, Stderr: t.Output()}); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(out.String())
}

// must runs the step, which has to succeed.
func must(t *testing.T, target sdktest.Target, s sdk.Step, config string) sdktest.Result {
	t.Helper()
	res := target.Run(t, s, config)
	if res.Err != nil {
		t.Fatalf("%v\n%s", res.Err, res.Log)
	}
	return res
}

// wantError fails the test unless err says all of the parts.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q doesn't say %q", err, part)
		}
	}
}

// pluginFolder makes the plugin's folder, with the tests' program as the plugin's.
func pluginFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{self: "gild-plugin-ansible", "plugin.yaml": "plugin.yaml"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAppliesAPlaybook runs the step as gild does, in a process of its own.
func TestAppliesAPlaybook(t *testing.T) {
	t.Parallel()
	step := sdktest.Installed(t, pluginFolder(t))["gild/ansible"]
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/web")); err != nil {
		t.Fatal(err)
	}
	var blob []byte
	for i := range 300 {
		blob = append(blob, byte(i))
	}
	if err := os.Mkdir(filepath.Join(dir, "roles/site/files"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "roles/site/files/blob"), blob, 0o644); err != nil {
		t.Fatal(err)
	}
	target := sdktest.Target{
		Machine: sdktest.Local(t, "python3"),
		Inputs:  map[string]string{"./web": dir},
		Env:     map[string]string{"SITE_PASSWORD": "hunter2"},
	}
	config := `
playbook: ./web
groups: [web]
skip-tags: [never-here]
vars: {site_name: "an odd 'name'", workers: [a, b], fail_once: %t}
`
	res := must(t, target, step, fmt.Sprintf(config, true))
	// Template, file, line, account and handler changed something.
	if d := cmp.Diff(sdk.Outputs{"ok": 10.0, "changed": 5.0, "skipped": 0.0}, res.Outputs); d != "" {
		t.Errorf("outputs (-want +got)\n%s\n%s", d, res.Log)
	}
	want := "name = an odd 'name'\nworkers = a b\npassword = hunter2"
	if got := sh(t, target, "cat /etc/site.conf"); got != want {
		t.Errorf("the template became %q, want %q", got, want)
	}
	if got := sh(t, target, "stat -c '%U %a' /etc/site.blob /etc/site.conf; id -u site; cat /var/log/reloads"); got != "games 604\nroot 640\n4321\nreload" {
		t.Errorf("the machine is %q", got)
	}
	var back bytes.Buffer
	if err := target.Machine.Get(t.Context(), "/etc/site.blob", &back); err != nil || !bytes.Equal(back.Bytes(), blob) {
		t.Errorf("the blob arrived as %d bytes, %v", back.Len(), err)
	}
	if got := sh(t, target, "ls -d /skipped-by-tag /root/.ansible /tmp/.gild-ansible 2>/dev/null || true"); got != "" {
		t.Errorf("on the machine is %s", got)
	}
	again := must(t, target, step, fmt.Sprintf(config, false))
	if d := cmp.Diff(0.0, again.Outputs["changed"]); d != "" {
		t.Errorf("the second run changed something (-want +got)\n%s", d)
	}
}

func TestSingleFileAndTags(t *testing.T) {
	t.Parallel()
	target := newTarget(t, nil)
	dir := folderOf(t, one("    - {copy: {content: hello, dest: /etc/motd}, tags: [a]}\n    - {copy: {content: x, dest: /etc/other}}\n"))
	target.Inputs["./motd.yml"] = filepath.Join(dir, "site.yml")
	res := must(t, target, playbookStep(), "{playbook: ./motd.yml, tags: [a]}")
	if got := sh(t, target, "cat /etc/motd; ls /etc/other 2>/dev/null || true"); got != "hello" {
		t.Errorf("the machine is %q", got)
	}
	if d := cmp.Diff(sdktest.Progress{Done: 1, Unit: "tasks"}, res.Progress); d != "" {
		t.Errorf("progress (-want +got)\n%s", d)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		files     map[string]string
		config    string
		env       map[string]string
		want      []string
		permanent bool
	}{
		"command": {files: one("    - name: say no\n      shell: echo why >&2; exit 3\n"), want: []string{`task "say no" (site.yml:4): non-zero return code: why`}},
		"loop":    {files: one("    - name: each\n      shell: test {{ item }} != two\n      loop: [one, two]\n"), want: []string{`task "each"`, "two: non-zero"}},
		"hidden":  {files: one("    - name: secret\n      shell: echo hunter2 >&2; exit 1\n      no_log: true\n"), want: []string{`task "secret" (site.yml:4): the output is hidden by no_log`}},
		"after a rescue": {
			files: one("    - block: [{name: first, command: 'false'}]\n      rescue: [{debug: {msg: x}}]\n    - {name: second, fail: {msg: broken}}\n"),
			want:  []string{`task "second" (site.yml:6): broken`},
		},
		"localhost":    {files: one("    - {name: outside, command: id, delegate_to: localhost}\n"), want: []string{"gild runs no task on localhost"}},
		"local play":   {files: map[string]string{"site.yml": "- hosts: localhost\n  gather_facts: false\n  tasks: [{command: id}]\n"}, want: []string{"gild runs no task on localhost"}},
		"syntax":       {files: one("    - {nosuchmodule: {}}\n"), want: []string{"ansible-playbook site.yml: exit status 4", "couldn't resolve module/action 'nosuchmodule'"}, permanent: true},
		"no hosts":     {files: map[string]string{"site.yml": "- hosts: db\n  tasks: []\n"}, want: []string{"no play of site.yml ran: say hosts: all"}, permanent: true},
		"no main":      {files: map[string]string{"play.yml": ""}, want: []string{"./play has no file site.yml; name the playbook with main"}, permanent: true},
		"main outside": {files: one(""), config: "main: ../../etc/passwd", want: []string{"is no path in the folder"}, permanent: true},
		"env":          {files: one(""), env: map[string]string{"ANSIBLE_CONFIG": "/x"}, want: []string{"env has ANSIBLE_CONFIG"}, permanent: true},
		"no network":   {files: one("    - {name: fetch, get_url: {url: 'http://192.0.2.1/x', dest: /x, timeout: 5}}\n"), want: []string{`task "fetch"`, "Network is unreachable"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t, tc.files)
			target.Env = tc.env
			res := target.Run(t, playbookStep(), "playbook: ./play\n"+tc.config)
			wantError(t, res.Err, tc.want...)
			var permanent *sdk.Permanent
			if errors.As(res.Err, &permanent) != tc.permanent {
				t.Errorf("permanent is %t: %v", !tc.permanent, res.Err)
			}
			if strings.Contains(res.Err.Error()+res.Log, "hunter2") {
				t.Errorf("what no_log hides shows: %v\n%s", res.Err, res.Log)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tasks := fmt.Sprintf("    - {name: reach, wait_for: {host: 127.0.0.1, port: %d, timeout: 2}}\n", l.Addr().(*net.TCPAddr).Port)
	target := newTarget(t, one(tasks))
	if res := target.Run(t, playbookStep(), "playbook: ./play"); res.Err == nil {
		t.Error("a task without network reached the host")
	}
	must(t, target, playbookStep(), "{playbook: ./play, network: true}")
}

func TestNoPython(t *testing.T) {
	t.Parallel()
	target := sdktest.Target{Machine: sdktest.Local(t), Inputs: map[string]string{
		"./raw":  folderOf(t, one("    - raw: echo raw >/etc/raw\n")),
		"./play": folderOf(t, one("    - copy: {content: x, dest: /etc/cooked}\n    - apt: {name: bash}\n")),
	}}
	res := target.Run(t, playbookStep(), "playbook: ./play")
	wantError(t, res.Err, "the machine has no python3", "set python: install")
	var permanent *sdk.Permanent
	if !errors.As(res.Err, &permanent) {
		t.Errorf("%v is tried again", res.Err)
	}
	must(t, target, playbookStep(), "{playbook: ./raw, python: none}")
	must(t, target, playbookStep(), "{playbook: ./play, python: install}")
	if got := sh(t, target, "cat /etc/raw /etc/cooked"); got != "raw\nx" {
		t.Errorf("the tasks wrote %q", got)
	}
}

func TestVault(t *testing.T) {
	t.Parallel()
	target := newTarget(t, map[string]string{
		"site.yml":           one("    - copy: {content: '{{ word }}', dest: /etc/word}\n")["site.yml"],
		"group_vars/all.yml": vaulted,
	})
	wantError(t, target.Run(t, playbookStep(), "playbook: ./play").Err, "no vault secrets")
	target.Env = map[string]string{vaultVar: "vault"}
	must(t, target, playbookStep(), "playbook: ./play")
	if got := sh(t, target, "cat /etc/word"); got != "swordfish" {
		t.Errorf("the word is %q", got)
	}
}

// TestSeesNothingOfTheHost looks at what a playbook finds in the environment of its lookups.
func TestSeesNothingOfTheHost(t *testing.T) {
	target := newTarget(t, one("    - copy: {content: \"{{ lookup('pipe', 'env; ls -A ~') }}\", dest: /etc/host}\n"))
	t.Setenv("HOST_SECRET", "hunter2")
	t.Setenv("ANSIBLE_STDOUT_CALLBACK", "nosuch")
	t.Setenv("ANSIBLE_CONFIG", "/nosuch")
	target.Env = map[string]string{"GIVEN": "yes"}
	must(t, target, playbookStep(), "playbook: ./play")
	got := sh(t, target, "cat /etc/host")
	if strings.Contains(got, "hunter2") || !strings.Contains(got, "GIVEN=yes") {
		t.Errorf("a lookup sees\n%s", got)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	target := newTarget(t, one("    - {name: long, shell: 'touch /etc/begun; sleep 600'}\n"))
	mark := filepath.Base(t.TempDir()) + t.Name()
	target.Env = map[string]string{"MARK": mark}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped by the test")
	done := make(chan error, 1)
	go func() {
		done <- target.RunContext(ctx, t, playbookStep(), "playbook: ./play").Err
	}()
	// The task is running when its helper is.
	await(t, func() bool { return len(withMark(t, mark, "connect")) > 0 })
	cancel(stopped)
	select {
	case err := <-done:
		if !errors.Is(err, stopped) {
			t.Errorf("the step ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the step goes on")
	}
	await(t, func() bool { return len(withMark(t, mark, "")) == 0 })
}

func await(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for a minute")
		}
	}
}

// withMark lists processes that have the mark in their environment and the last argument.
func withMark(t *testing.T, mark, arg string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		// A process that has ended has no environment any more.
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, []byte("MARK="+mark)) {
			continue
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err == nil && bytes.HasSuffix(args, []byte(arg+"\x00")) {
			found = append(found, string(args))
		}
	}
	return found
}

func TestKeyParts(t *testing.T) {
	t.Parallel()
	parts, err := playbookStep().KeyParts(t.Context(), json.RawMessage(`{"playbook": "x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^2\.\d+\.\d+$`).MatchString(parts["ansible"]) {
		t.Errorf("the key's parts are %v", parts)
	}
}

func TestCopyKeepsInside(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]bool{"site.yml": true, "roles/../site.yml": true, "../x": false, "/etc/passwd": false, "roles/../../x": false} {
		from := t.TempDir()
		if err := os.WriteFile(filepath.Join(from, "site.yml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(from, "link")); err != nil {
			t.Fatal(err)
		}
		err := copyInput(steptest.Folder(from), t.TempDir(), "site.yml")
		if (err == nil) != want {
			t.Errorf("a link to %s: %v", target, err)
		}
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	report, err := conformance.Check(t.Context(), conformance.Options{Path: pluginFolder(t), Fixtures: conformance.FixturesName})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range report.Checks {
		// It has no Validate, and claims nothing.
		skipped := c.Status == conformance.Skipped && c.Name != "validate" && c.Name != "cleanup"
		if c.Status == conformance.Failed || skipped {
			t.Errorf("%s: %s: %s", c.Name, c.Status, c.Detail)
		}
	}
}
