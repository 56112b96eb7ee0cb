package steptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gildhq/gild/engine/step"
	"golang.org/x/sys/unix"
)

// Chroot is a plain chroot on an overlay of a tree. It is no sandbox, and only for tests.
type Chroot struct {
	// Root is the machine's root folder.
	Root string
	env  []string
}

// NewChroot mounts an overlay on tree and returns it as a machine; it needs root.
// It is unmounted when the test ends.
func NewChroot(t testing.TB, tree string, env ...string) *Chroot {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"up", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", tree, filepath.Join(dir, "up"), filepath.Join(dir, "work"))
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		t.Fatalf("mount the test's overlay (this test needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", root, err)
		}
	})
	return &Chroot{Root: root, env: env}
}

// Exec runs a command in the chroot, without network unless it asks for it.
func (c *Chroot) Exec(ctx context.Context, cmd step.Cmd) error {
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}, c.env...)
	for k, v := range cmd.Env {
		env = append(env, k+"="+v)
	}
	// env(1) finds the program in the machine's PATH, which exec.Command would look up outside.
	x := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--"}, cmd.Argv...)...)
	x.Env, x.Dir, x.Stdin, x.Stdout, x.Stderr = env, "/", cmd.Stdin, cmd.Stdout, cmd.Stderr
	if cmd.Dir != "" {
		x.Dir = cmd.Dir
	}
	x.SysProcAttr = &syscall.SysProcAttr{Chroot: c.Root, Setpgid: true}
	if !cmd.Network {
		x.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	x.Cancel = func() error { return syscall.Kill(-x.Process.Pid, syscall.SIGKILL) }
	err := x.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		status := exit.ExitCode()
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
		return &step.ExitError{Argv: cmd.Argv, Status: status}
	}
	return errors.Join(err, ctx.Err())
}

// Put writes a file through the chroot's own tools.
func (c *Chroot) Put(ctx context.Context, file step.PutFile, content io.Reader) error {
	const write = `set -eu
if [ "$3" = yes ]; then mkdir -p -- "$(dirname -- "$1")"; fi
if [ -L "$1" ]; then set -- "$(readlink -f -- "$1")" "$2" "$3" "$4" "$5"; fi
cat > "$1.gild-new"; chown -- "$4" "$1.gild-new"; chmod -- "$2" "$1.gild-new"
if [ -n "$5" ]; then touch -d "@$5" -- "$1.gild-new"; fi
mv -T -- "$1.gild-new" "$1"`
	mode := file.Mode.Perm()
	if mode == 0 {
		mode = 0o644
	}
	parents, owner, mtime := "no", or(file.Owner, "root")+":"+or(file.Group, "root"), ""
	if file.Parents {
		parents = "yes"
	}
	if !file.ModTime.IsZero() {
		mtime = strconv.FormatInt(file.ModTime.Unix(), 10)
	}
	var stderr bytes.Buffer
	argv := []string{"sh", "-c", write, "put", file.Path, strconv.FormatUint(uint64(mode), 8), parents, owner, mtime}
	if err := c.Exec(ctx, step.Cmd{Argv: argv, Stdin: content, Stderr: &stderr}); err != nil {
		return fmt.Errorf("put %s: %w: %s", file.Path, err, stderr.String())
	}
	return nil
}

// Get reads a file through the chroot's own tools.
func (c *Chroot) Get(ctx context.Context, path string, w io.Writer) error {
	var exit *step.ExitError
	if err := c.Exec(ctx, step.Cmd{Argv: []string{"test", "-e", path}}); errors.As(err, &exit) {
		return fmt.Errorf("get %s: %w", path, fs.ErrNotExist)
	}
	return c.Exec(ctx, step.Cmd{Argv: []string{"cat", "--", path}, Stdout: w})
}

// Facts reads the tree's os-release.
func (c *Chroot) Facts(ctx context.Context) (step.Facts, error) {
	var text bytes.Buffer
	if err := c.Get(ctx, "/etc/os-release", &text); err != nil {
		return step.Facts{}, err
	}
	facts := step.Facts{Arch: "amd64", PackageManager: "apt"}
	for line := range strings.Lines(text.String()) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ID":
			facts.OS = value
		case "VERSION_ID":
			facts.Version = strings.Trim(value, `"`)
		}
	}
	return facts, nil
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// New returns the machine that the tests of steps work on: an overlay of tree, dropped
// when the test ends.
func New(t testing.TB, tree string) *Chroot {
	t.Helper()
	return NewChroot(t, tree, "SOURCE_DATE_EPOCH="+strconv.FormatInt(Clock.Unix(), 10))
}
