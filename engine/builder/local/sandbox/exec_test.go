package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gildhq/gild/engine/step"
)

func TestExec(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	tests := []struct {
		name   string
		cmd    step.Cmd
		stdout string
		status int
	}{
		{name: "output", cmd: step.Cmd{Argv: []string{"echo", "a b", "c"}}, stdout: "a b c\n"},
		{name: "status", cmd: step.Cmd{Argv: []string{"sh", "-c", "exit 42"}}, status: 42},
		{name: "signal", cmd: step.Cmd{Argv: []string{"sh", "-c", "kill -9 $$"}}, status: 137},
		{name: "stdin", cmd: step.Cmd{Argv: []string{"tr", "a-z", "A-Z"}, Stdin: strings.NewReader("text")}, stdout: "TEXT"},
		{name: "no stdin", cmd: step.Cmd{Argv: []string{"cat"}}},
		{name: "stdin nobody reads", cmd: step.Cmd{Argv: []string{"true"}, Stdin: endless{}}},
		{name: "folder", cmd: step.Cmd{Argv: []string{"pwd"}, Dir: "/usr/bin"}, stdout: "/usr/bin\n"},
		{name: "program by path", cmd: step.Cmd{Argv: []string{"./echo", "x"}, Dir: "/bin"}, stdout: "x\n"},
		{name: "program in another path", cmd: step.Cmd{Argv: []string{"echo", "x"}, Env: map[string]string{"PATH": "/nowhere:/bin"}}, stdout: "x\n"},
		{
			name:   "environment",
			cmd:    step.Cmd{Argv: []string{"env"}, Env: map[string]string{"LANG": "C", "A": "1 2"}},
			stdout: "A=1 2\nDEBIAN_FRONTEND=noninteractive\nHOME=/root\nLANG=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nSOURCE_DATE_EPOCH=1700000000\nTERM=dumb\n",
		},
		{name: "umask", cmd: step.Cmd{Argv: []string{"sh", "-c", "umask"}}, stdout: "0022\n"},
		{name: "limits", cmd: step.Cmd{Argv: []string{"sh", "-c", "ulimit -c; ulimit -n"}}, stdout: "0\n1024\n"},
		{name: "signals", cmd: step.Cmd{Argv: []string{"grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status"}}, stdout: "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000000\n"},
		{name: "user", cmd: step.Cmd{Argv: []string{"id"}}, stdout: "uid=0(root) gid=0(root)\n"},
		{name: "host name", cmd: step.Cmd{Argv: []string{"hostname"}}, stdout: "tiny\n"},
		{name: "descriptors", cmd: step.Cmd{Argv: []string{"sh", "-c", "for i in $(seq 0 99); do test -e /proc/$$/fd/$i && echo $i; done; true"}}, stdout: "0\n1\n2\n"},
		{name: "loopback", cmd: step.Cmd{Argv: []string{"sh", "-c", "nc -l -p 80 -e echo hello & sleep 0.2; nc 127.0.0.1 80"}}, stdout: "hello\n"},
		{name: "devices", cmd: step.Cmd{Argv: []string{"sh", "-c", "head -c2 /dev/zero | wc -c; echo x >/dev/null; head -c4 /dev/urandom | wc -c; ls /dev"}}, stdout: "2\n4\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"},
		{name: "big argument", cmd: step.Cmd{Argv: []string{"sh", "-c", "echo ${#BIG}"}, Env: map[string]string{"BIG": strings.Repeat("x", 120_000)}}, stdout: "120000\n"},
		{name: "many arguments", cmd: step.Cmd{Argv: append([]string{"sh", "-c", "echo $#", "sh"}, strings.Fields(strings.Repeat("argument ", 50_000))...)}, stdout: "50000\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			test.cmd.Stdout, test.cmd.Stderr = &stdout, &stderr
			err := m.Exec(t.Context(), test.cmd)
			var exit *step.ExitError
			if errors.As(err, &exit) && exit.Status == test.status {
				err = nil
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			if diff := cmp.Diff(test.stdout, stdout.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestExecErrors(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	tests := []struct {
		name string
		ctx  context.Context
		cmd  step.Cmd
		want string
	}{
		{"nothing", t.Context(), step.Cmd{}, "run a command: it has no program"},
		{"not found", t.Context(), step.Cmd{Argv: []string{"nothing-here"}}, "run nothing-here: start nothing-here: not found in the machine's PATH: file does not exist"},
		{"no such file", t.Context(), step.Cmd{Argv: []string{"/bin/nothing"}}, "run /bin/nothing: start /bin/nothing: no such file or directory"},
		{"not executable", t.Context(), step.Cmd{Argv: []string{"/etc/passwd"}}, "run /etc/passwd: start /etc/passwd: permission denied"},
		{"no folder", t.Context(), step.Cmd{Argv: []string{"true"}, Dir: "/none"}, "run true: start true: no such file or directory"},
		{"cancelled before", ended, step.Cmd{Argv: []string{"true"}}, "run true: enough"},
		{"failing writer", t.Context(), step.Cmd{Argv: []string{"sh", "-c", "echo x; sleep 1000"}, Stdout: failing{}}, "run sh: copy its stdout: log is full"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := m.Exec(test.ctx, test.cmd)
			var exit *step.ExitError
			if err == nil || errors.As(err, &exit) {
				t.Fatalf("no error of its own: %v", err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("log is full") }

// TestExecBackground starts processes that try to outlive their command.
func TestExecBackground(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	tests := []struct{ name, script string }{
		{"child", "sleep 1000 &"},
		{"holding the output", "(while true; do sleep 0.01; done) & echo started"},
		{"of its own session", "setsid sleep 1000 & sleep 0.1"},
		{"daemon", "start-stop-daemon -S -b -x /bin/sleep -- 1000; sleep 0.1"},
		{"deaf", "(trap '' TERM HUP INT QUIT; while true; do sleep 1; done) &"},
		{"stopped", "sleep 1000 & kill -STOP $!"},
		{"many", "for i in $(seq 50); do setsid sh -c 'sleep 1000' & done"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tag := "tag-" + filepath.Base(m.upper) + filepath.Base(filepath.Dir(m.upper))
			var out bytes.Buffer
			cmd := step.Cmd{Argv: []string{"sh", "-c", test.script, tag}, Stdout: &out, Stderr: &out}
			if err := m.Exec(t.Context(), cmd); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if left := processesOf(t, m.child.cmd.Process.Pid); len(left) > 0 {
				t.Errorf("still there: %v", left)
			}
		})
	}
}

// processesOf lists the processes below a process that aren't itself.
func processesOf(t *testing.T, pid int) []string {
	t.Helper()
	children := map[string][]string{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 {
			parent := fields[1]
			children[parent] = append(children[parent], filepath.Base(filepath.Dir(path)))
		}
	}
	var below []string
	for queue := children[fmt.Sprint(pid)]; len(queue) > 0; queue = queue[1:] {
		below = append(below, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return below
}

// TestExecCancel cancels a command that has forked all over the place.
func TestExecCancel(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	enough := errors.New("enough")
	var out bytes.Buffer
	script := "trap '' TERM; for i in 1 2 3; do setsid sh -c 'sleep 1000; sleep 1000' & done; echo ready; wait; sleep 1000"
	err := m.Exec(ctx, step.Cmd{
		Argv:   []string{"sh", "-c", script},
		Stdout: onWrite{&out, func() { cancel(enough) }},
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if left := processesOf(t, m.child.cmd.Process.Pid); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
	if got := m.mustSh(t, "echo the machine goes on"); got != "the machine goes on\n" {
		t.Errorf("got %q", got)
	}
}

type onWrite struct {
	io.Writer
	do func()
}

func (o onWrite) Write(p []byte) (int, error) {
	o.do()
	return o.Writer.Write(p)
}

// TestExecMuchOutput streams a gigabyte.
func TestExecMuchOutput(t *testing.T) {
	m := openMachine(t)
	var before, after runtime.MemStats
	var got counter
	runtime.ReadMemStats(&before)
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"dd", "if=/dev/zero", "bs=1M", "count=1024"}, Stdout: &got})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if got != 1<<30 {
		t.Errorf("got %d bytes", got)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("it took %d bytes of memory", used)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// TestExecStreams checks that output comes while the command runs, and that two streams
// into one writer keep their order.
func TestExecStreams(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	in, typed := io.Pipe()
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := m.Exec(t.Context(), step.Cmd{Argv: []string{"cat"}, Stdin: in, Stdout: out})
		out.CloseWithError(err)
		done <- err
	}()
	line := make([]byte, 5)
	for range 3 {
		if _, err := io.WriteString(typed, "ping\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(said, line); err != nil || string(line) != "ping\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	typed.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	want := strings.Repeat("1\n2\n", 100)
	if got := m.mustSh(t, "for i in $(seq 100); do echo 1; echo 2 >&2; done"); got != want {
		t.Errorf("got %q", got)
	}
}

// TestExecConcurrent runs commands side by side.
func TestExecConcurrent(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	results := make(chan error)
	const count = 8
	for i := range count {
		go func() {
			var out bytes.Buffer
			err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", "sleep 0.$((1 + $0 % 3)); echo $0; ps | grep -c '[s]leep 0.[0-9]$'; true", fmt.Sprint(i)}, Stdout: &out})
			if want := fmt.Sprintf("%d\n0\n", i); err == nil && out.String() != want {
				err = fmt.Errorf("got %q, want %q", out.String(), want)
			}
			results <- err
		}()
	}
	for range count {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestNetwork checks who sees the host's network and resolver, and that the layer keeps
// nothing of the latter.
func TestNetwork(t *testing.T) {
	t.Parallel()
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal("the test needs a host with a resolv.conf: ", err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, prepare, after string }{
		{"file", "echo mine >/etc/resolv.conf", "mine\n"},
		{"nothing", "touch /etc; rm -f /etc/resolv.conf", ""},
		{"link to nothing in run", "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf", ""},
		{"absolute link", "echo there >/etc/there; ln -sf /etc/there /etc/resolv.conf", "there\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := openMachine(t)
			m.mustSh(t, test.prepare)
			before := listTree(t, m.upper)
			var out bytes.Buffer
			cmd := step.Cmd{Argv: []string{"sh", "-c", "readlink /proc/self/ns/net; cat /etc/resolv.conf"}, Stdout: &out, Stderr: &out, Network: true}
			if err := m.Exec(t.Context(), cmd); err != nil {
				t.Fatalf("%v: %s", err, out.String())
			}
			if diff := cmp.Diff(own+"\n"+string(host), out.String()); diff != "" {
				t.Errorf("with network (-want +got)\n%s", diff)
			}
			got := m.mustSh(t, "cat /etc/resolv.conf 2>/dev/null; true")
			if diff := cmp.Diff(test.after, got); diff != "" {
				t.Errorf("without network (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(before, listTree(t, m.upper)); diff != "" {
				t.Errorf("the layer changed (-before +after)\n%s", diff)
			}
		})
	}
}

// listTree lists what is in a folder: names and sizes.
func listTree(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		list = append(list, fmt.Sprintf("%s %v %d", strings.TrimPrefix(path, root), info.Mode(), info.Size()))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func BenchmarkOpenExecClose(b *testing.B) {
	c := machineConfig(b)
	for b.Loop() {
		s, err := Open(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Exec(b.Context(), step.Cmd{Argv: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExec(b *testing.B) {
	m := openOn(b, machineConfig(b))
	for b.Loop() {
		if err := m.Exec(b.Context(), step.Cmd{Argv: []string{"true"}}); err != nil {
			b.Fatal(err)
		}
	}
}
