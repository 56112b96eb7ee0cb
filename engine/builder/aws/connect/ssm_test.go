package connect

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

func TestSSM(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	conform(t, openSSM(t, newFakeSSM(h), Options{Env: testEnv}), h.restart)
}

// TestSSMBadDay has everything go wrong that may.
func TestSSMBadDay(t *testing.T) {
	t.Parallel()
	f := newFakeSSM(startHost(t, hostOptions{}))
	f.hidden, f.delivery, f.throttle, f.offline, f.twice, f.undelivered = 2, 50*time.Millisecond, 9, 1, 3, 1
	m := openSSM(t, f, Options{Env: testEnv})
	for _, p := range basics {
		t.Run(p.name, func(t *testing.T) { p.run(t, m) })
	}
}

// TestSecrets looks for secrets wherever they might be seen: in what is sent, in what is
// answered and kept, on the machine's disk, in the arguments of its processes.
func TestSecrets(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	f := newFakeSSM(h)
	for name, m := range map[string]*Machine{"SSM": openSSM(t, f, Options{}), "SSH": openSSH(t, h, "admin", Options{})} {
		t.Run(name, func(t *testing.T) {
			secret := "canary-" + newID()
			stop := watchArguments(t, secret)
			for range 5 {
				var out bytes.Buffer
				must(t, m.Exec(t.Context(), step.Cmd{
					Argv: []string{"sh", "-c", `read -r given; [ "$given" = "$TOKEN" ] && echo "$TOKEN"; echo "$TOKEN" >&2`}, Env: map[string]string{"TOKEN": secret},
					Stdin: strings.NewReader(secret + "\n"), Stdout: &out,
				}))
				if out.String() != secret+"\n" {
					t.Errorf("the command said %q", out.String())
				}
				must(t, m.Put(t.Context(), step.PutFile{Path: "/run/secret", Mode: 0o600}, strings.NewReader(secret)))
				must(t, m.Get(t.Context(), "/run/secret", &out))
			}
			if seen := stop(); seen != "" {
				t.Errorf("in the arguments of a process: %q", seen)
			}
			for where, text := range map[string]string{"calls and answers": f.history(), "the agent's folder": f.scripts(t)} {
				if len(text) == 0 {
					t.Errorf("nothing was kept of %s", where)
				}
				for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret))[:20]} {
					if strings.Contains(text, form) {
						t.Errorf("%s hold the secret as %q", where, form)
					}
				}
			}
			if out, err := exec.Command("grep", "-rlaF", secret, filepath.Join(h.dir, "upper")).Output(); len(out) > 0 {
				t.Errorf("on the disk in %s, %v", out, err)
			}
		})
	}
}

// history is all that the service was told and has answered.
func (f *fakeSSM) history() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	b.Write(f.bodies.Bytes())
	for _, inv := range f.commands {
		b.WriteString(inv.script + inv.stdout + inv.stderr)
	}
	return b.String()
}

// scripts is what the agent keeps on the machine's disk.
func (f *fakeSSM) scripts(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	files, err := filepath.Glob(filepath.Join(f.h.dir, "ssm", "*"))
	must(t, err)
	for _, file := range files {
		b.Write(mustRead(t, file))
	}
	return b.String()
}

// watchArguments looks at the arguments of all processes until it is stopped.
func watchArguments(t *testing.T, secret string) (stop func() string) {
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 1)
	go func() {
		for ctx.Err() == nil {
			files, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				t.Error(err)
			}
			for _, file := range files {
				// A process may have ended meanwhile.
				if args, err := os.ReadFile(file); err == nil && bytes.Contains(args, []byte(secret)) {
					seen <- string(args)
					return
				}
			}
		}
		seen <- ""
	}()
	return func() string {
		cancel()
		return <-seen
	}
}

func TestSSMCalls(t *testing.T) {
	t.Parallel()
	f := newFakeSSM(startHost(t, hostOptions{}))
	m := openSSM(t, f, Options{})
	if sends, _, _ := f.count(); sends != 1 {
		t.Errorf("connecting took %d commands, want 1", sends)
	}
	for _, test := range []struct {
		name        string
		cmd         step.Cmd
		times       int
		sends, gets int // at most, on average
	}{
		{"short", step.Cmd{Argv: []string{"true"}}, 20, 1, 5},
		{"with input", step.Cmd{Argv: []string{"cat"}, Stdin: strings.NewReader("input")}, 5, 1, 5},
		{"silent", step.Cmd{Argv: []string{"sleep", "8"}}, 1, 3, 40},
		{"talking", step.Cmd{Argv: []string{"sh", "-c", "for i in $(seq 80); do echo $i; sleep 0.1; done"}}, 1, 30, 150},
		{"much of the same", step.Cmd{Argv: []string{"sh", "-c", "yes | head -c 3000000"}}, 1, 20, 60},
	} {
		t.Run(test.name, func(t *testing.T) {
			sends, gets, _ := f.count()
			for range test.times {
				must(t, m.Exec(t.Context(), test.cmd))
			}
			sendsNow, getsNow, _ := f.count()
			sends, gets = sendsNow-sends, getsNow-gets
			t.Logf("%d times: %d commands, %d looks at them", test.times, sends, gets)
			if sends > test.sends*test.times || gets > test.gets*test.times {
				t.Errorf("%d commands and %d looks for %d, want at most %d and %d for each", sends, gets, test.times, test.sends, test.gets)
			}
		})
	}
}

func TestSSMClose(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	f := newFakeSSM(h)
	m, err := SSM(t.Context(), f.client(t), h.instance(""), Options{})
	must(t, err)
	output(t, m, "true")
	const look = "stat -c '%a %n' /run/gild-*; [ -s /run/gild-*/key ] && [ ! -e /run/gild-*/private ] && [ ! -e /run/gild-*/secret ] && echo keys"
	if got := h.output("sh", "-c", look); !strings.HasPrefix(got, "700 /run/gild-") || !strings.HasSuffix(got, "\nkeys\n") {
		t.Errorf("the folder in use: %q", got)
	}
	must(t, m.Close())
	nothingLeft(t, h)
	must(t, m.Close())
}

func TestSSMRefused(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	offline := newFakeSSM(h)
	offline.offline = 1000
	_, err := SSM(t.Context(), offline.client(t), h.instance(""), Options{Within: 2 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "instance profile") || !strings.Contains(err.Error(), "not within 2s") {
		t.Errorf("SSM: %v, want what an agent needs and that it wasn't online", err)
	}
	h.output("mv", "/usr/bin/openssl", "/usr/bin/openssl.away")
	_, err = SSM(t.Context(), newFakeSSM(h).client(t), h.instance(""), Options{})
	if err == nil || !strings.Contains(err.Error(), "openssl, gzip and setsid (util-linux) must be installed") {
		t.Errorf("SSM: %v, want which programs are needed", err)
	}
}

// TestAgentText holds the agent to what SSM does to parameters.
func TestAgentText(t *testing.T) {
	t.Parallel()
	_, public, err := newKeys()
	must(t, err)
	install := fmt.Sprintf(installScript, "/run/gild-"+newID(), agentText, public)
	if strings.Contains(install, "{{") {
		t.Error("SSM would look up what is between {{ and }}")
	}
	if strings.Contains(agentText, heredoc) {
		t.Errorf("%q in the agent would end it early", heredoc)
	}
	if len(install) > 60_000 {
		t.Errorf("putting the agent on a machine takes %d bytes", len(install))
	}
}
