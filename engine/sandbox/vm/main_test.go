package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gildhq/gild/engine/builder/local/disk"
	"github.com/gildhq/gild/engine/builder/local/guest"
	"github.com/gildhq/gild/engine/builder/local/sandbox"
	cloud "github.com/gildhq/gild/engine/sandbox"
	"github.com/gildhq/gild/engine/step"
)

// image is a small real disk with the agent on it, made when the first test asks for it.
type image struct {
	once     sync.Once
	dir, raw string
	err      error
}

var debian image

// The jobs that make it: packages' scripts run in the first, so it is given nothing but the tree.
const (
	treeJob = "vm.test.tree"
	diskJob = "vm.test.disk"
)

func init() {
	sandbox.Register(treeJob, makeTree)
	sandbox.Register(diskJob, makeRaw)
}

func TestMain(m *testing.M) {
	sandbox.Init()
	if dir := os.Getenv(abandonEnv); dir != "" {
		fmt.Fprintln(os.Stderr, abandon(dir))
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := debian.remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (i *image) make() { i.err = i.tryMake(context.Background()) }

func (i *image) tryMake(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "gild-vm-test-")
	if err != nil {
		return err
	}
	i.dir, i.raw = dir, filepath.Join(dir, "image", "disk.raw")
	ids, err := sandbox.FindIDs()
	if err != nil {
		return err
	}
	if err := sandbox.MakeDirs(ctx, ids, dir, "tree", "image"); err != nil {
		return err
	}
	var log bytes.Buffer
	job := sandbox.JobConfig{IDs: ids, Upper: filepath.Join(dir, "tree")}
	if _, err := sandbox.RunJob(ctx, job, treeJob, proxies(), &log); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	job.Writable = []string{filepath.Dir(i.raw)}
	if _, err := sandbox.RunJob(ctx, job, diskJob, i.raw, &log); err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	return nil
}

func (i *image) remove() error {
	if i.dir == "" {
		return nil
	}
	ids, err := sandbox.FindIDs()
	return errors.Join(err, sandbox.Remove(context.Background(), ids, i.dir))
}

func proxies() []string {
	var env []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

const agentUnit = `[Service]
ExecStart=/bin/sh /usr/lib/gild-agent ` + AgentPorts + `
Restart=always
Delegate=yes
IgnoreSIGPIPE=no
[Install]
WantedBy=multi-user.target
`

// makeTree makes a Debian 12 that has a kernel, a power button, DHCP and the agent.
func makeTree(ctx context.Context, tree string, raw json.RawMessage, _ io.Writer) error {
	var env []string
	if err := json.Unmarshal(raw, &env); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--skip=check/empty,chroot/mount/sys",
		"--include=linux-image-cloud-amd64,systemd-sysv,udev,dbus,iproute2", "bookworm", tree)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap (package mmdebstrap): %w", err)
	}
	for name, content := range map[string]string{
		"etc/systemd/network/20-dhcp.network":   "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
		"etc/machine-id":                        "",
		"usr/lib/gild-agent":                    string(guest.AgentScript()),
		"etc/systemd/system/gild-agent.service": agentUnit,
	} {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	wants := filepath.Join(tree, "etc/systemd/system/multi-user.target.wants")
	return errors.Join(
		os.Symlink("/lib/systemd/system/systemd-networkd.service", filepath.Join(wants, "systemd-networkd.service")),
		os.Symlink("/etc/systemd/system/gild-agent.service", filepath.Join(wants, "gild-agent.service")))
}

// makeRaw makes a disk of the tree.
func makeRaw(ctx context.Context, tree string, raw json.RawMessage, _ io.Writer) error {
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return err
	}
	return disk.Assemble(ctx, tree, out, os.TempDir(), disk.Layout{
		Size: 2 << 30, Arch: "amd64", Firmware: []string{disk.BIOS, disk.UEFI}, Seed: "vm", Clock: time.Unix(1_790_000_000, 0),
	}, os.Stderr)
}

// rootDisk returns a copy of the Debian disk.
func rootDisk(tb testing.TB) string {
	tb.Helper()
	debian.once.Do(debian.make)
	must(tb, debian.err)
	path := filepath.Join(tb.TempDir(), "root.raw")
	must(tb, disk.CopySparse(tb.Context(), debian.raw, path))
	return path
}

// blankDisk returns a disk of zeros.
func blankDisk(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "blank.raw")
	must(tb, errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 16<<20)))
	return path
}

// metadata is a metadata service that knows what a machine is asked for, with IMDSv2.
var metadata = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	const token = "a-token"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		fmt.Fprint(w, token)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != token:
		http.Error(w, "a token is required", http.StatusUnauthorized)
	default:
		value, ok := map[string]string{
			"instance-type": "t3.small",
			"mac":           "02:11:22:33:44:55",
			"local-ipv4":    "172.31.16.77",
			"network/interfaces/macs/02:11:22:33:44:55/subnet-ipv4-cidr-block": "172.31.16.0/20",
		}[strings.TrimPrefix(r.URL.Path, "/latest/meta-data/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, value)
	}
})

// launch starts a machine that ends with the test.
func launch(tb testing.TB, spec cloud.MachineSpec) cloud.Machine {
	tb.Helper()
	spec.Arch, spec.Dir, spec.MemoryMiB, spec.CPUs, spec.Metadata = "amd64", tb.TempDir(), 512, 1, metadata
	m, err := New(Config{Accel: guest.TCG}).Start(tb.Context(), spec)
	must(tb, err)
	tb.Cleanup(func() { must(tb, m.Kill()) })
	return m
}

// ready waits until a machine's agent answers.
func ready(tb testing.TB, m cloud.Machine) {
	tb.Helper()
	select {
	case <-m.Ready():
	case <-m.Done():
		tb.Fatalf("the machine is off; its console said:\n%s", m.Console())
	case <-time.After(8 * time.Minute):
		tb.Fatalf("the machine's agent doesn't answer; its console said:\n%s", m.Console())
	}
}

// output runs a shell script that must succeed and returns what it printed.
func output(tb testing.TB, m cloud.Machine, script string) string {
	tb.Helper()
	var out, complaints bytes.Buffer
	err := m.Exec(tb.Context(), step.Cmd{Argv: []string{"bash", "-euc", script}, Stdout: &out, Stderr: &complaints})
	if err != nil {
		tb.Fatalf("%s: %v\n%s", script, err, complaints.String())
	}
	return strings.TrimSpace(out.String())
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
