// Package registrytest starts a real container registry for tests: docker-registry, of
// Debian's package of that name. In goes a test, out comes the registry's address; it ends
// with the test. It is for tests only.
package registrytest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// The login of a registry that wants one.
const (
	User     = "ann"
	Password = "secret"
	// password is Password as bcrypt hashes it.
	password = "$2b$04$V8UqGNJU61QT8vJ6iWl.HeOwuIRFBEan4UC1tlNXWlARfekBrLI.C"
)

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// Start starts a registry on this machine, without TLS, and returns its host and port.
// With login it lets in only who has the login.
func Start(t testing.TB, login bool) string {
	t.Helper()
	dir := t.TempDir()
	config := "version: 0.1\nstorage: {filesystem: {rootdirectory: " + filepath.Join(dir, "data") + "}}\nhttp: {addr: \"127.0.0.1:0\"}\n"
	if login {
		users := filepath.Join(dir, "users")
		write(t, users, User+":"+password+"\n")
		config += "auth: {htpasswd: {realm: test, path: " + users + "}}\n"
	}
	file := filepath.Join(dir, "config.yml")
	write(t, file, config)

	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatalf("docker-registry, of the Debian package docker-registry, is missing: %v", err)
	}
	cmd := exec.Command(program, "serve", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	address, drained := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(drained)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if found := listening.FindStringSubmatch(lines.Text()); found != nil {
				address <- found[1]
			}
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("end docker-registry: %v", err)
		}
		<-drained
		if err := cmd.Wait(); err == nil {
			t.Error("docker-registry ended by itself")
		}
	})
	select {
	case a := <-address:
		return a
	case <-drained:
		t.Fatal("docker-registry ended before it listened")
	case <-time.After(30 * time.Second):
		t.Fatal("docker-registry doesn't listen after 30 s")
	}
	return ""
}

// DockerConfig writes docker's configuration with the login of a registry, and returns its path.
func DockerConfig(t testing.TB, address string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	write(t, file, fmt.Sprintf(`{"auths": {%q: {"username": %q, "password": %q}}}`, address, User, Password))
	return file
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
