package sdk_test

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gildhq/gild/plugins/proto/pluginv1"
)

// self is the tests' program started once more, with nothing but the variables given.
func self(t *testing.T, env ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = env, &stderr
	return cmd, &stderr
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		env  string
		want string
	}{
		"not started by gild": {pluginv1.ParentEnv + "=1", "gild/test 1.2.3 is a plugin of gild, which starts it when a pipeline uses it.\nSee what it can do with: gild plugin docs gild/test\n"},
		"mistakes":            {badEnv + "=1", "plugin gild/test can't be served:\nthe plugin's version \"one\" is not like 1.2.0\nthe plugin has no steps\n"},
	} {
		cmd, stderr := self(t, tc.env)
		out, err := cmd.Output()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 2 || len(out) > 0 || stderr.String() != tc.want {
			t.Errorf("%s: %v, on stdout %q, on stderr %q", name, err, out, stderr)
		}
	}
}

// served starts the plugin and waits for its line.
func served(t *testing.T, parent int) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd, stderr := self(t, pluginv1.CookieKey+"="+pluginv1.CookieValue, "PLUGIN_PROTOCOL_VERSIONS=1",
		"PLUGIN_UNIX_SOCKET_DIR="+t.TempDir(), pluginv1.ParentEnv+"="+strconv.Itoa(parent))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if !regexp.MustCompile(`^1\|1\|unix\|/.*\|grpc\|\n$`).MatchString(line) {
		t.Fatalf("the first line is %q, %v", line, err)
	}
	return cmd, stderr
}

// TestEndsWithGild starts a plugin whose gild is gone: its parent is another process.
func TestEndsWithGild(t *testing.T) {
	t.Parallel()
	cmd, stderr := served(t, os.Getppid())
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("it ended with %v\n%s", err, stderr)
	}
	if want := "gild isn't its parent"; !strings.Contains(stderr.String(), want) || !strings.Contains(stderr.String(), "a wrapper must exec the plugin") {
		t.Errorf("it said %q, want that %s", stderr, want)
	}
}

// TestInterrupt sends Ctrl-C, which is not for the plugin, and then ends it.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	cmd, stderr := served(t, os.Getpid())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for range 3 {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("an interrupt ended it: %v\n%s", err, stderr)
	case <-time.After(2 * time.Second): // longer than it takes to look for its parent
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("it ended with %v", err)
	}
	if stderr.Len() > 0 {
		t.Errorf("it said %q", stderr)
	}
}
