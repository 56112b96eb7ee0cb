package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gildhq/gild/engine/step"
)

// TestLayers stacks 120 layers, each of which changes what is below.
func TestLayers(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	dir := tempDir(t)
	const count = 120
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("layer-%d", i))
		c.Lower = append(c.Lower, filepath.Join(dir, names[i]))
	}
	if err := MakeDirs(t.Context(), c.IDs, dir, names...); err != nil {
		t.Fatal(err)
	}
	fill := fmt.Sprintf("cd %s && for i in $(seq 0 %d); do mkdir layer-$i/etc && echo $i >layer-$i/etc/n$((i %% 10)); done", dir, count-1)
	if _, err := RunJob(t.Context(), JobConfig{IDs: c.IDs, Writable: []string{dir}}, "test-shell", fill, nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{"to change": c, "to look at": {Lower: c.Lower, IDs: c.IDs}} {
		m := openOn(t, c)
		got := m.mustSh(t, "cd /etc; echo $(cat n0 n1 n2 n3 n4 n5 n6 n7 n8 n9)")
		if want := "110 111 112 113 114 115 116 117 118 119\n"; got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// TestChanges checks what a layer holds after changes, removals and renames.
func TestChanges(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	m := openOn(t, c)
	m.mustSh(t, "echo x >>/etc/passwd; rm /etc/group; mkdir /srv; echo s >/srv/s; mv /var /var2; chown web /srv/s; chmod 600 /srv/s")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	below, err := os.ReadFile(filepath.Join(c.Lower[0], "etc/passwd"))
	if err != nil || strings.Contains(string(below), "x\nx") {
		t.Errorf("the lower layer was changed: %s, %v", below, err)
	}
	info, err := os.Lstat(filepath.Join(c.Upper, "srv/s"))
	if err != nil {
		t.Fatal(err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Uid); got != c.IDs.UIDStart+33 {
		t.Errorf("owner outside is %d", got)
	}
	next := Config{Lower: append(c.Lower, c.Upper), IDs: c.IDs}
	again := openOn(t, next)
	again.mustSh(t, "test ! -e /etc/group && test ! -e /var && test -d /var2/lib && test $(stat -c %U:%a /srv/s) = web:600")
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	both := append(c.Lower, c.Upper)
	func() {
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Put(t.Context(), step.PutFile{Path: "/etc/x"}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}()
	for name, lower := range map[string][]string{"one layer": c.Lower, "two layers": both} {
		t.Run(name, func(t *testing.T) {
			m := openOn(t, Config{Lower: lower, IDs: c.IDs})
			if out, err := m.sh(t, "touch /etc/y"); err == nil || !strings.Contains(out, "Read-only file system") {
				t.Errorf("%v: %s", err, out)
			}
			m.mustSh(t, "touch /tmp/x /run/x /dev/shm/x")
		})
	}
}

// TestReopen opens a machine on the same folders again and again: when Close returns,
// nothing uses them any more.
func TestReopen(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	for i := range 8 {
		s, err := Open(t.Context(), c)
		if err != nil {
			t.Fatalf("time %d: %v", i, err)
		}
		m := machine{s, c.Upper}
		m.mustSh(t, fmt.Sprintf("test $(ls /root | wc -l) = %d && touch /root/%d", i, i))
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	err = s.Exec(t.Context(), step.Cmd{Argv: []string{"true"}})
	if want := "run true: the sandbox is closed"; fmt.Sprint(err) != want {
		t.Errorf("a closed machine: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	file := filepath.Join(shared.dir, leakedFileName)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	tests := []struct {
		name   string
		ctx    context.Context
		config Config
		want   string
	}{
		{"nothing", t.Context(), Config{IDs: c.IDs}, "open sandbox: neither layers nor a folder for changes were given"},
		{"no ids", t.Context(), Config{Lower: c.Lower}, "open sandbox: id range 0/0 of 0 ids: it must start above 0 and hold at least 65536"},
		{"no work folder", t.Context(), Config{Lower: c.Lower, Upper: c.Upper, IDs: c.IDs}, "open sandbox: changes on top of layers need a work folder"},
		{"work alone", t.Context(), Config{Lower: c.Lower, Work: c.Work, IDs: c.IDs}, "open sandbox: a work folder is of no use without a folder for changes"},
		{"missing layer", t.Context(), Config{Lower: []string{"/none"}, IDs: c.IDs}, "open sandbox: lstat /none: no such file or directory"},
		{"layer is a file", t.Context(), Config{Lower: []string{file}, IDs: c.IDs}, fmt.Sprintf("open sandbox: open folder %q: not a directory", file)},
		{"cancelled", ended, c, "open sandbox: context canceled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Open(test.ctx, test.config)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
		})
	}
}

// TestEvilTree opens trees whose folders are links to somewhere else.
func TestEvilTree(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"proc", "dev", "tmp", "run", "sys"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := machineConfig(t)
			if err := os.Symlink("/etc", filepath.Join(c.Upper, name)); errors.Is(err, fs.ErrPermission) {
				t.Log("only root can make a link in a layer from outside")
				return
			} else if err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), c)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if want := name + " in the tree is a L---------, not a folder"; !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// victimEnv makes the test program open a machine and wait to be killed.
const victimEnv = "GILD_TEST_VICTIM"

// runVictim opens a machine full of processes and says so.
func runVictim() error {
	ctx := context.Background()
	ids, err := FindIDs()
	if err != nil {
		return err
	}
	base, dir, _ := strings.Cut(os.Getenv(victimEnv), ":")
	s, err := Open(ctx, Config{Lower: []string{base}, Upper: dir + "/upper", Work: dir + "/work", IDs: ids})
	if err != nil {
		return err
	}
	script := "for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP; sleep 1000' & done; echo ready; sleep 1000"
	return s.Exec(ctx, step.Cmd{Argv: []string{"sh", "-c", script}, Stdout: os.Stdout, Network: true})
}

// TestKilledCaller kills a process that has a machine open: nothing may be left of it.
func TestKilledCaller(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	victim := exec.Command("/proc/self/exe")
	victim.Env = append(os.Environ(), victimEnv+"="+c.Lower[0]+":"+filepath.Dir(c.Upper))
	var stderr bytes.Buffer
	victim.Stderr = &stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v: %s", line, err, stderr.String())
	}
	left := processesOf(t, victim.Process.Pid)
	if len(left) < 4 {
		t.Fatalf("there are only %v", left)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	victim.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for _, pid := range left {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %s is still there", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	// The folders are free again, too.
	openOn(t, c)
}

func alive(pid string) bool {
	_, err := os.Stat("/proc/" + pid)
	return err == nil
}

func TestCheck(t *testing.T) {
	t.Parallel()
	if err := Check(t.Context()); err != nil {
		t.Error(err)
	}
}
