package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestAsUser runs all other tests again as a user without any rights, in a folder that
// is closed to others. Only root can become another user; for anybody else the other
// tests have already been just that.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	name := fmt.Sprintf("gild-test-%d", os.Getpid())
	// useradd gives the user ranges in /etc/subuid and /etc/subgid; userdel takes them back.
	run(t, "useradd", "--no-create-home", "--shell", "/bin/sh", name)
	t.Cleanup(func() { run(t, "userdel", name) })
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, errUID := strconv.Atoi(u.Uid)
	gid, errGID := strconv.Atoi(u.Gid)
	if errUID != nil || errGID != nil {
		t.Fatal(errUID, errGID)
	}
	dir := userFolder(t, uid, gid)
	tests := exec.Command(filepath.Join(dir, "tests"), userArgs()...)
	tests.Dir = filepath.Join(dir, "home")
	tests.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + tests.Dir, "HOME=" + tests.Dir,
		probeEnv + "=" + filepath.Join(dir, "probe"), debianTar + "=" + filepath.Join(tests.Dir, "debian.tar"),
	}
	tests.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	out, err := tests.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// userArgs pass on how the tests were called.
func userArgs() []string {
	args := []string{"-test.count=1"}
	for _, arg := range os.Args[1:] {
		if strings.HasPrefix(arg, "-test.v") || strings.HasPrefix(arg, "-test.short") || strings.HasPrefix(arg, "-test.timeout") {
			args = append(args, arg)
		}
	}
	return args
}

// userFolder makes a folder with the programs the tests need and a home of mode 0700
// that holds the Debian tree. Only the user may run the tests.
func userFolder(t *testing.T, uid, gid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gild-sandbox-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	probe, err := shared.probe()
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	copyFile(t, "/proc/self/exe", filepath.Join(dir, "tests"))
	copyFile(t, probe, filepath.Join(dir, "probe"))
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	saveDebian(t, filepath.Join(home, "debian.tar"))
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{home: 0o700, home + "/debian.tar": 0o600, dir + "/tests": 0o700} {
		if err := errors.Join(os.Chmod(path, mode), os.Chown(path, uid, gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// saveDebian packs the Debian layer with the owners it has inside.
func saveDebian(t *testing.T, path string) {
	t.Helper()
	layer, err := shared.debian()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	job := JobConfig{Lower: []string{layer}, IDs: testIDs(t), Writable: []string{filepath.Dir(path)}}
	if _, err := RunJob(context.Background(), job, "test-shell", "tar -cf "+path+" .", os.Stderr); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}
