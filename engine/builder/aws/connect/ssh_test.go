package connect

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/gildhq/gild/engine/step"
)

func openSSH(tb testing.TB, h *host, user string, o Options) *Machine {
	tb.Helper()
	m, err := SSH(tb.Context(), h.instance(user), h.key, o)
	must(tb, err)
	tb.Cleanup(func() { must(tb, m.Close()) })
	return m
}

func TestSSHRoot(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	conform(t, openSSH(t, h, "root", Options{Env: testEnv}), h.restart)
}

// TestSSHSudo tries the users of well-known images on a server that forwards no
// connections, and on a system of the first version of cgroups.
func TestSSHSudo(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{noForwarding: true, cgroups: "v1"})
	conform(t, openSSH(t, h, "", Options{Env: testEnv}), h.restart)
}

func TestSSHRefused(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	_, other := newKey(t)
	stranger, _ := newKey(t)
	begin := time.Now()
	for _, test := range []struct {
		name string
		in   Instance
		key  []byte
		o    Options
		want string
	}{
		{"another host key", h.instance("root"), h.key, Options{HostKeys: []ssh.PublicKey{other}}, "is none of the 1 that the machine's console shows"},
		{"another key", h.instance("root"), stranger, Options{Within: time.Second}, "unable to authenticate"},
		{"nothing there", Instance{ID: "i-0", Address: fmt.Sprintf("127.0.0.1:%d", freePort(t)), User: "root"}, h.key, Options{Within: time.Second}, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := SSH(t.Context(), test.in, test.key, test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("SSH: %v, want %q", err, test.want)
			}
		})
	}
	// What no repetition mends isn't repeated for the ten minutes that are the default.
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %s", took)
	}
}

// TestSSHHostKey restarts a machine as somebody else.
func TestSSHHostKey(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	public, err := ssh.ParsePrivateKey(mustRead(t, filepath.Join(h.dir, "etc/hostkey")))
	must(t, err)
	console := "cloud-init\r\n" + keysBegin + "\r\n" + string(ssh.MarshalAuthorizedKey(public.PublicKey())) + "\r\n" + keysEnd + "\r\n"
	known, err := ParseHostKeys(console)
	must(t, err)
	told, seen := openSSH(t, h, "root", Options{HostKeys: known}), openSSH(t, h, "root", Options{})
	h.stop()
	h.newHostKey()
	must(t, os.Remove(filepath.Join(h.dir, "prepared")))
	h.start()
	for _, m := range []*Machine{told, seen} {
		err := m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}})
		if err == nil || !strings.Contains(err.Error(), "somebody may be in between") {
			t.Errorf("Exec: %v, want that the server isn't the machine", err)
		}
	}
}

func mustRead(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	must(tb, err)
	return data
}

func TestSSHCannotBecomeRoot(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	m := openSSH(t, h, "admin", Options{})
	h.output("rm", "/etc/sudoers.d/gild-test")
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}})
	if err == nil || !strings.Contains(err.Error(), "password is required") || errors.As(err, new(*step.ExitError)) {
		t.Errorf("Exec: %v, want what sudo says and no exit status of the command", err)
	}
}

func TestSSHClose(t *testing.T) {
	t.Parallel()
	h := startHost(t, hostOptions{})
	m, err := SSH(t.Context(), h.instance("root"), h.key, Options{})
	must(t, err)
	output(t, m, "true")
	must(t, m.Close())
	nothingLeft(t, h)
	must(t, m.Close())
	if err := m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}); err == nil {
		t.Error("Exec after Close: no error")
	}
}

// nothingLeft checks that a connection that was closed left nothing on the machine.
func nothingLeft(t *testing.T, h *host) {
	t.Helper()
	if left := h.output("sh", "-c", "find /run /sys/fs/cgroup /tmp -name '*gild*'"); left != "" {
		t.Errorf("left on the machine: %s", left)
	}
}

func TestParseHostKeys(t *testing.T) {
	t.Parallel()
	_, one := newKey(t)
	_, two := newKey(t)
	list := func(prefix string, keys ...ssh.PublicKey) string {
		s := prefix + keysBegin + "\r\n"
		for _, k := range keys {
			s += prefix + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) + " root@host\r\n"
		}
		return s + prefix + keysEnd + "\r\n"
	}
	for _, test := range []struct {
		name, console string
		want          []ssh.PublicKey
		fails         bool
	}{
		{name: "nothing yet", console: "booting"},
		{name: "half", console: keysBegin + "\nssh-ed25519 AAAA"},
		{name: "both", console: "x\n" + list("", one, two), want: []ssh.PublicKey{one, two}},
		{name: "with a prefix", console: list("[   12.3] cloud-init[511]: ", one), want: []ssh.PublicKey{one}},
		{name: "the last", console: list("", one) + list("", two), want: []ssh.PublicKey{two}},
		{name: "garbled", console: keysBegin + "\nssh-ed25519 !!\n" + keysEnd, fails: true},
		{name: "empty", console: keysBegin + "\n" + keysEnd, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseHostKeys(test.console)
			if (err != nil) != test.fails {
				t.Fatal(err)
			}
			if diff := cmp.Diff(texts(test.want), texts(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func texts(keys []ssh.PublicKey) (list []string) {
	for _, k := range keys {
		list = append(list, string(ssh.MarshalAuthorizedKey(k)))
	}
	return list
}

func FuzzParseHostKeys(f *testing.F) {
	f.Add("x\n" + keysBegin + "\nssh-ed25519 AAAA\necdsa-sha2-nistp256 AAAA\n" + keysEnd)
	f.Fuzz(func(t *testing.T, console string) {
		if keys, err := ParseHostKeys(console); err != nil && keys != nil {
			t.Errorf("keys and an error: %v", err)
		}
	})
}

func TestAfterMark(t *testing.T) {
	t.Parallel()
	const said = "a login script\nMARKfirst MARK second"
	for size := 1; size <= len(said); size++ {
		var got bytes.Buffer
		a := &afterMark{mark: "MARK", w: &got}
		for rest := []byte(said); len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := a.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if got.String() != "first MARK second" || a.before() != "a login script\n" || !a.passed() {
			t.Errorf("in pieces of %d: %q after %q", size, got.String(), a.before())
		}
	}
	long := &afterMark{mark: "MARK"}
	for range 100 {
		if _, err := long.Write(make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	if long.passed() || len(long.before()) > mostHead+10_000 {
		t.Errorf("%d bytes are kept of a million without a mark", len(long.before()))
	}
}
