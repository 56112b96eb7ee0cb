package steptest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/builder/local/sandbox"
	"golang.org/x/sys/unix"
)

// suite is the release that the trees are made of.
const suite = "bookworm"

// treeJob makes a tree inside of the sandbox's user namespace, whose ids it has.
const treeJob = "steptest.tree"

func init() { sandbox.Register(treeJob, runTreeJob) }

// Main runs a package's tests; every package that uses [Tree] calls it from TestMain.
func Main(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

// Tree returns the path of a Debian root file system that has the packages named, on top
// of mmdebstrap's minbase, and apt's lists. It is made once per machine and shared by all
// tests, which work on it through [New].
func Tree(t testing.TB, packages ...string) string {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("this test needs mmdebstrap: apt-get install mmdebstrap")
	}
	ids, cache := findIDs(t), cacheDir(t)
	id := sha256.Sum256(fmt.Append(nil, ids, suite, packages))
	name := hex.EncodeToString(id[:8])
	unlock := lock(t, filepath.Join(cache, name+".lock"))
	defer unlock()
	tree := filepath.Join(cache, name)
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	if err := makeTree(t.Context(), ids, cache, name, packages); err != nil {
		t.Fatalf("make the tests' tree: %v", err)
	}
	return tree
}

// makeTree makes the tree under another name and renames it, so that one that is there is whole.
func makeTree(ctx context.Context, ids sandbox.IDs, cache, name string, packages []string) error {
	part := filepath.Join(cache, name+".part")
	if err := sandbox.Remove(ctx, ids, part); err != nil {
		return err
	}
	if err := sandbox.MakeDirs(ctx, ids, cache, name+".part"); err != nil {
		return err
	}
	var log bytes.Buffer
	if _, err := sandbox.RunJob(ctx, sandbox.JobConfig{Upper: part, IDs: ids}, treeJob, packages, &log); err != nil {
		return fmt.Errorf("%w\n%s", err, log.Bytes())
	}
	return os.Rename(part, filepath.Join(cache, name))
}

func runTreeJob(ctx context.Context, root string, raw json.RawMessage, _ io.Writer) error {
	var packages []string
	if err := json.Unmarshal(raw, &packages); err != nil {
		return err
	}
	args := []string{"--variant=minbase", "--mode=root", "--skip=check/empty,chroot/mount/sys,cleanup/apt/lists"}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", append(args, suite, root)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// New returns the machine that a test of a step works on: an overlay of the tree in the
// sandbox that real builds use. It is gone when the test ends.
func New(t testing.TB, tree string) *sandbox.Session {
	t.Helper()
	ids := findIDs(t)
	dir, err := os.MkdirTemp(cacheDir(t), "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sandbox.Remove(context.Background(), ids, dir); err != nil {
			t.Error(err)
		}
	})
	if err := sandbox.MakeDirs(t.Context(), ids, dir, "upper", "work"); err != nil {
		t.Fatal(err)
	}
	s, err := sandbox.Open(t.Context(), sandbox.Config{
		Lower: []string{tree}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		IDs: ids, Clock: Clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func findIDs(t testing.TB) sandbox.IDs {
	t.Helper()
	ids, err := sandbox.FindIDs()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// cacheDir is a folder outside of t.TempDir, because making a tree takes longer than the tests.
func cacheDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "gild-steptest-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
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
