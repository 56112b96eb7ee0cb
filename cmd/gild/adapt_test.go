package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/plugins/conformance"
	"github.com/gildhq/gild/plugins/host"
	"github.com/gildhq/gild/plugins/store"
	"github.com/gildhq/gild/steps/steptest"
)

// execPlugin installs a folder with a plugin of kind exec, and returns its steps as the
// engine gets them: served by `gild plugin adapt` in a process of its own.
func execPlugin(t *testing.T, dir string) (*host.Host, store.Content, map[string]step.Step) {
	t.Helper()
	state := t.TempDir()
	s, err := store.Open(filepath.Join(state, "store"))
	if err != nil {
		t.Fatal(err)
	}
	content, err := s.Add(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	log := &steptest.Log{}
	h, err := host.New(host.Config{Dir: filepath.Join(state, "host"), Store: s, Version: "0.0.0", Self: []string{gildProgram(t), "plugin", "adapt"}, Grace: 5 * time.Second, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the plugin's log:\n%s", log)
		}
	})
	list, err := h.Steps(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]step.Step{}
	for _, s := range list {
		steps[s.Name] = s
	}
	return h, content, steps
}

const everything = `gild-plugin: 1
name: acme/all
version: 1.0.0
kind: exec
command: [./all]
steps:
  - name: acme/all
    summary: does all that a plugin of kind exec can
    sections: [customize]
    validates: true
    keyed: true
    schema: {type: object, properties: {text: {type: string}, hang: {type: boolean}}}
    outputs: {facts: string}
`

const everythingScript = `#!/bin/sh
set -eu
request=$(cat)
case $1 in
validate) echo '{"diagnostic": {"message": "no good", "pointer": "/text"}}' ;;
key) echo '{"key": {"tool": "7"}}' ;;
cleanup) printf '%s' "$request" | jq -rc .resource.id | xargs rm -f ;;
run)
	echo '{"progress": {"done": 1, "total": 2}}'
	claim=$("$GILD" target claim file "$OUTSIDE" "a file outside")
	: >"$OUTSIDE"
	printf '%s' "$request" | jq -r .config.text | "$GILD" target put - /etc/motd
	"$GILD" target get /etc/motd "$TMPDIR/motd"
	"$GILD" target exec --env TOKEN -- sh -c 'echo "$(cat /etc/motd) $TOKEN"' >&2
	"$GILD" target input ./in - >&2
	"$GILD" target facts | jq -c '{output: {facts: .os}}'
	if [ "$(printf '%s' "$request" | jq .config.hang)" = true ]; then
		echo '{"log": "hanging"}'
		exec "$GILD" target exec -- sleep 4322
	fi
	rm "$OUTSIDE"
	"$GILD" target settle "$claim"
	echo '{"result": {"outcome": "ok"}}'
	;;
esac
`

// TestExecPlugin has a shell script do everything a plugin can, from its own process over
// all layers to a real machine.
func TestExecPlugin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeExecutable(t, filepath.Join(dir, "all"), everythingScript)
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(everything), 0o644); err != nil {
		t.Fatal(err)
	}
	h, content, steps := execPlugin(t, dir)
	all := steps["acme/all"]
	problems, err := all.Validate(t.Context(), []byte(`{}`))
	if d := cmp.Diff([]step.Problem{{Pointer: "/text", Message: "no good"}}, problems); d != "" || err != nil {
		t.Errorf("validate: %v (-want +got)\n%s", err, d)
	}
	parts, err := all.KeyParts(t.Context(), []byte(`{}`))
	if d := cmp.Diff(map[string]string{"tool": "7"}, parts); d != "" || err != nil {
		t.Errorf("key: %v (-want +got)\n%s", err, d)
	}

	target, outside, record := execTarget(t)
	out, err := target.Run(t.Context(), all, `{"text":"hello"}`)
	if d := cmp.Diff(step.Outputs{"facts": "debian"}, out); d != "" || err != nil {
		t.Fatalf("run: %v (-want +got)\n%s\n%s", err, d, target.Log)
	}
	if got := target.Log.String(); got != "hello hush\nfrom the project" {
		t.Errorf("the log is %q", got)
	}
	if d := cmp.Diff([]string{"claim file " + outside + " a file outside", "settle " + outside}, record.list()); d != "" {
		t.Errorf("claims (-want +got)\n%s", d)
	}
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Cleanup(t.Context(), content, step.Resource{Kind: "file", ID: outside}); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(outside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("cleanup left the file: %v", err)
	}
}

// execTarget is a target with what everythingScript uses.
func execTarget(t *testing.T) (_ *steptest.Target, outside string, _ *claims) {
	t.Helper()
	target, record := steptest.NewTarget(steptest.New(t, steptest.Tree(t))), &claims{}
	outside = filepath.Join(t.TempDir(), "outside")
	input := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(input, []byte("from the project"), 0o644); err != nil {
		t.Fatal(err)
	}
	target.Claim, target.Attempt = record.claim, 1
	target.Env["OUTSIDE"], target.Env["TOKEN"] = outside, "hush"
	target.Inputs["./in"] = steptest.Folder(input)
	return target, outside, record
}

// TestExecPluginCancel stops a script that waits for a command on the machine: all three
// end, and the claim stays open.
func TestExecPluginCancel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeExecutable(t, filepath.Join(dir, "all"), everythingScript)
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(everything), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, steps := execPlugin(t, dir)
	target, outside, record := execTarget(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := target.Run(ctx, steps["acme/all"], `{"text":"hello","hang":true}`)
		done <- err
	}()
	waitFor(t, "the script", func() bool { return strings.Contains(target.Log.String(), "hanging") })
	cause := errors.New("not wanted any more")
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	waitFor(t, "the end of the command on the machine", func() bool { return target.Sh(t, "grep -l 432[2] /proc/[0-9]*/cmdline || true") == "" })
	if d := cmp.Diff([]string{"claim file " + outside + " a file outside"}, record.list()); d != "" {
		t.Errorf("claims (-want +got)\n%s", d)
	}
}

// TestExecPluginKilled kills gild's adapter while a script runs that has a child in a
// session of its own: the step fails, nothing is left, and the next call works.
func TestExecPluginKilled(t *testing.T) {
	t.Parallel()
	const script = `#!/bin/sh
request=$(cat)
case $1$request in
validate*) ;;
*)
	setsid sh -c 'echo child $$ >&2; exec sleep 4323' &
	echo "script $$ $PPID" >&2
	wait
	;;
esac
`
	dir := t.TempDir()
	writeExecutable(t, filepath.Join(dir, "all"), script)
	if err := os.WriteFile(filepath.Join(dir, "plugin.yaml"), []byte(everything), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, steps := execPlugin(t, dir)
	target := steptest.NewTarget(nil)
	done := make(chan error)
	go func() {
		_, err := target.Run(t.Context(), steps["acme/all"], `{}`)
		done <- err
	}()
	var program, adapter, child int
	waitFor(t, "the script and its child", func() bool {
		log := target.Log.String()
		_, scriptLine, _ := strings.Cut(log, "script ")
		_, childLine, _ := strings.Cut(log, "child ")
		n, _ := fmt.Sscan(scriptLine, &program, &adapter)
		m, _ := fmt.Sscan(childLine, &child)
		return n == 2 && m == 1 && strings.Count(log, "\n") == 2
	})
	if err := syscall.Kill(adapter, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	steptest.WantError(t, <-done, "acme/all 1.0.0", "killed")
	for name, pid := range map[string]int{"script": program, "child": child} {
		waitFor(t, "the end of the "+name, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	}
	if _, err := steps["acme/all"].Validate(t.Context(), []byte(`{}`)); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestShellExample runs the plugin of plugins/example/shell.
func TestShellExample(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("jq"); err != nil {
		t.Fatal("this test needs jq: apt-get install jq")
	}
	_, _, steps := execPlugin(t, filepath.Join("..", "..", "plugins", "example", "shell"))
	write, check := steps["gild/sysctl"], steps["gild/sysctl/check"]

	problems, err := write.Validate(t.Context(), []byte(`{"settings":{"net.ipv4/x":1,"net/ipv4.x":2,"foo.bar":"1"}}`))
	want := []step.Problem{
		{Pointer: "/settings/net~1ipv4.x", Message: "net.ipv4.x is set twice, once with dots and once with slashes"},
		{Pointer: "/settings/foo.bar", Message: "no kernel of Debian has a parameter foo.bar", Hint: "parameters begin with a folder of /proc/sys, such as kernel, net or vm", Warning: true},
	}
	if d := cmp.Diff(want, problems); d != "" || err != nil {
		t.Errorf("validate: %v (-want +got)\n%s", err, d)
	}

	machine := steptest.New(t, steptest.Tree(t))
	target := steptest.NewTarget(machine)
	out, err := target.Run(t.Context(), write, `{"settings":{"vm.swappiness":10,"net.ipv4.ip_local_port_range":"1024  65000"}}`)
	if d := cmp.Diff(step.Outputs{"path": "/etc/sysctl.d/60-gild.conf", "count": 2.0}, out); d != "" || err != nil {
		t.Fatalf("run: %v (-want +got)\n%s\n%s", err, d, target.Log)
	}
	if got := target.Sh(t, "cat /etc/sysctl.d/60-gild.conf"); got != "net.ipv4.ip_local_port_range = 1024  65000\nvm.swappiness = 10" {
		t.Errorf("the file is %q", got)
	}

	guest := steptest.NewTarget(&steptest.Guest{MachineHandle: machine})
	if _, err := guest.Run(t.Context(), check, `{"settings":{"kernel/ostype":"Linux"}}`); err != nil {
		t.Errorf("check: %v\n%s", err, guest.Log)
	}
	_, err = guest.Run(t.Context(), check, `{"settings":{"kernel.ostype":"Hurd","kernel.no_such":1}}`)
	checks := []string{`kernel.no_such is not there, not "1"`, `kernel.ostype is "Linux", not "Hurd"`}
	if d := cmp.Diff(checks, sorted(steptest.FailedChecks(t, err))); d != "" {
		t.Errorf("check (-want +got)\n%s", d)
	}
}

// TestShellExampleConforms holds it against the contract, and its own fixtures.
func TestShellExampleConforms(t *testing.T) {
	t.Parallel()
	report, err := conformance.Check(t.Context(), conformance.Options{
		Path: filepath.Join("..", "..", "plugins", "example", "shell"), Version: "0.0.0", Self: []string{gildProgram(t), "plugin", "adapt"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() {
		t.Error(report.Text())
	}
}

// writeExecutable writes a program while no other goroutine starts a process, which would
// hold the file open for writing, and so keep it from being executed.
func writeExecutable(t *testing.T, path, text string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
