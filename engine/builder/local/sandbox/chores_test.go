package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func init() {
	Register("test-shell", func(ctx context.Context, root string, raw json.RawMessage, out io.Writer) error {
		var script string
		if err := json.Unmarshal(raw, &script); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "sh", "-c", script)
		cmd.Dir = root
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		return cmd.Run()
	})
	Register("test-panic", func(context.Context, string, json.RawMessage, io.Writer) error {
		panic("at the disco")
	})
	Register("test-missing", func(context.Context, string, json.RawMessage, io.Writer) error {
		_, err := os.Open("/none")
		return fmt.Errorf("look for it: %w", err)
	})
	Register("test-much", func(_ context.Context, _ string, _ json.RawMessage, out io.Writer) error {
		for range 64 {
			if _, err := out.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestRunJob(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	dir := tempDir(t)
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := JobConfig{Lower: c.Lower, Upper: c.Upper, Work: c.Work, IDs: c.IDs}
	writable := plain
	writable.Writable = []string{dir}
	view := JobConfig{Lower: c.Lower, IDs: c.IDs}
	none := JobConfig{IDs: c.IDs}
	marker := filepath.Join(shared.dir, leakedFileName)
	tests := []struct {
		name   string
		config JobConfig
		script string
		want   string
	}{
		{"owners", view, "stat -c '%u %g' . etc/passwd; id -u", "0 0\n0 0\n0\n"},
		{"change the tree", plain, "echo x >etc/x && chown 33:33 etc/x && stat -c %u etc/x", "33\n"},
		{"view", view, "touch x 2>/dev/null || echo read-only", "read-only\n"},
		{"no tree", none, "echo $PWD", "/\n"},
		{"tools of the host", view, "command -v tar", "/usr/bin/tar\n"},
		{"host is read-only", writable, "for d in / /usr /etc /var/tmp /root; do touch $d/gild-test 2>/dev/null && echo $d; done; echo end", "end\n"},
		{"scratch folder", view, "touch /tmp/x && ls /tmp", "root\nx\n"},
		{"writable folder", writable, fmt.Sprintf("echo text >%[1]s && cat %[1]s && touch %[2]s/new && stat -c %%u %[2]s/new", own, dir), "text\n0\n"},
		{"give a file to the caller", writable, fmt.Sprintf("touch %[1]s/mine && chown 65536:65536 %[1]s/mine", dir), ""},
		{"environment", plain, "env | grep -v ^_= | sort", "HOME=/tmp\nLANG=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/tmp/root\n"},
		{"own processes", plain, "ls /proc | grep -c '^[0-9]' | awk '{print ($1 < 8)}'", "1\n"},
		{"sysctls", writable, "echo 60 2>/dev/null >/proc/sys/vm/swappiness || echo refused", "refused\n"},
		{"devices", writable, "ls /dev", "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"},
		{"no rights over the caller's files", plain, fmt.Sprintf("cat %s 2>/dev/null || echo refused", marker), "refused\n"},
		{"background processes", plain, "(trap '' TERM; sleep 1000) >/dev/null 2>&1 & echo end", "end\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			out, err := RunJob(t.Context(), test.config, "test-shell", test.script, &log)
			if err != nil {
				t.Fatalf("%v: %s", err, log.String())
			}
			if diff := cmp.Diff(test.want, string(out)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if data, err := os.ReadFile(own); string(data) != "text\n" {
		t.Errorf("the caller's file holds %q, %v", data, err)
	}
	if err := os.Chmod(filepath.Join(dir, "mine"), 0o600); err != nil {
		t.Errorf("the file isn't the caller's: %v", err)
	}
}

func TestRunJobErrors(t *testing.T) {
	t.Parallel()
	c := JobConfig{IDs: testIDs(t)}
	tests := []struct{ name, job, args, want, log string }{
		{"status", "test-shell", "echo oops >&2; exit 3", "test-shell: exit status 3", "oops\n"},
		{"unknown", "test-none", "", `job "test-none" is not registered`, ""},
		{"error", "test-missing", "", "test-missing: look for it: open /none: no such file or directory", ""},
		{"killed", "test-shell", "kill -9 $$", "test-shell: signal: killed", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			_, err := RunJob(t.Context(), c, test.job, test.args, &log)
			if diff := cmp.Diff(test.want, fmt.Sprint(err)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(test.log, log.String()); diff != "" {
				t.Errorf("log (-want +got)\n%s", diff)
			}
			if wraps := errors.Is(err, fs.ErrNotExist); wraps != (test.name == "error") {
				t.Errorf("is it fs.ErrNotExist? %v", wraps)
			}
		})
	}
	var log strings.Builder
	_, err := RunJob(t.Context(), c, "test-panic", "", &log)
	if want := "test-panic: the sandbox's first process ended: panic: at the disco"; fmt.Sprint(err) != want {
		t.Errorf("a panic gives %v", err)
	}
	if !strings.Contains(log.String(), "chores_test.go") {
		t.Errorf("a panic logs no stack: %s", log.String())
	}
}

func TestRunJobMuchOutput(t *testing.T) {
	t.Parallel()
	out, err := RunJob(t.Context(), JobConfig{IDs: testIDs(t)}, "test-much", nil, nil)
	if err != nil || len(out) != 64<<20 {
		t.Errorf("got %d bytes, %v", len(out), err)
	}
}

func TestRunJobCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	var log strings.Builder
	begin := time.Now()
	_, err := RunJob(ctx, JobConfig{IDs: testIDs(t)}, "test-shell", "setsid sleep 1000 & echo ready >&2; sleep 1000",
		onWrite{&log, func() { cancel(enough) }})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

func TestRegisterTwice(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Register("test-shell", nil)
}

func TestMakeDirs(t *testing.T) {
	t.Parallel()
	ids := testIDs(t)
	dir := tempDir(t)
	if err := MakeDirs(t.Context(), ids, dir, "a", "b"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if got := ownerAndMode(t, filepath.Join(dir, name)); got != fmt.Sprintf("%d:%d drwxr-xr-x", ids.UIDStart, ids.GIDStart) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := MakeDirs(t.Context(), ids, dir, "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v", err)
	}
	if err := MakeDirs(t.Context(), ids, filepath.Join(dir, "none"), "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no parent: %v", err)
	}
}

func ownerAndMode(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("stat", "-c", "%u:%g %A", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestRemove removes what machines have made: folders without rights, links that lead
// out, and trees that lie deep in folders of the caller.
func TestRemove(t *testing.T) {
	t.Parallel()
	c := machineConfig(t)
	m := openOn(t, c)
	m.mustSh(t, fmt.Sprintf("mkdir -p /srv/a/b; echo x >/srv/a/b/c; chown -R web /srv; chmod 0 /srv/a/b /srv/a; ln -s %s /srv/out; mkfifo /srv/pipe; rm /etc/passwd", shared.dir))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	outer := tempDir(t)
	inner := filepath.Join(outer, "x", "y")
	if err := os.MkdirAll(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(shared.dir, filepath.Join(outer, "out")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(c.Upper), filepath.Join(inner, "machine")); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), c.IDs, outer, filepath.Join(outer, "none")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(outer); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(shared.dir, leakedFileName)); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestRemoveRefuses(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/", "//", "/..", "/tmp/..", "", ".", "some/path"} {
		if err := Remove(t.Context(), testIDs(t), path); err == nil {
			t.Errorf("%q was removed", path)
		}
	}
}
