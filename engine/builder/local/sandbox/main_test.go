package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gildhq/gild/engine/step"
)

// shared holds the trees that tests only read.
var shared = struct {
	dir                    string
	busybox, debian, probe func() (string, error)
}{}

// leaked is an open file of the test process that isn't closed on exec, as sloppy
// callers hand them down. leakedSecret is in its environment.
const (
	leakedSecret   = "GILD_TEST_SECRET=cafe-secret-4711"
	leakedFileName = "leaked-file"
)

func TestMain(m *testing.M) {
	Init()
	if os.Getenv(victimEnv) != "" {
		fmt.Fprintln(os.Stderr, runVictim())
		os.Exit(1)
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "gild-sandbox-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared.dir = dir
	if err := leak(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shared.probe = sync.OnceValues(buildProbe)
	shared.busybox = sync.OnceValues(makeBusybox)
	shared.debian = sync.OnceValues(makeDebian)
	code = m.Run()
	ids, err := FindIDs()
	if err == nil {
		err = Remove(context.Background(), ids, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// leak leaves lying around what must not reach a machine.
func leak() error {
	name, value, _ := strings.Cut(leakedSecret, "=")
	if err := os.Setenv(name, value); err != nil {
		return err
	}
	path := filepath.Join(shared.dir, leakedFileName)
	if err := os.WriteFile(path, []byte("host file\n"), 0o644); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	// Far up, where nothing else closes or replaces it.
	return unix.Dup2(fd, 77)
}

// probeEnv names the probe program, for a second run by another user.
const probeEnv = "GILD_TEST_PROBE"

func buildProbe() (string, error) {
	if path := os.Getenv(probeEnv); path != "" {
		return path, nil
	}
	path := filepath.Join(shared.dir, "probe")
	build := exec.Command("go", "build", "-o", path, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return path, nil
}

// makeBusybox makes a layer with a static busybox and nothing else.
func makeBusybox() (string, error) {
	ctx := context.Background()
	ids, err := FindIDs()
	if err != nil {
		return "", err
	}
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("busybox is missing: install the package busybox-static")
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if err := MakeDirs(ctx, ids, shared.dir, "busybox"); err != nil {
		return "", err
	}
	layer := filepath.Join(shared.dir, "busybox")
	s, err := Open(ctx, Config{Upper: layer, IDs: ids})
	if err != nil {
		return "", err
	}
	defer s.Close()
	file := step.PutFile{Path: "/bin/busybox", Mode: 0o755, Parents: true}
	if err := s.Put(ctx, file, bytes.NewReader(binary)); err != nil {
		return "", err
	}
	var out bytes.Buffer
	install := step.Cmd{
		Argv:   []string{"/bin/busybox", "sh", "-c", "busybox mkdir -p /etc /root /usr/bin /usr/sbin /sbin /var/lib && busybox --install -s /bin"},
		Stdout: &out, Stderr: &out,
	}
	if err := s.Exec(ctx, install); err != nil {
		return "", fmt.Errorf("%w: %s", err, out.String())
	}
	for path, text := range map[string]string{
		"/etc/passwd":     "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var:/bin/sh\n",
		"/etc/group":      "root:x:0:\nweb:x:33:\nadm:x:4:\n",
		"/etc/os-release": "ID=tiny\nVERSION_ID=\"1\"\n",
	} {
		if err := s.Put(ctx, step.PutFile{Path: path}, strings.NewReader(text)); err != nil {
			return "", err
		}
	}
	return layer, s.Close()
}

func testIDs(t testing.TB) IDs {
	t.Helper()
	ids, err := FindIDs()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// machine is a session on top of the busybox layer, and its folder of changes.
type machine struct {
	*Session
	upper string
}

func openMachine(t testing.TB) machine { return openOn(t, machineConfig(t)) }

func openOn(t testing.TB, c Config) machine {
	t.Helper()
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return machine{s, c.Upper}
}

func machineConfig(t testing.TB) Config { return configOn(t, shared.busybox) }

func configOn(t testing.TB, layer func() (string, error)) Config {
	t.Helper()
	base, err := layer()
	if err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	if err := MakeDirs(t.Context(), testIDs(t), dir, "upper", "work"); err != nil {
		t.Fatal(err)
	}
	return Config{
		Lower: []string{base}, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"),
		IDs: testIDs(t), Hostname: "tiny", Clock: time.Unix(1_700_000_000, 0),
	}
}

// tempDir is like t.TempDir, closed to others, for trees whose owners are shifted.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Remove(context.Background(), testIDs(t), dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// sh runs a script and returns what it printed, both streams in one.
func (m machine) sh(t testing.TB, script string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := m.Exec(t.Context(), step.Cmd{Argv: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out})
	return out.String(), err
}

func (m machine) mustSh(t testing.TB, script string) string {
	t.Helper()
	out, err := m.sh(t, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}
