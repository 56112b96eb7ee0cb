package check_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/step"
	"github.com/gildhq/gild/steps/check"
	"github.com/gildhq/gild/steps/steptest"
	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) { steptest.Main(m) }

// systemctl stands for a running systemd, which the sandbox doesn't have.
const systemctl = `#!/bin/sh
case "$1 $3" in
"is-enabled up") echo enabled ;;
"is-active up") echo active ;;
"is-enabled down") echo disabled; exit 1 ;;
"is-active down") echo inactive; exit 3 ;;
esac
`

// newTarget returns a guest with a service that greets on one of its ports.
func newTarget(t *testing.T) (target *steptest.Target, port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go greet(t, l)
	port = l.Addr().(*net.TCPAddr).Port
	target = steptest.NewTarget(&steptest.Guest{
		MachineHandle: steptest.New(t, steptest.Tree(t)),
		Ports:         map[int]string{port: l.Addr().String()},
	})
	put := step.PutFile{Path: "/usr/bin/systemctl", Mode: 0o755}
	if err := target.Machine.Put(t.Context(), put, strings.NewReader(systemctl)); err != nil {
		t.Fatal(err)
	}
	target.Sh(t, `printf 'hello\nworld\n' >/etc/greeting; chmod 0640 /etc/greeting; chgrp adm /etc/greeting
		ln -s greeting /etc/link; useradd --uid 1234 --groups adm,games ops`)
	return target, port
}

func greet(t *testing.T, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if _, err := c.Write([]byte("SSH-2.0-OpenSSH_9.2p1\r\n")); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func TestHolds(t *testing.T) {
	t.Parallel()
	target, port := newTarget(t)
	config := fmt.Sprintf(`{
		"file": {
			"/etc/greeting": {"type": "file", "mode": "0640", "owner": "root", "group": "adm", "contains": "hello",
				"content": {"matches": "(?m)^world$"}, "sha256": "4A1E67F2FE1D1CC7B31D0CA2EC441DA4778203A036A77DA10344C85E24FF0F92"},
			"/etc/link": {"type": "symlink", "linked-to": "greeting", "contains": ["hello", "world"]},
			"/etc": {"type": "directory", "mode": "755"},
			"/usr/bin/passwd": {"mode": "4755"},
			"/etc/none": {"exists": false}
		},
		"service": {"up": {"enabled": true, "running": true}, "down": {"enabled": false, "running": false}},
		"port": {"tcp:%d": {"banner": "^SSH-2\\.0-"}, "tcp:1": {"listening": false}, "udp:1": {"listening": false}},
		"package": {"bash": {}, "dash": {"installed": true}, "nginx": {"installed": false}},
		"user": {"ops": {"uid": 1234, "gid": 1234, "groups": ["adm", "games"], "home": "/home/ops", "shell": "/bin/sh"}, "nemo": {"exists": false}},
		"kernel-param": {"kernel.ostype": {"value": "Linux"}},
		"command": {"echo a b; echo c >&2; exit 3": {"exit-status": 3, "stdout": ["a", "b"], "stderr": "c"}, "true": {}}
	}`, port)
	if _, err := target.Run(t.Context(), check.Step, config); err != nil {
		t.Fatal(err)
	}
	if got := target.Log.String(); got != "18 checked, all as asked\n" {
		t.Errorf("the log says %q", got)
	}
}

func TestReportsEverything(t *testing.T) {
	t.Parallel()
	target, port := newTarget(t)
	config := fmt.Sprintf(`{
		"file": {
			"/etc/greeting": {"type": "directory", "mode": "0644", "owner": "ops", "group": "root", "contains": "bye",
				"content": {"equals": "x"}, "sha256": "00"},
			"/etc/link": {"linked-to": "/etc/greeting"},
			"/etc/passwd": {"exists": false},
			"/etc/none": {"mode": "0644"}
		},
		"service": {"up": {"enabled": false, "running": false}, "down": {"enabled": true, "running": true}},
		"port": {"tcp:%d": {"banner": "^220 "}, "tcp:1": {}},
		"package": {"bash": {"versions": ["1.0", "2.0"]}, "dash": {"installed": false}, "nginx": {}},
		"user": {"ops": {"uid": 1, "gid": 2, "groups": "sudo", "home": "/", "shell": "/bin/bash"}, "root": {"exists": false}, "nemo": {"uid": 1}},
		"kernel-param": {"kernel.ostype": {"value": "Hurd"}, "kernel.none": {"value": "1"}},
		"command": {"echo a; exit 3": {"stdout": "b"}},
		"within": "1s"
	}`, port)
	_, err := target.Run(t.Context(), check.Step, config)
	bash := target.Sh(t, "dpkg-query --show --showformat='${Version}' bash")
	want := []string{
		`file /etc/greeting: type is file, want directory`,
		`file /etc/greeting: mode is 0640, want 0644`,
		`file /etc/greeting: owner is root, want ops`,
		`file /etc/greeting: group is adm, want root`,
		`file /etc/greeting: sha256 is 4a1e67f2fe1d1cc7b31d0ca2ec441da4778203a036a77da10344c85e24ff0f92, want 00`,
		`file /etc/greeting: content is "hello\nworld\n", which doesn't contain "bye"`,
		`file /etc/greeting: content is "hello\nworld\n", want "x"`,
		`file /etc/link: target is greeting, want /etc/greeting`,
		`file /etc/none: doesn't exist`,
		`file /etc/passwd: exists`,
		`service down: is disabled, want it enabled`,
		`service down: is inactive, want it running`,
		`service up: is enabled, want it not enabled`,
		`service up: is active, want it not running`,
		`port tcp:1: nothing listens`,
		fmt.Sprintf(`port tcp:%d: it says "SSH-2.0-OpenSSH_9.2p1\r\n" and hangs up, which doesn't match "^220 "`, port),
		fmt.Sprintf(`package bash: version is %s, want 1.0 or 2.0`, bash),
		`package dash: is installed`,
		`package nginx: isn't installed`,
		`user nemo: doesn't exist`,
		`user ops: uid is 1234, want 1`,
		`user ops: gid is 1234, want 2`,
		`user ops: home is /home/ops, want /`,
		`user ops: shell is /bin/sh, want /bin/bash`,
		`user ops: is in the groups ops adm games, and not in sudo`,
		`user root: exists`,
		`kernel-param kernel.none: the kernel has no such parameter`,
		`kernel-param kernel.ostype: is "Linux", want "Hurd"`,
		`command echo a; exit 3: exit status is 3, want 0`,
		`command echo a; exit 3: stdout is "a\n", which doesn't contain "b"`,
	}
	if d := cmp.Diff(want, steptest.FailedChecks(t, err)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestLooksAgain(t *testing.T) {
	t.Parallel()
	target, _ := newTarget(t)
	config := `{"command": {"echo x >>/n; test $(wc -l </n) -ge 3": {}}, "within": "1m"}`
	if _, err := target.Run(t.Context(), check.Step, config); err != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	target, port := newTarget(t)
	for name, tc := range map[string]struct {
		config map[string]any
		want   string
	}{
		"broken expression": {map[string]any{"port": map[string]any{fmt.Sprintf("tcp:%d", port): map[string]any{"banner": "("}}}, "missing closing )"},
		"banner of udp":     {map[string]any{"port": map[string]any{"udp:53": map[string]any{"banner": "x"}}}, "look at port udp:53: a banner can be read from tcp only"},
		"no port":           {map[string]any{"port": map[string]any{"tcp:99999": map[string]any{}}}, `"tcp:99999" is no port`},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := json.Marshal(tc.config)
			if err != nil {
				t.Fatal(err)
			}
			_, err = target.Run(t.Context(), check.Step, string(config))
			steptest.WantError(t, err, tc.want)
			var failed *step.TestFailed
			if errors.As(err, &failed) {
				t.Errorf("%v counts as a failed test", err)
			}
		})
	}
}
