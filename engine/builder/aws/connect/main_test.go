package connect

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
)

func TestMain(m *testing.M) {
	// What the test was started with is no business of the machines.
	for fd := 3; fd < 1024; fd++ {
		syscall.CloseOnExec(fd)
	}
	goleak.VerifyTestMain(m)
}

// host is a machine to connect to: this one's root file system below a layer of its own, in
// namespaces of its own for mounts and processes, with its own /run, boot id, users and SSH
// server. Ending its first process is a power cut.
type host struct {
	tb   testing.TB
	dir  string
	port int
	key  ed25519.PrivateKey // accepted for root and for "admin", who may use sudo
	how  hostOptions

	mu     sync.Mutex
	cmd    *exec.Cmd
	leader int // its first process
}

// groupScript puts the shell that runs it into cgroups of the host's own, in both kinds of
// hierarchy, and makes them the roots; $1 is the host's folder, $2 the cgroups' name.
const groupScript = `set -eu
cd "$1"
mount --make-rprivate /
mkdir -p v1 v2
mount -t cgroup2 cgroup2 v2
mount -t cgroup -o none,name=systemd cgroup v1
for group in "v1/$2" "v2/$2"; do
	mkdir -p "$group"
	echo 0 >"$group/cgroup.procs"
done
exec unshare --cgroup /bin/sh -c "$4" sh "$1" "$3"
`

// ungroupScript removes the cgroups, which outlive a power cut.
const ungroupScript = `set -eu
cd "$1"
mount --make-rprivate /
mount -t cgroup2 cgroup2 v2
mount -t cgroup -o none,name=systemd cgroup v1
find "v1/$2" "v2/$2" -depth -type d -exec rmdir {} +
`

// hostScript is the boot of a host; $1 is its folder, $2 the version of cgroups it has.
const hostScript = `set -eu
cd "$1"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root
mount -t proc proc root/proc
mount --bind /sys root/sys
if [ "$2" = v1 ]; then
	mount -t tmpfs tmpfs root/sys/fs/cgroup
	mkdir root/sys/fs/cgroup/systemd
	mount -t cgroup -o none,name=systemd cgroup root/sys/fs/cgroup/systemd
else
	mount -t cgroup2 cgroup2 root/sys/fs/cgroup
fi
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 tmpfs root/run
mount -t tmpfs -o mode=1777 tmpfs root/tmp
mkdir -p root/var/lib/amazon/ssm
mount --bind ssm root/var/lib/amazon/ssm
cat /proc/sys/kernel/random/uuid >boot_id
mount --bind boot_id root/proc/sys/kernel/random/boot_id
mkdir -p root/run/sshd
if [ ! -e prepared ]; then
	mkdir -p root/etc/gild-test/pushed root/home/admin
	cp -R etc/. root/etc/gild-test/
	chmod 0644 root/etc/gild-test/*.keys
	chmod 0600 root/etc/gild-test/hostkey
	sed -i 's/^root:[^:]*:/root:*:/' root/etc/shadow
	echo 'admin:x:4321:4321::/home/admin:/bin/bash' >>root/etc/passwd
	echo 'admin:*:19000:0:99999:7:::' >>root/etc/shadow
	echo 'admin:x:4321:' >>root/etc/group
	chown -R 4321:4321 root/home/admin
	echo 'echo "a login script that talks"; echo and complains >&2' | tee root/home/admin/.bashrc >root/root/.bashrc
	mkdir -p root/etc/sudoers.d
	echo 'admin ALL=(ALL) NOPASSWD:ALL' >root/etc/sudoers.d/gild-test
	chmod 0440 root/etc/sudoers.d/gild-test
	: >prepared
fi
mount --bind pushed root/etc/gild-test/pushed
exec chroot root /bin/sh -c '/usr/sbin/sshd -D -f /etc/gild-test/sshd_config & while :; do sleep 1 & wait $!; done'
`

const sshdConfig = `Port %d
ListenAddress 127.0.0.1
HostKey /etc/gild-test/hostkey
AuthorizedKeysFile /etc/gild-test/%%u.keys /etc/gild-test/pushed/%%u
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
MaxSessions 50
AllowTcpForwarding %s
`

// hostOptions say how a machine differs from the usual.
type hostOptions struct {
	noForwarding bool   // of TCP connections, by its SSH server
	cgroups      string // "v1"; empty is v2
}

// startHost starts a machine that ends with the test.
func startHost(tb testing.TB, how hostOptions) *host {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Fatal("the test makes machines out of namespaces and needs to be run as root")
	}
	for program, pkg := range map[string]string{"/usr/sbin/sshd": "openssh-server", "/usr/bin/sudo": "sudo", "/usr/bin/openssl": "openssl", "/usr/bin/nsenter": "util-linux", "/usr/bin/python3": "python3"} {
		if _, err := os.Stat(program); err != nil {
			tb.Fatalf("the test needs %s: install the package %s", program, pkg)
		}
	}
	h := &host{tb: tb, dir: tb.TempDir(), port: freePort(tb), how: how}
	for _, dir := range []string{"upper", "work", "root", "ssm", "etc", "pushed"} {
		must(tb, os.Mkdir(filepath.Join(h.dir, dir), 0o755))
	}
	var public ssh.PublicKey
	h.key, public = newKey(tb)
	line := ssh.MarshalAuthorizedKey(public)
	h.write("etc/root.keys", line)
	h.write("etc/admin.keys", line)
	forwarding := "yes"
	if how.noForwarding {
		forwarding = "no"
	}
	h.write("etc/sshd_config", fmt.Appendf(nil, sshdConfig, h.port, forwarding))
	h.newHostKey()
	h.start()
	tb.Cleanup(h.stop)
	return h
}

func (h *host) write(name string, data []byte) {
	h.tb.Helper()
	must(h.tb, os.WriteFile(filepath.Join(h.dir, name), data, 0o600))
}

// newHostKey gives the machine an SSH host key before its first start.
func (h *host) newHostKey() {
	h.tb.Helper()
	key, _ := newKey(h.tb)
	block, err := ssh.MarshalPrivateKey(key, "")
	must(h.tb, err)
	h.write("etc/hostkey", pem.EncodeToMemory(block))
}

func newKey(tb testing.TB) (ed25519.PrivateKey, ssh.PublicKey) {
	tb.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(tb, err)
	p, err := ssh.NewPublicKey(public)
	must(tb, err)
	return key, p
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (h *host) start() {
	h.tb.Helper()
	var said bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL",
		"/bin/sh", "-c", groupScript, "sh", h.dir, h.group(), h.how.cgroups, hostScript)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(h.tb, cmd.Start())
	leader := 0
	h.mu.Lock()
	h.cmd = cmd
	h.mu.Unlock()
	eventually(h.tb, "the machine's first process is its shell", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(children), &leader)
		if err != nil {
			return false
		}
		root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", leader))
		return err == nil && root == filepath.Join(h.dir, "root")
	})
	h.mu.Lock()
	h.leader = leader
	h.mu.Unlock()
}

// stop cuts the power.
func (h *host) stop() {
	h.mu.Lock()
	cmd := h.cmd
	h.cmd, h.leader = nil, 0
	h.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Kill(); err != nil {
		h.tb.Error(err)
	}
	// Killed is what it was.
	_ = cmd.Wait()
	eventually(h.tb, "its cgroups can be removed", func() bool {
		return exec.Command("unshare", "--mount", "/bin/sh", "-c", ungroupScript, "sh", h.dir, h.group()).Run() == nil
	})
}

func (h *host) group() string { return "gild-test-" + filepath.Base(filepath.Dir(h.dir)) }

// restart is a power cut.
func (h *host) restart() {
	h.stop()
	h.start()
}

// enter returns a command that runs in the machine; nil when that is off.
func (h *host) enter(argv ...string) *exec.Cmd {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leader == 0 {
		return nil
	}
	args := append([]string{"-t", fmt.Sprint(h.leader), "-m", "-p", "-C", "-r", "-w"}, argv...)
	return exec.Command("nsenter", args...)
}

// output runs a command in the machine without any connection.
func (h *host) output(argv ...string) string {
	h.tb.Helper()
	out, err := h.enter(argv...).CombinedOutput()
	if err != nil {
		h.tb.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

func (h *host) instance(user string) Instance {
	return Instance{
		ID: "i-0123456789abcdef0", Region: "eu-west-1", Zone: "eu-west-1a", Arch: "amd64",
		Address: fmt.Sprintf("127.0.0.1:%d", h.port), User: user,
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually waits until done, and fails when that takes too long.
func eventually(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within 30 s: %s", what)
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
