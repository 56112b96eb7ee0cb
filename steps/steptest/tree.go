package steptest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// suite is the release that the trees are made of.
const suite = "bookworm"

// Tree returns the path of a Debian root file system that has the packages named, on top
// of mmdebstrap's minbase, and apt's lists. It is made once per machine and shared by all
// tests: never write to it, work on [New] instead.
func Tree(t testing.TB, packages ...string) string {
	t.Helper()
	need(t, "mmdebstrap", "mmdebstrap")
	cache := cacheDir(t)
	id := sha256.Sum256([]byte(suite + "\n" + strings.Join(packages, "\n")))
	tree := filepath.Join(cache, hex.EncodeToString(id[:8]))
	unlock := lock(t, tree+".lock")
	defer unlock()
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	if err := makeTree(tree, packages); err != nil {
		t.Fatal(err)
	}
	return tree
}

// makeTree makes the tree under another name and renames it, so that a tree that is there is whole.
func makeTree(tree string, packages []string) error {
	part := tree + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--mode=root", "--skip=cleanup/apt/lists", suite, part}
	if len(packages) > 0 {
		args = append([]string{"--include=" + strings.Join(packages, ",")}, args...)
	}
	var log bytes.Buffer
	cmd := exec.Command("mmdebstrap", args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the test's tree: %w\n%s", err, log.Bytes())
	}
	return os.Rename(part, tree)
}

// cacheDir is a folder outside of t.TempDir, because making a tree takes longer than the tests.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "gild-steptest-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	return dir
}

// lock waits for the file's lock and returns what gives it back.
func lock(t testing.TB, name string) func() {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", name, err)
	}
	return func() { f.Close() }
}

// need fails the test when a tool isn't there, naming its package.
func need(t testing.TB, tool, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatalf("this test needs %s: apt-get install %s", tool, pkg)
	}
}
