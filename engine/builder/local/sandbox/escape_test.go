package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gildhq/gild/engine/step"
)

// stopped is the status of a probe that failed to break out.
const stopped = 7

// TestEscape runs a program that tries to break out. As far as it does no harm there,
// the same attempts are made on the host by root, where they must succeed: a probe that
// can't succeed proves nothing.
func TestEscape(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	probe := installProbe(t, m)
	marker := filepath.Join(shared.dir, leakedFileName)
	socket := listenAbstract(t)
	// The marker is in a folder that machines may cover; this one would stand in the open.
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil {
		t.Fatal("mmdebstrap is missing: install the package mmdebstrap")
	}
	tests := []struct {
		name    string
		args    []string
		network bool
		control bool // succeeds on the host
	}{
		{"block device", []string{"mknod", "/root/disk"}, false, false},
		{"block device in dev", []string{"mknod", "/dev/disk"}, false, false},
		{"mount tmpfs", []string{"mount"}, false, false},
		{"bind mount", []string{"bind"}, false, false},
		{"remount sysctls", []string{"remount"}, false, false},
		{"unmount sysctls", []string{"umount"}, false, false},
		{"new mount interface", []string{"fsopen"}, false, true},
		{"clone a mount", []string{"open-tree"}, false, true},
		{"pivot root", []string{"pivot"}, false, false},
		{"new mount namespace", []string{"unshare-ns"}, false, true},
		{"new user namespace", []string{"clone-user"}, false, true},
		{"new user namespace by clone3", []string{"clone3"}, false, true},
		{"join the namespace of init", []string{"setns", "/proc/1/ns/mnt"}, false, false},
		{"join a namespace", []string{"setns", "/proc/self/ns/uts"}, false, true},
		{"chroot", []string{"chroot", tool}, false, false},
		{"trace init", []string{"ptrace"}, false, false},
		{"read init", []string{"read-init", marker}, false, false},
		{"kill init", []string{"kill-init"}, false, false},
		{"keyring", []string{"keyctl"}, false, true},
		{"bpf", []string{"bpf"}, false, true},
		{"perf", []string{"perf"}, false, true},
		{"userfaultfd", []string{"userfaultfd"}, false, true},
		{"io_uring", []string{"io-uring"}, false, true},
		{"kernel log", []string{"kernel-log"}, false, true},
		{"kernel log device", []string{"kmsg"}, false, false},
		{"host name", []string{"hostname"}, false, false},
		{"clock", []string{"clock"}, false, false},
		{"kernel module", []string{"module"}, false, false},
		{"file handle", []string{"by-handle"}, false, true},
		{"abstract socket", []string{"abstract", socket}, false, true},
		{"abstract socket with the host's network", []string{"abstract", socket}, true, true},
		{"raw socket", []string{"raw-socket"}, false, true},
		{"raw socket with the host's network", []string{"raw-socket"}, true, true},
		{"sysctl vm", []string{"sysctl", "vm/swappiness"}, false, true},
		{"sysctl kernel", []string{"sysctl", "kernel/core_pattern"}, false, true},
		{"sysctl net", []string{"sysctl", "net/ipv4/ip_forward"}, false, true},
		{"sysctl net with the host's network", []string{"sysctl", "net/ipv4/ip_forward"}, true, true},
		{"sysctl user", []string{"sysctl", "user/max_user_namespaces"}, false, false},
		{"more capabilities", []string{"capability"}, false, true},
		{"host processes", []string{"scan", "sandbox.test"}, false, false},
		{"caller's environment", []string{"scan", leakedSecret}, false, true},
		{"state folder in mounts", []string{"scan", shared.dir}, false, false},
		{"descriptors", []string{"descriptors"}, false, false},
		{"host file", []string{"open", marker}, false, true},
		{"host file through dots", []string{"open", "/../../../.." + marker}, false, true},
		{"host tool", []string{"open", tool}, false, true},
		{"host tool through dots", []string{"open", "/../../../.." + tool}, false, true},
		{"host tool through a folder", []string{"open", "/etc/.." + tool}, false, true},
		{"host tool through proc", []string{"open", "/proc/self/root/.." + tool}, false, true},
		{"host tool through the working folder", []string{"open", "/proc/self/cwd/.." + tool}, false, false},
	}
	for _, test := range tests {
		if test.args[0] == "abstract" && test.network && !canScopeSockets() {
			t.Logf("%s: this kernel can't stop it, Linux 6.12 can", test.name)
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := step.Cmd{Argv: append([]string{"/root/probe"}, test.args...), Stdout: &out, Stderr: &out, Network: test.network}
			var exit *step.ExitError
			if err := m.Exec(t.Context(), cmd); !errors.As(err, &exit) || exit.Status != stopped {
				t.Errorf("the attempt was not stopped: %v: %s", err, out.String())
			}
			if test.control && os.Geteuid() == 0 {
				if out, err := exec.Command(probe, test.args...).CombinedOutput(); err != nil {
					t.Errorf("the attempt doesn't succeed on the host either: %v: %s", err, out)
				}
			}
		})
	}
}

func installProbe(t *testing.T, m machine) string {
	t.Helper()
	path, err := shared.probe()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Put(t.Context(), step.PutFile{Path: "/root/probe", Mode: 0o755}, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return path
}

// listenAbstract opens an abstract unix socket on the host.
func listenAbstract(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("gild-test-%d-%s", os.Getpid(), filepath.Base(shared.dir))
	listener, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return name
}

// TestEscapeScripts tries what shells can.
func TestEscapeScripts(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	marker := filepath.Join(shared.dir, leakedFileName)
	tests := []struct{ name, script string }{
		{"user namespace", "unshare -r true"},
		{"reach the state folder", "ls " + shared.dir},
		{"write to the host through init", "echo x >/proc/1/root" + marker},
		{"write a sysctl", "echo 1 >/proc/sys/vm/drop_caches"},
		{"system requests", "echo h >/proc/sysrq-trigger"},
		{"read kernel memory", "head -c1 /proc/kcore | grep ."},
		{"write to the root of sys", "touch /sys/x"},
		{"terminal of the caller", "echo x >/dev/tty"},
		{"enter other namespaces", "nsenter -t 1 -m true"},
		{"see processes of the host", "test $(ls /proc | grep -c '^[0-9]') -gt 6"},
		{"give a program more rights", "cp /bin/busybox /root/b && chmod u+s /root/b && su web -c '/root/b id -u' | grep -qx 0"},
		{"raise limits", "ulimit -c unlimited"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if out, err := m.sh(t, test.script); err == nil {
				t.Errorf("it worked: %s", out)
			}
		})
	}
	data, err := os.ReadFile(marker)
	if err != nil || string(data) != "host file\n" {
		t.Errorf("the host's file is now %q, %v", data, err)
	}
}

// TestEscapeFiles lures Put and Get out of the tree with links.
func TestEscapeFiles(t *testing.T) {
	t.Parallel()
	m := openMachine(t)
	marker := filepath.Join(shared.dir, leakedFileName)
	m.mustSh(t, strings.ReplaceAll(`cd /root
		ln -s MARKER file
		ln -s ../../../../../..MARKER dots
		ln -s /proc/self/root/MARKER self
		ln -s /proc/1/root/MARKER init
		ln -s /proc/self/fd/3 fd
		ln -s / folder
		mkfifo pipe
		ln -s loop loop`, "MARKER", marker))
	for _, name := range []string{"file", "dots", "self", "init", "fd", "folder/../../.." + marker, "pipe", "loop"} {
		var out bytes.Buffer
		if err := m.Get(t.Context(), "/root/"+name, &out); err == nil {
			t.Errorf("get %s: read %q", name, out.String())
		}
	}
	for _, name := range []string{"file", "dots", "self", "init", "fd", "loop"} {
		err := m.Put(t.Context(), step.PutFile{Path: "/root/" + name, Parents: true}, strings.NewReader("pwned"))
		if err != nil && errors.Is(err, fs.ErrNotExist) {
			t.Errorf("put %s: %v", name, err)
		}
	}
	data, err := os.ReadFile(marker)
	if err != nil || string(data) != "host file\n" {
		t.Errorf("the host's file is now %q, %v", data, err)
	}
	// The links led to the same names inside.
	if got := m.mustSh(t, "cat "+marker); got != "pwned" {
		t.Errorf("the link's target in the tree is %q", got)
	}
}
