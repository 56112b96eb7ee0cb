package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

func TestMain(m *testing.M) {
	// No machine may have it.
	if err := os.Setenv("HOST_VARIABLE", "x"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func newSpec(t testing.TB) sandbox.MachineSpec {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, NewDisk(disk))
	return specOf(t, disk)
}

func specOf(t testing.TB, disk string) sandbox.MachineSpec {
	t.Helper()
	return sandbox.MachineSpec{InstanceID: "i-0123456789abcdef0", Dir: t.TempDir(), Disks: []sandbox.MachineDisk{{Device: "/dev/xvda", Path: disk}}}
}

func startMachine(t testing.TB, spec sandbox.MachineSpec) sandbox.Machine {
	t.Helper()
	m, err := Machines{}.Start(t.Context(), spec)
	must(t, err)
	t.Cleanup(func() { must(t, m.Kill()) })
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sh runs a script that must succeed and returns what it printed.
func sh(t testing.TB, m sandbox.Machine, script string) string {
	t.Helper()
	var out bytes.Buffer
	if err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-euc", script}, Stdout: &out, Stderr: &out}); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out.String())
	}
	return strings.TrimSpace(out.String())
}

func TestLooksLikeDebian(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	select {
	case <-m.Ready():
	default:
		t.Error("it isn't ready")
	}
	tests := []struct{ script, want string }{
		{". /etc/os-release; echo $ID $VERSION_ID", "debian 12"},
		{"id -un; pwd; umask", "root\n/\n0022"},
		{"hostname", "localhost"},
		{"openssl rand -hex 4 | wc -c", "9"},
		{"awk 'BEGIN { print 1 + 1 }'", "2"},
		{"echo x | gzip | base64 | base64 -d | gzip -dc", "x"},
		{"cat /proc/1/comm", "sh"},
		{"sed -n s/^0:://p /proc/self/cgroup", "/"},
		{"mkdir /sys/fs/cgroup/job; echo $$ >/sys/fs/cgroup/job/cgroup.procs; sed -n s/^0:://p /proc/self/cgroup", "/job"},
		{"touch /etc/x /opt/x /usr/bin/x /var/lib/x; ls /usr/bin/x", "/usr/bin/x"},
	}
	for _, test := range tests {
		if got := sh(t, m, test.script); got != test.want {
			t.Errorf("%s: %q, want %q", test.script, got, test.want)
		}
	}
	if !strings.Contains(m.Console(), "is up") {
		t.Errorf("console: %q", m.Console())
	}
}

// TestIsApart looks for the host from inside, and tries to change it.
func TestIsApart(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("x"), 0o644))
	for _, script := range []string{
		"test -e " + secret,
		"ls /proc/" + fmt.Sprint(os.Getpid()),
		"kill -0 " + fmt.Sprint(os.Getpid()),
		"mount -t tmpfs tmpfs /mnt",
		"umount /usr",
		"hostname other",
		"echo 0 >/proc/sys/kernel/randomize_va_space",
		"mknod /root/disk b 254 0",
		"nsenter -t 1 -m true",
		"unshare -m true",
		"ls /sys/fs/cgroup/.. | grep -v cgroup",
		"test -n \"${HOST_VARIABLE:-}\"",
		"exec 3<>/dev/tcp/127.0.0.1/1",
	} {
		var out bytes.Buffer
		err := m.Exec(t.Context(), step.Cmd{Argv: []string{"bash", "-c", script}, Stdout: &out, Stderr: &out})
		var exit *step.ExitError
		if !errors.As(err, &exit) {
			t.Errorf("%s: %v, want it to fail\n%s", script, err, out.String())
		}
	}
	if got := sh(t, m, "ls /proc | grep -c '^[0-9]'"); len(got) > 1 {
		t.Errorf("it sees %s processes", got)
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	var out, complaints bytes.Buffer
	err := m.Exec(t.Context(), step.Cmd{
		Argv: []string{"sh", "-c", `cat; echo "$WORD"; pwd; echo no >&2; exit 7`}, Dir: "/var/lib",
		Env: map[string]string{"WORD": "a  b"}, Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &complaints,
	})
	var exit *step.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 {
		t.Errorf("%v, want exit status 7", err)
	}
	if want := "in\na  b\n/var/lib\n"; out.String() != want || complaints.String() != "no\n" {
		t.Errorf("printed %q and %q, want %q", out.String(), complaints.String(), want)
	}
	err = m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "kill -TERM $$"}})
	if !errors.As(err, &exit) || exit.Status != 143 {
		t.Errorf("%v, want exit status 143", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	err = m.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", "sleep 1000 & sleep 1000"}})
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("cancelled: %v", err)
	}
	// What a command leaves running stays, as with an agent on a real machine.
	sh(t, m, "(while :; do echo x >>/var/log/loop; sleep 0.01; done) >/dev/null 2>&1 &")
	sh(t, m, "until [ $(wc -l </var/log/loop) -gt 3 ]; do sleep 0.01; done")
	if got := sh(t, m, "cat /proc/[0-9]*/comm | grep -c sleep"); got == "0" {
		t.Errorf("no loop is running")
	}
}

func TestKeepsItsDisk(t *testing.T) {
	t.Parallel()
	spec := newSpec(t)
	m := startMachine(t, spec)
	sh(t, m, `
		echo one >/etc/one; chown 33:33 /etc/one; chmod 4711 /etc/one; ln /etc/one /etc/two; ln -s /nowhere /etc/three
		mkfifo /var/fifo; mkdir -m 1777 /srv/d; touch -d @1000000000 /srv/d; echo x >/tmp/x; echo x >/run/x; rm /etc/hosts
		rm /usr/bin/who; mv /usr/share/doc/bash /opt; mkdir /usr/share/doc/bash; touch /usr/share/doc/bash/mine`)
	const look = `ls /usr/share/doc/bash; test ! -e /usr/bin/who; stat -c "%a %u %h" /etc/one; readlink /etc/three; stat -c "%F" /var/fifo; stat -c "%a %Y" /srv/d; cat /etc/two; ls /tmp /run/x /etc/hosts 2>&1 | grep -c "^ls"`
	const want = "mine\n4711 33 2\n/nowhere\nfifo\n1777 1000000000\none\n2"
	boot := sh(t, m, "cat /proc/sys/kernel/random/boot_id")
	must(t, m.Reboot(t.Context()))
	if again := sh(t, m, "cat /proc/sys/kernel/random/boot_id"); again == boot {
		t.Error("the id of the boot is the same after a restart")
	}
	if got := sh(t, m, look); got != want {
		t.Errorf("after a restart %q, want %q", got, want)
	}
	must(t, m.Stop(t.Context()))
	must(t, m.Stop(t.Context()))
	<-m.Done()
	if err := m.Exec(t.Context(), step.Cmd{Argv: []string{"true"}}); err == nil {
		t.Error("a command ran on a machine that is off")
	}
	second := startMachine(t, specOf(t, spec.Disks[0].Path))
	if got := sh(t, second, look); got != want {
		t.Errorf("on another machine %q, want %q", got, want)
	}
	sh(t, second, "echo lost >/etc/one")
	must(t, second.Kill())
	third := startMachine(t, specOf(t, spec.Disks[0].Path))
	if got := sh(t, third, "cat /etc/one"); got != "one" {
		t.Errorf("a power cut left %q", got)
	}
}

func TestPauseHoldsStill(t *testing.T) {
	t.Parallel()
	spec := newSpec(t)
	m := startMachine(t, spec)
	sh(t, m, "(while :; do echo x >>/var/log/loop; done) >/dev/null 2>&1 & until [ -s /var/log/loop ]; do sleep 0.01; done")
	resume, err := m.(sandbox.Pauser).Pause(t.Context())
	must(t, err)
	size := func() int64 {
		info, err := os.Stat(filepath.Join(spec.Dir, "tree/var/log/loop"))
		must(t, err)
		return info.Size()
	}
	before := size()
	other := startMachine(t, specOf(t, spec.Disks[0].Path))
	if got := sh(t, other, "wc -c </var/log/loop"); got != fmt.Sprint(before) {
		t.Errorf("the disk has %s bytes, the machine %d", got, before)
	}
	if after := size(); after != before {
		t.Errorf("it wrote %d bytes while it was held still", after-before)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- m.Exec(context.WithoutCancel(t.Context()), step.Cmd{Argv: []string{"true"}}) }()
	must(t, resume())
	must(t, <-waiting)
	sh(t, m, fmt.Sprintf("until [ $(wc -c </var/log/loop) -gt %d ]; do sleep 0.01; done", before))
}

func TestEndsWhileHeldStill(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	resume, err := m.(sandbox.Pauser).Pause(t.Context())
	must(t, err)
	must(t, m.Kill())
	<-m.Done()
	must(t, resume())
}

// TestGoesOffByItself also has a command under way then.
func TestGoesOffByItself(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	running := make(chan error, 1)
	go func() {
		running <- m.Exec(context.WithoutCancel(t.Context()), step.Cmd{Argv: []string{"sleep", "1000"}})
	}()
	sh(t, m, "until grep -qa '^sleep.1000' /proc/[0-9]*/cmdline; do sleep 0.01; done")
	// Whether this one ends before the machine does is a race.
	_ = m.Exec(t.Context(), step.Cmd{Argv: []string{"kill", "-TERM", "1"}})
	select {
	case <-m.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it isn't off after 10 s")
	}
	if err := <-running; !errors.Is(err, errOff) {
		t.Errorf("the command under way ended with %v", err)
	}
}

func TestServesMetadata(t *testing.T) {
	t.Parallel()
	spec := newSpec(t)
	spec.Metadata = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "at ", r.URL.Path) })
	m := startMachine(t, spec)
	const ask = `exec 3<>/dev/tcp/169.254.169.254/80; printf 'GET /latest HTTP/1.0\r\n\r\n' >&3; tail -n 1 <&3`
	for range 2 {
		var out bytes.Buffer
		must(t, m.Exec(t.Context(), step.Cmd{Argv: []string{"bash", "-c", ask}, Stdout: &out}))
		if out.String() != "at /latest" {
			t.Errorf("metadata: %q", out.String())
		}
		must(t, m.Reboot(t.Context()))
	}
}

func TestRefusesOtherDisks(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(disk, make([]byte, 4096), 0o600))
	_, err := Machines{}.Start(t.Context(), specOf(t, disk))
	if err == nil || !strings.Contains(err.Error(), "not made by sandboxtest") {
		t.Errorf("an empty disk: %v", err)
	}
	spec := newSpec(t)
	must(t, os.Truncate(spec.Disks[0].Path, 2000))
	if _, err := (Machines{}).Start(t.Context(), spec); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that was cut off: %v", err)
	}
}

func TestNoRoomOnTheDisk(t *testing.T) {
	t.Parallel()
	m := startMachine(t, newSpec(t))
	sh(t, m, "head -c 2000000 /dev/urandom >/var/big")
	if err := m.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("a tree larger than its disk: %v", err)
	}
	<-m.Done()
}

func BenchmarkMachine(b *testing.B) {
	spec := newSpec(b)
	for b.Loop() {
		spec.Dir = b.TempDir()
		m, err := Machines{}.Start(b.Context(), spec)
		must(b, err)
		must(b, m.Exec(b.Context(), step.Cmd{Argv: []string{"true"}}))
		must(b, m.Stop(b.Context()))
	}
}
